"""Learning a head on ROIs."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from roiseg.batches import Batch, Loading
from roiseg.cache.source import FeatureSource
from roiseg.dataset import RoiDataset
from roiseg.evaluate.infer import Score, predictions
from roiseg.evaluate.overlays import Picture
from roiseg.evaluate.pictures import FixedPicture, Layout, draw_validation
from roiseg.losses import MaskLoss
from roiseg.noise import FeatureNoise
from roiseg.sampler import Sampler, training_batches
from roiseg.train.memory import largest_batch
from roiseg.train.task import Task
from roiseg.types import HW

LEAD = "miou_fg_roi"
"""The figure that leads (design 4)."""


class HeadTask(Task):
    """A head, its loss, and the ROIs that it learns from.

    Attributes:
        loss: returns its total and parts.
        sampler: draws from the training split, with the layers that the head reads.
        val: validation split.
        fixed: pictures drawn each epoch.
    """

    lead, unit = LEAD, "ROIs"
    thrift = "sampler.rois_per_image and extra_rois, model.roi_hw or the channels of model, or read fewer layers"

    def __init__(
        self,
        fresh: Callable[[], nn.Module],
        loss: MaskLoss,
        sampler: Sampler,
        val: RoiDataset,
        fixed: Sequence[FixedPicture] = (),
        layout: Layout = "two_row",
    ) -> None:
        """Put the task together.

        Args:
            fresh: makes the head.
            loss: see the class.
            sampler: see the class.
            val: see the class.
            fixed: see the class.
            layout: how they are drawn.
        """
        self._fresh, self.loss, self.sampler, self.val = fresh, loss, sampler, val
        self.fixed, self._layout = tuple(fixed), layout
        self._noise = FeatureNoise(sampler.params.feature_noise)

    @property
    def dataset(self) -> RoiDataset:
        """Training split."""
        return self.sampler.dataset

    @property
    def stores(self) -> Mapping[str, FeatureSource]:
        """See `Task`."""
        return {"train": self.dataset.store, "val": self.val.store}

    @property
    def layers(self) -> Sequence[str]:
        """See `Task`."""
        return self.dataset.layers

    @property
    def mask_hw(self) -> HW:
        """See `Task`."""
        return self.dataset.mask_hw

    @property
    def images(self) -> int:
        """See `Task`."""
        return len(self.dataset.rows)

    @property
    def known_figures(self) -> Sequence[str]:
        """See `Task`."""
        return list(Score.empty().figures())

    def build(self) -> nn.Module:
        """See `Task`."""
        return self._fresh()

    def batches(self, loading: Loading, seed: int, epoch: int) -> Iterator[Batch]:
        """See `Task`."""
        return training_batches(self.sampler, loading, seed=seed, epoch=epoch)

    def largest(self, images: int) -> Batch:
        """See `Task`."""
        return largest_batch(self.sampler, images)

    def losses(self, module: nn.Module, features: dict[str, Tensor], batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """See `Task`."""
        return self.loss(module(self._noise.add(features), batch.boxes.to(device)), batch.targets.to(device))

    def score(self, module: nn.Module, device: torch.device, loading: Loading) -> Score:
        """See `Task`."""
        score = Score.empty()
        for prediction in predictions(module, self.val, device, loading):
            score.add(prediction)
        return score

    def figures(self, parts: Sequence[Score]) -> dict[str, float]:
        """See `Task`."""
        return Score.together(parts).figures()

    def draw(self, module: nn.Module, device: torch.device, title: str) -> Picture | None:
        """See `Task`."""
        return draw_validation(module, self.val, self.fixed, device, title, self._layout) if self.fixed else None

    def begin_epoch(self, progress: float, epoch: int) -> None:
        """See `Task`."""
        del epoch
        self.loss.begin_epoch(progress)

    def state(self) -> Mapping[str, float]:
        """See `Task`."""
        return self.loss.state()

    def load_state(self, state: Mapping[str, float]) -> None:
        """See `Task`."""
        self.loss.load_state(state)
