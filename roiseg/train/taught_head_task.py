"""Learning a head on ROIs, from the truth and from a larger head."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from roiseg.batches import Batch
from roiseg.dataset import RoiDataset
from roiseg.evaluate.pictures import FixedPicture, Layout
from roiseg.losses import MaskLoss
from roiseg.sampler import Sampler
from roiseg.train.head_task import HeadTask
from roiseg.train.teacher_head import TeacherHead


class TaughtHeadTask(HeadTask):
    """A head task with a teacher, which sees each batch beside the head: boxes differ in every step, so nothing can be stored.

    Attributes:
        teacher: that is learnt from.
    """

    def __init__(
        self,
        fresh: Callable[[], nn.Module],
        loss: MaskLoss,
        sampler: Sampler,
        val: RoiDataset,
        teacher: TeacherHead,
        fixed: Sequence[FixedPicture] = (),
        layout: Layout = "two_row",
    ) -> None:
        """Put the task together.

        Args:
            fresh: see `HeadTask`.
            loss: see `HeadTask`; with the terms of `loss.distill`.
            sampler: draws from the training split, with the layers of both heads.
            val: see `HeadTask`.
            teacher: see the class.
            fixed: see `HeadTask`.
            layout: see `HeadTask`.
        """
        super().__init__(fresh, loss, sampler, val, fixed, layout)
        self.teacher = teacher

    def losses(self, module: nn.Module, features: dict[str, Tensor], batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """See `Task`. Noise on features is the student's alone."""
        boxes = batch.boxes.to(device)
        taught = self.teacher(features, boxes)
        return self.loss(module(self._noise.add(features), boxes), batch.targets.to(device), taught)
