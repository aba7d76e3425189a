"""Learning a net from the truth, a teacher and a detector."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from roiseg.batches import Loading
from roiseg.distill.eliminate import Elimination
from roiseg.distill.loss import FEATURE, DistillLoss
from roiseg.distill.params import DistillParams
from roiseg.distill.student import Student
from roiseg.distill.temperature import temperature_at
from roiseg.distill.unfreeze import BLOCK_NAMES, DECODER, STEM, LearningPlan, joining_groups, set_learning
from roiseg.evaluate.pictures import FixedPicture
from roiseg.types import HW, IMAGE, TEACHER
from roiseg.unet.data import PersonBatch, PersonDataset, whole_batches
from roiseg.unet.grid import to_grid
from roiseg.unet.metrics import PersonMetrics
from roiseg.unet.person_loss import PersonLoss
from roiseg.unet.person_unet import PersonUnet
from roiseg.unet.task import NetTask


def parts_of(net: PersonUnet) -> dict[str, list[nn.Parameter]]:
    """Weights of a net by the part that `roiseg.distill.unfreeze` calls them."""
    blocks = {name: list(block.parameters()) for name, block in zip(BLOCK_NAMES, net.encoder_blocks(), strict=True)}
    decoder = [*net.net.decoder.parameters(), *net.net.segmentation_head.parameters()]
    return {DECODER: decoder, STEM: [item for part in net.stem() for item in part.parameters()], **blocks}


def student_of(module: nn.Module) -> Student:
    """The same, known to be a student.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(module, Student):
        raise TypeError(f"a {type(module).__name__} is to be distilled, expected a Student")
    return module


@dataclass
class Judged:
    """What is counted on validation images.

    Attributes:
        student: against the truth and the teacher.
        teacher: against the truth.
        feature: sum of the feature loss over images.
        images: so many.
    """

    student: PersonMetrics = field(default_factory=PersonMetrics)
    teacher: PersonMetrics = field(default_factory=PersonMetrics)
    feature: float = 0.0
    images: int = 0


class DistillTask(NetTask):
    """A student, and who it learns from."""

    def __init__(
        self,
        fresh: Callable[[], Student],
        params: DistillParams,
        pos_weight: float,
        splits: tuple[PersonDataset, PersonDataset],
        fixed: Sequence[FixedPicture],
        weight_decay: float,
    ) -> None:
        """Put the task together.

        Args:
            fresh: makes the student, all of its weights wanting a gradient that the params don't freeze.
            params: section `distill`.
            pos_weight: of a person's pixel.
            splits: train and val; with the layers `image`, those that are aligned to, and `teacher` where it is asked.
            fixed: pictures drawn each epoch.
            weight_decay: of `distill.train`.
        """
        person = PersonLoss(params.loss.bce, params.loss.dice, pos_weight)
        super().__init__(fresh, person, *splits, params.augment, fixed)
        self._distill, self._params, self._decay = DistillLoss(params.loss, pos_weight), params, weight_decay
        self._plan: LearningPlan = params.plan
        self._elimination = None if params.eliminate is None else Elimination(params.eliminate)
        self._temperature = params.temperature.start

    @property
    def known_figures(self) -> Sequence[str]:
        """See `Task`."""
        found = [*super().known_figures, f"teacher_{self.lead}", "agreement", "agreement_pixels"]
        return found if self._params.features is None else [*found, "feature_loss"]

    def build(self) -> nn.Module:
        """See `Task`."""
        student = student_of(self._fresh())
        set_learning(self._plan, parts_of(student.net), 0)
        student.net.train(student.training)
        return student

    @property
    def _share(self) -> float:
        return 1.0 if self._elimination is None else self._elimination.share

    def losses(self, module: nn.Module, features: dict[str, Tensor], batch: PersonBatch, device: torch.device) -> dict[str, Tensor]:
        """See `Task`."""
        logits, aligned = module(features)
        teacher = self._teacher(features, (logits.shape[2], logits.shape[3]))
        truth = batch.masks.to(device)
        return self._distill(logits, truth, teacher, aligned, temperature=self._temperature, share=self._share)

    def _teacher(self, features: Mapping[str, Tensor], hw: HW) -> Tensor | None:
        """(B, 1, h, w) logits on the student's grid; None where no teacher is read."""
        return to_grid(features[TEACHER], hw) if TEACHER in features else None

    def _logits(self, module: nn.Module, features: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = student_of(module).net(features[IMAGE])
        return logits

    @torch.no_grad()
    def score(self, module: nn.Module, device: torch.device, loading: Loading) -> Judged:  # type: ignore[override]
        """See `Task`."""
        found, floats = Judged(), dict[str, Tensor]()
        for batch in whole_batches(self.val, loading):
            features, truth = self._floats(batch, device, floats), batch.masks.to(device)
            logits, aligned = module(features)
            teacher = self._teacher(features, (logits.shape[2], logits.shape[3]))
            found.student.add(logits, truth, teacher)
            if teacher is not None:
                found.teacher.add(teacher, truth)
            found.feature += float(aligned[FEATURE]) * batch.size if FEATURE in aligned else 0.0
            found.images += batch.size
        return found

    def figures(self, parts: Sequence[Judged]) -> dict[str, float]:  # type: ignore[override]
        """See `Task`."""
        figures = PersonMetrics.together([part.student for part in parts]).figures()
        teacher = PersonMetrics.together([part.teacher for part in parts]).figures()
        if teacher:
            figures |= {f"teacher_{self.lead}": teacher[self.lead]}
        if self._params.features is not None:
            figures["feature_loss"] = sum(part.feature for part in parts) / max(sum(part.images for part in parts), 1)
        return figures

    def begin_epoch(self, progress: float, epoch: int) -> None:
        """See `Task`."""
        del epoch
        self._temperature = temperature_at(self._params.temperature, progress)

    def rate_scale(self, epoch: int) -> float:
        """See `Task`."""
        return self._plan.rate_scale(epoch)

    def joining(self, module: nn.Module, epoch: int) -> list[dict[str, Any]]:
        """See `Task`."""
        return joining_groups(self._plan, parts_of(student_of(module).net), epoch, self._decay)

    def judged(self, figures: Mapping[str, float]) -> None:
        """See `Task`."""
        if self._elimination is not None:
            self._elimination.judged(figures[self.lead], figures[f"teacher_{self.lead}"])

    def state(self) -> Mapping[str, float]:
        """See `Task`."""
        return {} if self._elimination is None else self._elimination.state()

    def load_state(self, state: Mapping[str, float]) -> None:
        """See `Task`."""
        if self._elimination is not None:
            self._elimination.load_state(state)
