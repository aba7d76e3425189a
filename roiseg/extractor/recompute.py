"""Proof that a store holds the features of its images: some of them are computed anew and compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiseg.cache.reader import FeatureStore
from roiseg.extractor.inputs import ImageFile, batches
from roiseg.extractor.params import ExtractorParams
from roiseg.extractor.session import Backbone
from roiseg.network_input import as_input
from roiseg.progress import progress
from roiseg.types import IMAGE, PLAIN, array_name

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
        Array -> difference over all the rows.
    """
    layers = [name for name in store.layers if name != IMAGE]
    sums = {array_name(layer, view): _Sums() for view in store.views for layer in layers}
    place = 0
    with progress("recompute", len(rows)) as tick:
        for part, images in batches(files, params, threads):
            for view in store.views:
                outputs = backbone(as_input(images if view == PLAIN else images[..., ::-1], params.input_rule()))
                for number in range(len(part)):
                    stored = store.read(rows[place + number], layers, view)
                    for layer in layers:
                        sums[array_name(layer, view)].add(outputs[layer][number], stored[layer])
            place += len(part)
            tick(len(part))
    return {name: item.difference(relative=store.dtype == np.float16) for name, item in sums.items()}


@dataclass
class _Sums:
    """What is known of an array so far."""

    largest: float = 0.0
    squares: float = 0.0
    energy: float = 0.0
    count: int = 0

    def add(self, now: NDArray[Any], then: NDArray[Any]) -> None:
        """Compare the values of one image."""
        now, then = now.astype(np.float64), then.astype(np.float64)
        self.largest = max(self.largest, float(np.abs(now - then).max()))
        self.squares += float(((now - then) ** 2).sum())
        self.energy += float((now**2).sum())
        self.count += now.size

    def difference(self, *, relative: bool) -> Difference:
        """float16 is judged by the share of the values' energy, int8 by steps of its scale."""
        rms = float(np.sqrt(self.squares / max(self.energy if relative else self.count, 1e-12)))
        return Difference(self.largest, rms, bool(rms <= FLOAT16_RMS if relative else self.largest <= INT8_STEPS))
