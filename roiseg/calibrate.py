"""Per-channel int8 scales from a seeded sample of training images."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from roiseg.errors import GraphError
from roiseg.extractor.graph import load_graph, read_metadata, uncast
from roiseg.extractor.inputs import batches, image_files
from roiseg.extractor.params import ExtractorParams
from roiseg.network_input import as_input
from roiseg.params import Section
from roiseg.progress import progress
from roiseg.runtime import make_session
from roiseg.types import INT8_MAX


class CalibrateParams(Section):
    """Section `calibrate`."""

    images: int = Field(ge=1)
    seed: int = Field(ge=0)


def scales_from_peaks(peaks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales (C,) under which the largest magnitude (C,) of each channel is stored as 127.

    A channel that was zero throughout (or so small that its scale would be) gets the scale 1/127: any value up to 1 then fits.
    """
    safe = np.where(peaks > INT8_MAX * np.finfo(np.float32).tiny, peaks, np.float32(1))
    return (safe / np.float32(INT8_MAX)).astype(np.float32)


def calibrate(
    params: CalibrateParams, extractor: ExtractorParams, backbone: Path, index: Path, images: Path, threads: int
) -> dict[str, NDArray[np.float32]]:
    """Largest magnitude per channel over a sample of images, as int8 scales.

    Args:
        params: size and seed of the sample.
        extractor: the input rule and the provider.
        backbone: the cut ONNX.
        index: `images.parquet` of the training split.
        images: folder of its images.
        threads: decoding threads.

    Returns:
        Layer -> (C,) float32, value = q * scale; empty where the backbone stores float16, which needs none.

    Raises:
        GraphError: a channel isn't finite on some image, or the batch size isn't one that the backbone takes.
    """
    model = load_graph(backbone)
    info = read_metadata(model, backbone)
    if info.dtype != "int8":
        return {}
    info.check_batch(extractor.batch_size)
    table = pd.read_parquet(index)
    count = min(params.images, len(table))
    chosen = np.sort(np.random.default_rng(params.seed).permutation(len(table))[:count])
    files = image_files(table.iloc[chosen], images)
    session, _ = make_session(uncast(model, info).SerializeToString(), extractor.provider, extractor.precision)
    tensors = [layer.tensor for layer in info.layers]
    peaks = {layer.name: np.zeros(layer.channels, dtype=np.float32) for layer in info.layers}
    with progress("calibrate", count) as tick:
        for part, images_part in batches(files, extractor, threads):
            values: list[NDArray[Any]] = session.run(tensors, {info.input_name: as_input(images_part, extractor.input_rule())})
            for layer, value in zip(info.layers, values, strict=True):
                top = np.abs(value).max(axis=(0, 2, 3))
                if not np.isfinite(top).all():
                    channel = int(np.flatnonzero(~np.isfinite(top))[0])
                    raise GraphError(
                        f"layer {layer.name!r}, channel {channel}: not finite on {part[0].path} or the images after it; "
                        "look at the input rule (extractor.pixel_max, extractor.color)"
                    )
                peaks[layer.name] = np.maximum(peaks[layer.name], top)
            tick(len(part))
    return {name: scales_from_peaks(values) for name, values in peaks.items()}
