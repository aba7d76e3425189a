"""Learning to snap boxes."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from roiseg.batches import Loading, feature_buffers
from roiseg.cache.source import FeatureSource
from roiseg.evaluate.overlays import Picture
from roiseg.evaluate.pictures import FixedPicture
from roiseg.geometry import paired_box_iou
from roiseg.snapper.data import SnapBatch, SnapDataset, training_batches
from roiseg.snapper.infer import snap_results
from roiseg.snapper.loss import SnapLoss
from roiseg.snapper.metrics import FIGURES, LEAD, exact_mean, snap_figures
from roiseg.snapper.params import DecisionParams
from roiseg.snapper.pictures import snap_sheet
from roiseg.snapper.results import SnapResults
from roiseg.train.task import Task
from roiseg.types import HW

ROUGH = "rough_mean_iou"
"""What the rough boxes have by themselves: the line that a model must leave behind (spec 21.12)."""


class SnapTask(Task):
    """A model, its loss, and the boxes that it learns from.

    Attributes:
        loss: returns its total and parts.
        train: training split.
        val: validation split.
    """

    lead, unit = LEAD, "boxes"
    thrift = "snapper.data.boxes_per_image, or roi_hw or crop_px and the channels of snapper.model"

    def __init__(
        self,
        fresh: Callable[[], nn.Module],
        loss: SnapLoss,
        decision: DecisionParams,
        train: SnapDataset,
        val: SnapDataset,
        positions: int,
        fixed: Sequence[FixedPicture] = (),
    ) -> None:
        """Put the task together.

        Args:
            fresh: makes the model.
            loss: see the class.
            decision: sub-section `snapper.decision`.
            train: see the class.
            val: see the class.
            positions: that the model tells apart.
            fixed: pictures drawn each epoch.
        """
        self._fresh, self.loss, self._decision, self.train, self.val = fresh, loss, decision, train, val
        self._positions, self._fixed = positions, tuple(fixed)

    @property
    def stores(self) -> Mapping[str, FeatureSource]:
        """See `Task`."""
        return {"train": self.train.store, "val": self.val.store}

    @property
    def layers(self) -> Sequence[str]:
        """See `Task`."""
        return self.train.layers

    @property
    def mask_hw(self) -> HW:
        """See `Task`: edges and positions."""
        return (4, self._positions)

    @property
    def images(self) -> int:
        """See `Task`."""
        return len(self.train.rows)

    @property
    def known_figures(self) -> Sequence[str]:
        """See `Task`."""
        return FIGURES

    def build(self) -> nn.Module:
        """See `Task`."""
        return self._fresh()

    def batches(self, loading: Loading, seed: int, epoch: int) -> Iterator[SnapBatch]:
        """See `Task`."""
        return training_batches(self.train, loading, seed=seed, epoch=epoch)

    def largest(self, images: int) -> SnapBatch:
        """See `Task`."""
        features = {
            name: values.zero_() for name, values in feature_buffers(self.train.store, self.layers, images, pinned=False).items()
        }
        boxes = min(self.train.objects.most, self.train.params.boxes_per_image)
        places = torch.arange(images, dtype=torch.float32).repeat_interleave(boxes)[:, None]
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(places), 4)
        return SnapBatch([], features, torch.cat([places, whole, whole], dim=1), whole, torch.ones(len(places)), [])

    def losses(self, module: nn.Module, features: dict[str, Tensor], batch: SnapBatch, device: torch.device) -> dict[str, Tensor]:
        """See `Task`."""
        logits = module(features, batch.windows.to(device))
        return self.loss(logits.float(), batch.targets.to(device), batch.weights.to(device))

    def score(self, module: nn.Module, device: torch.device, loading: Loading) -> list[SnapResults]:
        """See `Task`."""
        return list(snap_results(module, self.val, self._decision, device, loading))

    def figures(self, parts: Sequence[list[SnapResults]]) -> dict[str, float]:
        """See `Task`."""
        results = SnapResults.together([item for part in parts for item in part])
        found = snap_figures(results)
        return {name: found[name] for name in FIGURES} | {ROUGH: exact_mean(paired_box_iou(results.rough, results.truth))}

    def draw(self, module: nn.Module, device: torch.device, title: str) -> Picture | None:
        """See `Task`."""
        known = set(self.val.rows.tolist())
        fixed = [picture for picture in self._fixed if picture.row in known]
        if not fixed:
            return None
        rows = [int(row) for row in np.unique([picture.row for picture in fixed])]
        found = snap_results(module, self.val, self._decision, device, Loading(1, 1, 1), rows)
        return snap_sheet(fixed, SnapResults.together(list(found)), title)
