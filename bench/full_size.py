"""YOLOv9-E as large as it is: the sample's detector at full width with seeded random weights, for benches that need its cost.

57,345,904 parameters and 188.9 GFLOPs for an image of 640x640, as roiseg/sample/complexity.py counts them; cut to
`/model.34/Concat_output_0` (1024 x 80 x 80) the graph keeps 33,793,088 and 127.3. Times depend on the shapes alone, so nothing is
trained; batch norms are measured on real images, or values would grow out of float16 within 200 layers. What depends on the
values, such as the size of the compressed store, isn't that of the trained detector.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from roiseg.backbone import make_backbone
from roiseg.cache.scales import save_scales
from roiseg.calibrate import CalibrateParams, calibrate
from roiseg.extractor.inputs import batches, image_files
from roiseg.extractor.params import ExtractorParams
from roiseg.network_input import as_input
from roiseg.sample.backbone import LAST_LAYER
from roiseg.sample.complexity import list_convs
from roiseg.sample.network import Network
from roiseg.sample.onnx_graph import build_onnx, write_onnx
from roiseg.sample.topology import FEATURES
from roiseg.sample.weights import Weights, initial_weights
from roiseg.types import StoredType

LAYERS: Final = {f"layer_{number}": tensor for number, tensor in FEATURES.items()}
"""Layers that can be cut out, by the names that params.yaml gives them."""
BACKBONE, SCALES = "backbone.onnx", "scales.npz"
SEED: Final = 0
SAMPLE: Final = 4
"""Images that the batch norms and the int8 scales are measured on."""


def full_size_params(params: ExtractorParams, layers: Sequence[str]) -> ExtractorParams:
    """Section `extractor` for these layers of the full-size graph, which has no boxes of its own.

    Args:
        params: the project's section; its input rule, batch size and provider hold.
        layers: names out of `LAYERS`.
    """
    return params.model_copy(update={"layers": {name: LAYERS[name] for name in layers}, "detections": None})


def make_full_size(
    folder: Path, params: ExtractorParams, dtype: StoredType, index: Path, images: Path, threads: int, width: float = 1.0
) -> None:
    """Write the graph, cut and calibrated as the stages `backbone` and `calibrate` do it.

    Args:
        folder: gets `backbone.onnx` and `scales.npz` (which is empty for float16).
        params: see `full_size_params`.
        dtype: stored type.
        index: `images.parquet` of the images to measure on.
        images: their folder.
        threads: decoding threads.
        width: factor on all channels; below 1 for a quick look at whether a bench works.
    """
    files = image_files(pd.read_parquet(index).iloc[:SAMPLE], images)
    _, pixels = next(batches(files, params.model_copy(update={"batch_size": len(files)}), threads))
    whole = folder / "detector.onnx"
    write_onnx(build_onnx(width, _weights(width, as_input(pixels, params.input_rule()))), whole)
    make_backbone(whole, dict(params.layers), params.input_hw, dtype, None, folder / BACKBONE)
    whole.unlink()
    scales = calibrate(CalibrateParams(images=SAMPLE, seed=SEED), params, folder / BACKBONE, index, images, threads)
    save_scales(folder / SCALES, scales)


def _weights(width: float, inputs: NDArray[np.float32]) -> Weights:
    """Random kernels, and batch norms as they are on (N, 3, H, W), folded in."""
    network = Network(width, initial_weights(list_convs(width), np.random.default_rng(SEED)))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            # Those that end a bottleneck start at 0, for training's sake: its convolutions would count for nothing.
            nn.init.ones_(module.weight)
    with torch.no_grad():
        network(torch.from_numpy(inputs), LAST_LAYER)
    return network.folded()
