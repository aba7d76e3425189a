"""An exported U-net of people that is called like a trained one, and what it and smaller files of it cost.

Symbols: N images, (H, W) pixels of an image, (h, w) pixels of the net's input.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from roiseg.errors import GraphError, ParityError
from roiseg.export.half import make_half
from roiseg.export.net_onnx import IMAGES, LOGITS, NET_FILE
from roiseg.export.params import Variant
from roiseg.export.quantize import make_int8
from roiseg.network_input import Pixels
from roiseg.runtime import make_session, run_model
from roiseg.types import Provider

NET_VARIANT_FILES: dict[Variant, str] = {"fp16": "person_net.fp16.onnx", "int8": "person_net.int8.onnx"}

COUNTS = (1, 3)
"""Numbers of random images that a file is tried on."""


class OnnxNet(nn.Module):
    """A net's file in onnxruntime behind the interface of a net; without weights of its own, without gradients."""

    def __init__(self, path: Path, provider: Provider = "cpu") -> None:
        """Open a file that `roiseg.export.net_onnx.export_net` made, or a variant of it.

        Args:
            path: the file.
            provider: where to run.

        Raises:
            GraphError: not the interface of a net.
            ProviderError: onnxruntime doesn't take the file, or would run it somewhere else.
        """
        super().__init__()
        self._path = path
        self._session, self.runtime = make_session(path, provider, "float32", whole=False)
        given, made = ([item.name for item in items] for items in (self._session.get_inputs(), self._session.get_outputs()))
        if given != [IMAGES] or made != [LOGITS]:
            raise GraphError(
                f"{path}: takes {', '.join(given)} and gives {', '.join(made)}, expected {IMAGES} and {LOGITS}; take a {NET_FILE} "
                "that roiseg exported"
            )
        height, width = self._session.get_inputs()[0].shape[2:]
        self.image_hw = (int(height), int(width))

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Logits of people on the CPU: (N, 3, H, W) float32 RGB in [0, 1] -> (N, 1, h, w).

        Raises:
            GraphError: onnxruntime breaks off.
        """
        feeds = {IMAGES: image.cpu().numpy()}
        return torch.from_numpy(run_model(self._session, self._path, [LOGITS], feeds)[0])


@dataclass(frozen=True)
class NetParity:
    """How far a file is from the net that it was exported from.

    Attributes:
        max_abs: largest difference of a probability.
        max_abs_logit: largest difference of a logit.
    """

    max_abs: float
    max_abs_logit: float


@torch.no_grad()
def net_parity(net: nn.Module, path: Path, images: Iterable[Pixels], tolerance: float) -> NetParity:
    """Compare torch with onnxruntime on real images, and on random ones for other numbers of them.

    Args:
        net: in eval mode, on the CPU.
        path: the exported file.
        images: batches (N, 3, H, W) uint8 RGB, held one at a time.
        tolerance: largest allowed difference of a probability.

    Raises:
        ParityError: a difference is above the tolerance, or shapes differ.
        GraphError: see `OnnxNet`.
    """
    file = OnnxNet(path)
    random = np.random.default_rng(0)
    made = (random.integers(0, 256, (count, 3, *file.image_hw), dtype=np.uint8) for count in COUNTS)
    worst = worst_logit = 0.0
    for kind, batches in (("random", made), ("real", images)):
        for batch in batches:
            values = _floats(batch)
            expected, found = net(values), file(values)
            if found.shape != expected.shape:
                raise ParityError(f"{path}: {LOGITS} is {list(found.shape)}, expected {list(expected.shape)}; export it again")
            apart = float((found.sigmoid() - expected.sigmoid()).abs().max())
            # What isn't a number differs from everything.
            if not apart <= tolerance:
                raise ParityError(
                    f"{path}: a probability differs from torch's by {apart:.3g} on {len(batch)} {kind} images, expected at most "
                    f"{tolerance:g}; try another opset, or without simplification"
                )
            worst, worst_logit = max(worst, apart), max(worst_logit, float((found - expected).abs().max()))
    return NetParity(worst, worst_logit)


def _floats(images: Pixels) -> Tensor:
    return torch.from_numpy(images.astype(np.float32) * np.float32(1 / 255))


def net_variants(path: Path, variants: Sequence[Variant], calibration: Iterable[Pixels]) -> dict[Variant, Path]:
    """Write smaller files of a net beside it: the same input and output, float32 too.

    Args:
        path: of `export_net`.
        variants: which.
        calibration: batches (N, 3, H, W) uint8 RGB for INT8, of training images; held one at a time.

    Returns:
        Variant -> its file; `OnnxNet` opens them, so that what scores a net scores them too.

    Raises:
        GraphError: see `roiseg.export.half.make_half`, `roiseg.export.quantize.make_int8`.
    """
    files = {name: path.with_name(NET_VARIANT_FILES[name]) for name in variants}
    if "fp16" in files:
        make_half(path, files["fp16"])
    if "int8" in files:
        make_int8(path, files["int8"], _feeds(calibration))
    return files


def _feeds(images: Iterable[Pixels]) -> Iterator[dict[str, NDArray[np.float32]]]:
    for batch in images:
        yield {IMAGES: batch.astype(np.float32) * np.float32(1 / 255)}
