"""Proof that a store holds the features of its images: some of them are computed anew and compared."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from roiseg.cache.reader import FeatureStore
from roiseg.extractor.inputs import ImageFile, batches
from roiseg.extractor.params import ExtractorParams
from roiseg.extractor.session import Backbone
from roiseg.progress import progress

FLOAT16_RMS = 1e-3
"""Largest root mean square of the differences over that of the values, float16: its rounding has 3e-4."""
INT8_STEPS = 1.0
"""Largest difference in steps of an int8 scale: a value on the edge between two may fall to either side on another device."""


@dataclass(frozen=True)
class Difference:
    """How far a layer's stored values are from those computed now.

    Attributes:
        largest: absolute difference; in steps of the scale for int8.
        rms: root mean square of the differences; for float16 over that of the values, for int8 in steps.
        fits: whether it is within the tolerance.
    """

    largest: float
    rms: float
    fits: bool


def recompute(
    store: FeatureStore, backbone: Backbone, files: Sequence[ImageFile], rows: Sequence[int], params: ExtractorParams, threads: int
) -> dict[str, Difference]:
    """Run the detector again on some images and compare.

    Args:
        store: what is to be proven.
        backbone: the cut detector, with the store's scales.
        files: images of the rows.
        rows: rows of the store.
        params: the input rule.
        threads: decoding threads.

    Returns:
        Layer -> difference over all the rows.
    """
    names = list(store.shapes)
    largest, squares, values = (dict.fromkeys(names, 0.0) for _ in range(3))
    place = 0
    with progress("recompute", len(rows)) as tick:
        for part, inputs in batches(files, params, threads, Counter()):
            outputs = backbone(inputs)
            for number in range(len(part)):
                stored = store.read(rows[place], names)
                for name in names:
                    now, then = (item.astype(np.float64) for item in (outputs[name][number], stored[name]))
                    largest[name] = max(largest[name], float(np.abs(now - then).max()))
                    squares[name] += float(((now - then) ** 2).sum())
                    values[name] += float((now**2).sum()) if store.dtype == np.float16 else now.size
                place += 1
            tick(len(part))
    found = {}
    for name in names:
        rms = float(np.sqrt(squares[name] / max(values[name], 1e-12)))
        fits = rms <= FLOAT16_RMS if store.dtype == np.float16 else largest[name] <= INT8_STEPS
        found[name] = Difference(largest[name], rms, bool(fits))
    return found
