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
"""Logits that are no further apart are a draw."""

CANDIDATES = 8
"""Positions of a draw that are tried as the likeliest."""


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
        undecided: edges left out, since more than `CANDIDATES` positions are equally likely to torch.
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
    """Largest difference of a pass, how many edges are a draw of too many positions, and the file's boxes."""
    logits, windows, found = inference.logits(*inputs), inputs[-1], file(*inputs)
    where = f"{len(inputs[0])} {kind} images and {len(windows)} boxes"
    for name, have in zip((BOXES, CONFIDENCES), found, strict=True):
        if have.shape != logits.shape[:2]:
            shapes = f"{list(have.shape)} for {where}, expected {list(logits.shape[:2])}"
            raise ParityError(f"{file.path}: {name} is {shapes}; export it again")
    if not len(windows):
        return 0.0, 0, found[0]
    best = logits.topk(min(CANDIDATES + 1, logits.shape[-1]), dim=-1)
    level = best.values >= best.values[..., :1] - UNDECIDED
    apart = _apart(inference.answers(logits, windows), found, windows)
    # Which of several equal positions is the likeliest is left to the last bits of a sum: each of them may be it.
    for place in range(1, min(CANDIDATES, level.shape[-1])):
        if level[..., place].any():
            bump = torch.full_like(best.values[..., :1], 2 * UNDECIDED)
            chosen = logits.scatter_add(-1, best.indices[..., place : place + 1], bump)
            other = _apart(inference.answers(chosen, windows), found, windows)
            apart = torch.where(level[..., place], torch.minimum(apart, other), apart)
    drawn = level[..., CANDIDATES] if level.shape[-1] > CANDIDATES else torch.zeros_like(level[..., 0])
    worst = float(apart[~drawn].max()) if not drawn.all() else 0.0
    # What isn't a number differs from everything.
    if not worst <= tolerance:
        raise ParityError(
            f"{file.path}: edges or confidences differ from torch by {worst:.3g} on {where}, expected at most {tolerance:g} "
            "(snapper.export.tolerance); try another snapper.export.opset"
        )
    return worst, int(drawn.sum()), found[0]


def _apart(expected: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor], windows: Tensor) -> Tensor:
    """Differences (R, 4): the larger of an edge's, as a share of its window's side, and its confidence's."""
    sides = (windows[:, 3:5] - windows[:, 1:3]).repeat(1, 2).clamp(min=SMALLEST)
    return torch.maximum((found[0] - expected[0]).abs() / sides, (found[1] - expected[1]).abs())
