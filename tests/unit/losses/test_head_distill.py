"""Tests of roiseg.losses.head_distill: what a head learns from a larger one, and how much that says beside the truth."""

from typing import Any

import pytest
import torch
from loss_factory import FULL, PLAIN, loss_params
from torch import Tensor
from torch.nn import functional as F

from roiseg.dataset import Targets
from roiseg.errors import ParamsError, TrainingError
from roiseg.losses import LossParams, MaskLoss, check_outputs, taught_outputs
from roiseg.losses.head_distill import HeadDistillation, HeadDistillParams, softened_kl
from roiseg.nn.outputs import HeadOutput

DISTILL: dict[str, Any] = {"alpha": 0.7, "temperature": 4.0, "branches": 0.0, "classes": [1.0, 1.0, 1.0]}
WEIGHTS = (1.0, 1.0, 1.0)
HW = (4, 6)
ALL = torch.ones(2, *HW, dtype=torch.bool)


def params(**changes: object) -> HeadDistillParams:
    return HeadDistillParams.parse(DISTILL | changes, "loss.distill")


def answers(seed: int, rois: int = 2, hw: tuple[int, int] = HW, *, branches: bool = False) -> HeadOutput:
    """Made-up outputs of a head."""
    generator = torch.Generator().manual_seed(seed)

    def logits(classes: int) -> Tensor:
        return 3 * torch.randn(rois, classes, *hw, generator=generator)

    mask = logits(3)
    return HeadOutput(mask, {"bg_fg": logits(2), "target_non_target": logits(2)} if branches else {})


def targets(rois: int = 2) -> Targets:
    labels = torch.randint(0, 3, (rois, *HW), generator=torch.Generator().manual_seed(5))
    distance = torch.full((rois, *HW), 9.0)
    return Targets(labels, distance, distance, distance, None)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_softened_kl_is_torchs_divergence(temperature: float) -> None:
    student, teacher = answers(0).mask_logits, answers(1).mask_logits
    mine, theirs = ((item / temperature).log_softmax(dim=1) for item in (student, teacher))
    expected = F.kl_div(mine, theirs, reduction="none", log_target=True).sum(dim=1) * temperature**2
    found = softened_kl(student, teacher, temperature)
    torch.testing.assert_close(found, expected)
    assert (found > -1e-6).all()
    assert softened_kl(student, student, temperature).abs().max() < 1e-6
    assert softened_kl(1e4 * student, -1e4 * teacher, temperature).isfinite().all()


def test_a_gradient_keeps_its_size_whatever_the_temperature() -> None:
    """Far above the logits T^2 * KL becomes half the square of their differences over classes (Hinton et al., section 2.1)."""
    teacher = 0.1 * answers(1).mask_logits
    student = (0.1 * answers(0).mask_logits).requires_grad_()
    (gradient,) = torch.autograd.grad(softened_kl(student, teacher, 1000.0).sum(), student)
    centred = (student - student.mean(dim=1, keepdim=True)) - (teacher - teacher.mean(dim=1, keepdim=True))
    torch.testing.assert_close(gradient, centred.detach() / 3, rtol=2e-2, atol=2e-4)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = answers(0, branches=True), answers(1, branches=True)
    leaves = [teacher.mask_logits, *teacher.aux.values(), student.mask_logits, *student.aux.values()]
    for leaf in leaves:
        leaf.requires_grad_()
    parts = HeadDistillation(params(branches=0.3))(student, teacher, ALL)
    torch.stack([part.value for part in parts.values()]).sum().backward()  # type: ignore[no-untyped-call]
    assert [leaf.grad is not None for leaf in leaves] == [False] * 3 + [True] * 3


def test_pixels_count_by_the_class_that_the_teacher_sees() -> None:
    student, teacher = answers(0), answers(1)
    sure = HeadOutput(1000 * F.one_hot(teacher.mask_logits.argmax(dim=1), 3).permute(0, 3, 1, 2).float(), {})
    plain = softened_kl(student.mask_logits, sure.mask_logits, 4.0)
    seen = sure.mask_logits.argmax(dim=1)
    for label in range(3):
        classes = [0.0, 0.0, 0.0]
        classes[label] = 2.0
        part = HeadDistillation(params(classes=classes))(student, sure, ALL)["distill"]
        torch.testing.assert_close(part.value, plain[seen == label].mean())
        assert part.weight == 0.7


def test_pixels_that_no_term_looks_at() -> None:
    counted = ALL.clone()
    counted[0] = False
    student, teacher = answers(0), answers(1)
    found = HeadDistillation(params())(student, teacher, counted)["distill"].value
    torch.testing.assert_close(found, softened_kl(student.mask_logits, teacher.mask_logits, 4.0)[1].mean())


