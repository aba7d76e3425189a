"""Does an exported Snapper say what the trained one says, and what do smaller files of it cost?

Symbols: N images, R boxes, C channels, (H, W) cells of a layer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from roiseg.batches import Loading, dequantise, spread
from roiseg.cache.params import ReaderParams
from roiseg.errors import ParityError
from roiseg.export.onnx import example_inputs
from roiseg.geometry import Floats, paired_box_iou
from roiseg.onnx_names import BOXES, CONFIDENCES
from roiseg.snapper.data import SnapDataset, whole_batches
from roiseg.snapper.onnx import OnnxSnapper, SnapInference, with_rough
from roiseg.snapper.windows import share_to_unit
from roiseg.types import HW, FeatureSpec

SIZES = ((1, 1), (3, 7), (3, 0), (1, 17))
"""(images, boxes) of random inputs: one, several, none, many."""

BOXES_PER_PASS = 16

SMALLEST = 1e-3
"""Side of a window, unit frame, that differences are shares of at least: within less, float32 knows no place to a thousandth."""

UNDECIDED = 1e-4
"""Logits that are no further apart are a draw: which position is the likeliest is then left to the last bits of a sum."""


@dataclass(frozen=True)
class RealBoxes:
    """Images with jittered boxes of the objects in them.

    Attributes:
        dataset: of a split.
        rows: which of its images, in order.
        loading: threads; one image at a time.
    """

    dataset: SnapDataset
    rows: Sequence[int]
    loading: Loading

    @classmethod
    def spread(cls, dataset: SnapDataset, images: int, reader: ReaderParams) -> "RealBoxes":
        """Images that lie evenly among those with objects.

        Args:
            dataset: of a split.
            images: how many; fewer where there are fewer.
            reader: section `reader`.
        """
        return cls(dataset, spread([int(row) for row in dataset.rows], images), Loading(1, reader.load_threads, reader.ahead))

    def inputs(self) -> Iterator[tuple[tuple[Tensor, ...], Floats]]:
        """Inputs of a file: per layer (1, C, H, W) float32, windows (R, 9); and the true boxes (R, 4), unit frame.

        At most `BOXES_PER_PASS` boxes; features hold until the next are asked for.
        """
        store = self.dataset.store
        scales = {name: torch.from_numpy(values) for name, values in store.scales.items()}
        floats: dict[str, Tensor] = {}
        for batch in whole_batches(self.dataset, self.loading, self.rows):
            features = dequantise(batch.features, scales, torch.device("cpu"), floats)
            maps = [features[name] for name in self.dataset.layers]
            truth = [share_to_unit(sample.truth, self.dataset.index.resize(sample.row)) for sample in batch.samples]
            whole = np.concatenate([np.zeros((0, 4)), *truth])
            for start in range(0, len(batch.windows), BOXES_PER_PASS):
                part = slice(start, start + BOXES_PER_PASS)
                yield (*maps, batch.windows[part]), whole[part]


@dataclass(frozen=True)
class SnapParity:
    """How far a file is from the model that it was exported from.

    Attributes:
        max_abs: largest difference of an edge (share of its window's side) or a confidence.
        edges: how many were compared.
        undecided: edges left out, since torch's own two likeliest positions are a draw.
        mean_iou: of the file on real boxes.
    """

    max_abs: float
    edges: int
    undecided: int
    mean_iou: float


@torch.no_grad()
def snap_parity(
    inference: SnapInference, file: OnnxSnapper, specs: Sequence[FeatureSpec], input_hw: HW, tolerance: float, real: RealBoxes
) -> SnapParity:
    """Compare torch with onnxruntime on real boxes, and on random ones for the sizes that real images may not have.

    Args:
        inference: in eval mode, on the CPU.
        file: the exported file.
        specs: its layers, in order.
        input_hw: size of the network input.
        tolerance: largest allowed difference.
        real: boxes to compare on.

    Raises:
        ParityError: a difference is above the tolerance, with its place.
    """
    worst, edges, undecided = 0.0, 0, 0
    overlaps = [np.zeros(0)]
    for images, boxes in SIZES:
        inputs = with_rough(example_inputs(specs, input_hw, images, boxes, seed=images * 100 + boxes))
        worst = max(worst, _difference(inference, file, inputs, tolerance, "random")[0])
    for inputs, truth in real.inputs():
        apart, drawn, found = _difference(inference, file, inputs, tolerance, "real")
        worst, edges, undecided = max(worst, apart), edges + found.numel() - drawn, undecided + drawn
        overlaps.append(paired_box_iou(found.double().numpy(), truth))
    return SnapParity(worst, edges, undecided, mean_of(overlaps))


def mean_iou(file: OnnxSnapper, real: RealBoxes) -> float:
    """Mean IoU of true boxes and what a file makes of real ones; stretching axes changes no IoU, so the unit frame will do."""
    return mean_of([paired_box_iou(file(*inputs)[0].double().numpy(), truth) for inputs, truth in real.inputs()])


def mean_of(parts: Sequence[Floats]) -> float:
    """Mean of all values of some arrays; 0 for none."""
    whole = np.concatenate([np.zeros(0), *parts])
    return float(whole.mean()) if len(whole) else 0.0


def _difference(
    inference: SnapInference, file: OnnxSnapper, inputs: tuple[Tensor, ...], tolerance: float, kind: str
) -> tuple[float, int, Tensor]:
    """Largest difference of a pass, how many edges are a draw, and the file's boxes."""
    logits = inference.logits(*inputs)
    best = logits.topk(2, dim=-1).values
    # What isn't a number is no draw.
    clear = ~(best[..., 0] - best[..., 1] <= UNDECIDED)
    worst = 0.0
    expected, found = inference(*inputs), file(*inputs)
    where = f"{len(inputs[0])} {kind} images and {len(inputs[-1])} boxes"
    low, high = inputs[-1][:, 1:3], inputs[-1][:, 3:]
    scales = (high - low).repeat(1, 2).clamp(min=SMALLEST), torch.ones(len(low), 4)
    for name, want, have, scale in zip((BOXES, CONFIDENCES), expected, found, scales, strict=True):
        if have.shape != want.shape:
            raise ParityError(
                f"{file.path}: {name} is {list(have.shape)} for {where}, expected {list(want.shape)}; export it again"
            )
        apart = float(((have - want).abs() / scale)[clear].max()) if clear.any() else 0.0
        # What isn't a number differs from everything.
        if not apart <= tolerance:
            raise ParityError(
                f"{file.path}: {name} differs from torch by {apart:.3g} on {where}, expected at most {tolerance:g} "
                "(snapper.export.tolerance); try another snapper.export.opset"
            )
        worst = max(worst, apart)
    return worst, int((~clear).sum()), found[0]
