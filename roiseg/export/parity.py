"""Does the exported head say what the trained head says?

Symbols: N images, R ROIs, (h, w) cells of the mask.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from roiseg.batches import Loading, dequantise, spread, whole_batches
from roiseg.cache.params import ReaderParams
from roiseg.dataset import RoiDataset
from roiseg.errors import ParityError
from roiseg.evaluate.confusion import MaskMetrics
from roiseg.evaluate.infer import pass_sizes
from roiseg.export.onnx import aux_output, example_inputs
from roiseg.onnx_names import BOXES, OUTPUT, feature_input
from roiseg.runtime import ORT_ERRORS, make_session
from roiseg.types import HW, FeatureSpec

SIZES = ((1, 1), (3, 7), (3, 0), (1, 17))
"""(images, ROIs) of random inputs: one, several, none, many."""

IMAGES_PER_BATCH = 2
LEAD = "miou_fg_roi"


@dataclass(frozen=True)
class Parity:
    """How far a file is from the head that it was exported from.

    Attributes:
        max_abs: largest difference of a probability, or of an auxiliary output.
        miou_difference: |`miou_fg_roi` of torch - that of the file| over the same ROIs; 0 without real ones.
    """

    max_abs: float
    miou_difference: float


@dataclass(frozen=True)
class RealRois:
    """Cached features and annotated ROIs to compare on.

    Attributes:
        val: the split.
        rows: which of its images, in order.
        loading: batch size and threads.
    """

    val: RoiDataset
    rows: Sequence[int]
    loading: Loading

    @classmethod
    def spread(cls, val: RoiDataset, images: int, reader: ReaderParams) -> "RealRois":
        """Images that lie evenly among those with ROIs.

        Args:
            val: the split.
            images: how many; fewer where there are fewer.
            reader: section `reader`.
        """
        return cls(val, spread(val.rows.tolist(), images), Loading(IMAGES_PER_BATCH, reader.load_threads, reader.ahead))

    def inputs(self) -> Iterator[tuple[dict[str, Tensor], Tensor, NDArray[Any]]]:
        """Features by layer, (R, 5) boxes and (R, h, w) labels, a batch at a time; features hold until the next is asked for.

        ROIs come in the passes of evaluation, so that no image of many people takes more memory than a batch.
        """
        scales = {name: torch.from_numpy(values) for name, values in self.val.store.scales.items()}
        floats: dict[str, Tensor] = {}
        for batch in whole_batches(self.val, self.loading, self.rows):
            features = dequantise(batch.features, scales, torch.device("cpu"), floats)
            sizes = pass_sizes(batch.boxes[:, 0])
            for boxes, labels in zip(torch.split(batch.boxes, sizes), torch.split(batch.targets.labels, sizes), strict=True):
                yield features, boxes, labels.numpy()


class _File:
    """An exported head in onnxruntime, on the CPU."""

    def __init__(self, path: Path, layers: Sequence[str], outputs: Sequence[str]) -> None:
        self._session, _ = make_session(path, "cpu", "float32")
        self._path, self._layers, self._outputs = path, layers, list(outputs)

    def __call__(self, features: Mapping[str, Tensor], boxes: Tensor) -> list[NDArray[np.float32]]:
        feeds = {feature_input(name): features[name].numpy() for name in self._layers} | {BOXES: boxes.numpy()}
        try:
            found: list[NDArray[np.float32]] = self._session.run(self._outputs, feeds)
        except ORT_ERRORS as error:
            raise ParityError(
                f"{self._path}: onnxruntime fails on {len(feeds[feature_input(self._layers[0])])} images and {len(boxes)} ROIs, "
                f"expected masks as torch gives them ({error}); try another export.opset, or export.simplify false"
            ) from error
        return found


@torch.no_grad()
def parity(
    head: nn.Module,
    specs: Sequence[FeatureSpec],
    input_hw: HW,
    path: Path,
    tolerance: float,
    real: RealRois | None,
    *,
    aux: Sequence[str] = (),
) -> Parity:
    """Compare torch with onnxruntime on real ROIs, and on random ones for the sizes that real images may not have.

    Args:
        head: in eval mode, on the CPU.
        specs: its layers, in order.
        input_hw: size of the network input.
        path: the exported file.
        tolerance: largest allowed difference, of probabilities and of mIoU.
        real: cached features and annotated ROIs; None where there are none yet.
        aux: auxiliary outputs that the file has too.

    Raises:
        ParityError: a difference is above the tolerance, with its place.
    """
    layers = [spec.name for spec in specs]
    file = _File(path, layers, [OUTPUT, *map(aux_output, aux)])
    worst, in_torch, in_file = 0.0, MaskMetrics(), MaskMetrics()
    for images, rois in SIZES:
        *maps, boxes = example_inputs(specs, input_hw, images, rois, seed=images * 100 + rois)
        features = dict(zip(layers, maps, strict=True))
        expected, found = _in_torch(head, features, boxes, aux), file(features, boxes)
        worst = max(worst, _difference(path, expected, found, aux, tolerance, f"{images} images"))
    for features, boxes, labels in real.inputs() if real else ():
        expected, found = _in_torch(head, features, boxes, aux), file(features, boxes)
        worst = max(worst, _difference(path, expected, found, aux, tolerance, f"{len(features[layers[0]])} real images"))
        in_torch.add(expected[0].argmax(axis=1).astype(np.uint8), labels)
        in_file.add(found[0].argmax(axis=1).astype(np.uint8), labels)
    scores = [metrics.figures()[LEAD] for metrics in (in_torch, in_file)]
    apart = abs(scores[0] - scores[1])
    if apart > tolerance:
        raise ParityError(
            f"{path}: {LEAD} is {scores[1]:.4f} and torch's {scores[0]:.4f} on the same ROIs, expected a difference of at most "
            f"{tolerance:g} (export.tolerance)"
        )
    return Parity(worst, apart)


def _in_torch(head: nn.Module, features: Mapping[str, Tensor], boxes: Tensor, aux: Sequence[str]) -> list[NDArray[np.float32]]:
    output = head(features, boxes)
    return [output.mask_logits.softmax(dim=1).numpy(), *(output.aux[name].numpy() for name in aux)]


def _difference(
    path: Path,
    expected: Sequence[NDArray[np.float32]],
    found: Sequence[NDArray[np.float32]],
    aux: Sequence[str],
    tolerance: float,
    where: str,
) -> float:
    """Largest difference of a batch.

    Raises:
        ParityError: shapes differ, or values by more than the tolerance; what isn't a number differs from everything.
    """
    worst = 0.0
    for name, want, have in zip([OUTPUT, *map(aux_output, aux)], expected, found, strict=True):
        if have.shape != want.shape:
            raise ParityError(f"{path}: {name} is {have.shape} for {len(expected[0])} ROIs, expected {want.shape}")
        difference = float(np.abs(have - want).max(initial=0.0))
        if not difference <= tolerance:
            raise ParityError(
                f"{path}: {name} differs from torch by {difference:.3g} on {where} and {len(expected[0])} ROIs, expected at most "
                f"{tolerance:g} (export.tolerance)"
            )
        worst = max(worst, difference)
    return worst
