"""Running a head over a split, batch by batch."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from roiseg.batches import Batch, Loading, dequantise, whole_batches
from roiseg.dataset import RoiDataset
from roiseg.evaluate.baselines import NEVER_CLASS_2, beside
from roiseg.evaluate.confusion import MaskMetrics
from roiseg.geometry import Floats
from roiseg.nn.outputs import HeadOutput
from roiseg.types import MAX_ROIS

Further = Callable[[int], Floats]


@dataclass(frozen=True)
class Prediction:
    """A head's answer to a batch.

    Attributes:
        batch: what was asked.
        logits: (R, 3, h, w) float32, on the CPU.
        further: (F, 5) float32 of image number in the batch and xyxy in the unit frame: boxes that aren't annotated.
        further_logits: (F, 3, h, w) float32, on the CPU.
    """

    batch: Batch
    logits: Tensor
    further: Tensor
    further_logits: Tensor

    @property
    def classes(self) -> NDArray[np.uint8]:
        """(R, h, w): the likeliest class of each pixel."""
        return self.logits.argmax(dim=1).numpy().astype(np.uint8)

    @property
    def classes_without_two(self) -> NDArray[np.uint8]:
        """(R, h, w): the likelier of background and target."""
        return self.logits[:, :2].argmax(dim=1).numpy().astype(np.uint8)


def pass_sizes(images: Tensor) -> list[int]:
    """How many ROIs go through a head at a time: at most `MAX_ROIS`, and those of an image together unless they are more.

    ROIs may look at those beside them (`model.relational`), and what they say must not depend on which images share a batch.

    Args:
        images: (R,) image of each ROI; ROIs of an image follow each other.

    Returns:
        Sizes that sum to R; a single 0 for no ROIs.
    """
    sizes = [0]
    for count in torch.unique_consecutive(images, return_counts=True)[1].tolist():
        if sizes[-1] + count <= MAX_ROIS:
            sizes[-1] += count
        else:
            sizes += [min(MAX_ROIS, count - start) for start in range(0, count, MAX_ROIS)]
    return sizes if len(sizes) == 1 or sizes[0] else sizes[1:]


def head_outputs(head: nn.Module, features: Mapping[str, Tensor], boxes: Tensor, wanted: Collection[str]) -> HeadOutput:
    """What a head says of all boxes, in passes of `pass_sizes`, float32 on the CPU.

    Args:
        head: in eval mode.
        features: layer -> (B, C, H, W).
        boxes: (R, 5) of image number and xyxy in the unit frame.
        wanted: auxiliary outputs to bring along where the head has them; their first axis is R.
    """
    parts: list[HeadOutput] = [head(features, part) for part in torch.split(boxes, pass_sizes(boxes[:, 0]))]
    names = [name for name in wanted if name in parts[0].aux]
    return HeadOutput(
        torch.cat([part.mask_logits.float().cpu() for part in parts]),
        {name: torch.cat([part.aux[name].float().cpu() for part in parts]) for name in names},
    )


def run_head(head: nn.Module, features: Mapping[str, Tensor], boxes: Tensor) -> Tensor:
    """Mask logits (R, 3, h, w) of all boxes, see `head_outputs`."""
    return head_outputs(head, features, boxes, ()).mask_logits


@torch.no_grad()
def predictions(
    head: nn.Module,
    dataset: RoiDataset,
    device: torch.device,
    loading: Loading,
    *,
    rows: Sequence[int] | None = None,
    further: Further | None = None,
) -> Iterator[Prediction]:
    """Answers for every ROI of a split, in row order; features are read once.

    Args:
        head: on `device`, in eval mode.
        dataset: the split.
        device: where the head is.
        loading: batch size and threads.
        rows: which images; None: those that have ROIs.
        further: row -> (F, 4) xyxy in the unit frame, boxes that aren't annotated; None: annotated ROIs only.
    """
    scales = {name: torch.from_numpy(values) for name, values in dataset.store.scales.items()}
    floats: dict[str, Tensor] = {}
    for batch in whole_batches(dataset, loading, rows):
        features = dequantise(batch.features, scales, device, floats)
        logits = run_head(head, features, batch.boxes.to(device))
        if further is None:
            yield Prediction(batch, logits, batch.boxes[:0], logits[:0])
            continue
        # In passes of their own: ROIs may look at those beside them, and annotated ones must not depend on a detector.
        boxes = _further_boxes(batch, further)
        yield Prediction(batch, logits, boxes, run_head(head, features, boxes.to(device)))


def _further_boxes(batch: Batch, further: Further) -> Tensor:
    parts = [np.zeros((0, 5))]
    for place, row in enumerate(batch.rows):
        boxes = further(row)
        parts.append(np.concatenate([np.full((len(boxes), 1), place), boxes], axis=1))
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


@dataclass
class Score:
    """Metrics of a head, and of the same head if it never predicted class 2."""

    metrics: MaskMetrics
    without_two: MaskMetrics

    @classmethod
    def empty(cls) -> "Score":
        """Nothing counted yet."""
        return cls(MaskMetrics(), MaskMetrics())

    @classmethod
    def together(cls, scores: Sequence["Score"]) -> "Score":
        """What several have counted, as one."""
        metrics, without_two = (
            MaskMetrics.together([getattr(score, name) for score in scores]) for name in ("metrics", "without_two")
        )
        return cls(metrics, without_two)

    def add(self, prediction: Prediction) -> None:
        """Count a batch."""
        labels = prediction.batch.targets.labels.numpy()
        self.metrics.add(prediction.classes, labels)
        self.without_two.add(prediction.classes_without_two, labels)

    def figures(self) -> dict[str, float]:
        """Those of arg-max over all classes, and beside them those of arg-max over background and target only."""
        return self.metrics.figures() | beside(NEVER_CLASS_2, self.without_two.figures())