def test_branches() -> None:
    student, teacher = answers(0, branches=True), answers(1, branches=True)
    parts = HeadDistillation(params(branches=0.3))(student, teacher, ALL)
    assert {name: part.weight for name, part in parts.items()} == {
        "distill": 0.7,
        "distill_bg_fg": 0.3,
        "distill_target_non_target": 0.3,
    }
    first, second = (softened_kl(student.aux[name], teacher.aux[name], 4.0) for name in ("bg_fg", "target_non_target"))
    people = 1 - teacher.mask_logits.softmax(dim=1)[:, 0]
    torch.testing.assert_close(parts["distill_bg_fg"].value, first.mean())
    torch.testing.assert_close(parts["distill_target_non_target"].value, (people * second).sum() / people.sum())
    assert set(HeadDistillation(params())(student, teacher, ALL)) == {"distill"}


def test_a_teacher_of_another_mask_size() -> None:
    student, teacher = answers(0, branches=True), answers(1, hw=(8, 12), branches=True)
    brought = HeadOutput(
        F.interpolate(teacher.mask_logits, HW, mode="bilinear", align_corners=False),
        {name: F.interpolate(value, HW, mode="bilinear", align_corners=False) for name, value in teacher.aux.items()},
    )
    for name, part in HeadDistillation(params(branches=1.0))(student, teacher, ALL).items():
        torch.testing.assert_close(part.value, HeadDistillation(params(branches=1.0))(student, brought, ALL)[name].value)


def test_no_rois() -> None:
    parts = HeadDistillation(params(branches=1.0))(answers(0, 0, branches=True), answers(1, 0, branches=True), ALL[:0])
    assert [part.value.item() for part in parts.values()] == [0.0] * 3


@pytest.mark.parametrize("alpha", [0.2, 0.7, 1.0])
def test_the_truth_keeps_the_rest(alpha: float) -> None:
    student, teacher, truth = answers(0), answers(1), targets()
    alone = MaskLoss(loss_params(PLAIN | {"dice": 0.5}), WEIGHTS)(student, truth)
    taught = MaskLoss(loss_params(PLAIN | {"dice": 0.5, "distill": DISTILL | {"alpha": alpha}}), WEIGHTS)(student, truth, teacher)
    divergence = softened_kl(student.mask_logits, teacher.mask_logits, 4.0).mean()
    torch.testing.assert_close(taught["total"], (1 - alpha) * alone["total"] + alpha * divergence)
    torch.testing.assert_close(taught["distill"], divergence)
    torch.testing.assert_close(taught["ce"], alone["ce"])
    assert taught["weight_distill"].item() == pytest.approx(alpha)
    assert taught["weight_dice"].item() == pytest.approx(0.5 * (1 - alpha))


def test_a_teacher_without_the_term_says_nothing() -> None:
    student, truth = answers(0), targets()
    loss = MaskLoss(loss_params(), WEIGHTS)
    assert torch.equal(loss(student, truth, answers(1))["total"], loss(student, truth)["total"])


def test_a_term_without_a_teacher() -> None:
    loss = MaskLoss(loss_params(PLAIN | {"distill": DISTILL}), WEIGHTS)
    with pytest.raises(TrainingError, match=r"no teacher's answers; name one in train\.distill_from"):
        loss(answers(0), targets())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.0}, r"alpha and branches are both 0, so that the teacher teaches nothing; raise one, or set distill to null"),
        ({"alpha": 1.1}, r"loss\.distill\.alpha: value is 1\.1"),
        ({"temperature": 0.0}, r"loss\.distill\.temperature: value is 0\.0"),
        ({"classes": [0.0, 0.0, 0.0]}, r"so that no pixel counts; expected at least one above 0"),
        ({"classes": [1.0, 1.0]}, r"loss\.distill\.classes"),
        ({"clases": [1.0, 1.0]}, r"loss\.distill\.clases: unknown key; did you mean 'classes'"),
    ],
)
def test_faults_of_the_section(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        LossParams.parse(PLAIN | {"distill": DISTILL | changes}, "loss")


def test_outputs_that_are_taught() -> None:
    both = {"bg_fg", "target_non_target"}
    assert taught_outputs(loss_params(FULL)) == frozenset()
    assert taught_outputs(loss_params(PLAIN | {"distill": DISTILL})) == frozenset()
    wanted = loss_params(PLAIN | {"distill": DISTILL | {"branches": 0.3}})
    assert taught_outputs(wanted) == both
    check_outputs(wanted, "hierarchical", both)
    with pytest.raises(
        ParamsError, match=r"^loss\.distill\.branches: reads the outputs bg_fg, target_non_target of a head, but model"
    ):
        check_outputs(wanted, "roi_crop", ())
