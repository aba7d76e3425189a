"""Tests of roiseg.losses.truth: targets of two classes are those of images without other people, term by term."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_factory import ALONE, FULL, drawn_output, loss_params, targets_of, two_people
from torch import Tensor

from roiseg.errors import ParamsError
from roiseg.losses import MaskLoss
from roiseg.losses.region import IGNORE
from roiseg.losses.truth import classes_of, truth_of, without_others
from roiseg.masks import FAR
from roiseg.nn.outputs import HeadOutput

NAMES = ("labels", "boundary", "target", "non_target")
WEIGHTS = (0.5, 1.0, 1.5)
CROWDED: dict[str, Tensor] = {
    "both": two_people(),
    "only another": torch.full((2, 8, 12), 2),
    "no background": two_people().clamp(min=1),
    "nobody": torch.zeros(2, 8, 12, dtype=torch.int64),
    "no ROI": torch.zeros(0, 8, 12, dtype=torch.int64),
}


def alone(labels: Tensor) -> Tensor:
    return torch.where(labels == 2, 0, labels)


@given(st.integers(0, 10_000))
def test_distances_are_those_of_labels_without_others(seed: int) -> None:
    """Bit by bit, though no distance is computed."""
    kinds = torch.randperm(3, generator=torch.Generator().manual_seed(seed))[: 1 + seed % 3]
    labels = kinds[torch.randint(len(kinds), (2, 5, 7), generator=torch.Generator().manual_seed(seed))]
    found, expected = without_others(targets_of(labels)), targets_of(alone(labels))
    for name in NAMES:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert getattr(found, name).dtype == getattr(expected, name).dtype


def test_own_class_and_no_border_ignored_is_what_is_annotated() -> None:
    targets = targets_of(two_people())
    assert truth_of(targets, "own", 0.0) is targets


def test_only_borders_of_the_target_are_ignored() -> None:
    """Other people's ones are none any more."""
    labels = torch.tensor([[[2, 2, 0, 0, 1, 1, 2, 2]]])
    assert truth_of(targets_of(labels), "background", 1.0).labels.tolist() == [[[0, 0, 0, IGNORE, IGNORE, IGNORE, IGNORE, 0]]]
    assert truth_of(targets_of(labels), "own", 1.0).labels.tolist() == [[[2, IGNORE, IGNORE, IGNORE, IGNORE, IGNORE, IGNORE, 2]]]


def test_classes() -> None:
    assert classes_of((0, 1, 2), "own") == (0, 1, 2)
    assert classes_of((2, 1), "background") == (1,)


@pytest.mark.parametrize("name", CROWDED)
@pytest.mark.parametrize("form", ["bce", "l1"])
def test_no_term_knows_of_other_people(name: str, form: str) -> None:
    """The loss of crowded ROIs is that of the same ROIs with the target alone; its gradients are finite."""
    labels = CROWDED[name]
    edge = {"weight": 0.2, "form": form, "source": "distance", "distractors": True}
    params = loss_params(FULL, non_target="background", edge=edge)
    crowded, single = (drawn_output(len(labels)) for _ in range(2))
    found = MaskLoss(params, WEIGHTS)(crowded, targets_of(labels))
    expected = MaskLoss(params, WEIGHTS)(single, targets_of(alone(labels)))
    assert all(value.detach().equal(expected[key].detach()) for key, value in found.items())
    assert found.keys() == expected.keys()
    found["total"].backward()  # type: ignore[no-untyped-call]
    expected["total"].backward()  # type: ignore[no-untyped-call]
    for one, other in zip(every(crowded), every(single), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.isfinite(one.grad).all()
        assert torch.equal(one.grad, other.grad)


def every(output: HeadOutput) -> list[Tensor]:
    return [output.mask_logits, *output.aux.values()]


ONE_KIND = {"active_contour", "contour", "distance", "hierarchical consistency"}
"""Terms that look at the target's outline alone, or at no label."""


@pytest.mark.parametrize("name", ALONE)
def test_each_term_is_another(name: str) -> None:
    """Other people beside the target count for every term that looks at more than its outline."""
    params = {kind: loss_params(ALONE[name], non_target=kind) for kind in ("own", "background")}
    own, background = (
        float(MaskLoss(item, WEIGHTS)(drawn_output(2), targets_of(two_people()))["total"].detach()) for item in params.values()
    )
    assert (abs(own - background) > 1e-4 * own) == (name not in ONE_KIND)


def test_regions_are_those_of_the_target_alone() -> None:
    """Class 2 isn't averaged with, as if a head of two classes were trained."""
    targets, output = targets_of(two_people()), drawn_output(2)
    both, one = (
        MaskLoss(loss_params(dice=1.0, dice_classes=classes, non_target="background"), WEIGHTS)(output, targets)["dice"]
        for classes in ([1, 2], [1])
    )
    assert float(both) == float(one)


def test_second_decision_has_targets_alone() -> None:
    params = loss_params(ce=0.0, hierarchical=FULL["hierarchical"] | {"bg": 0.0, "consistency": 0.0}, non_target="background")
    output = drawn_output(2)
    loss = MaskLoss(params, WEIGHTS)
    found = loss(output, targets_of(two_people()))
    found["total"].backward()  # type: ignore[no-untyped-call]
    gradient = output.aux["target_non_target"].grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert float(gradient[:, 0].max()) <= 0 < float(gradient[:, 1].max()), "every pixel of a person asks for the target"
    assert loss.state()["non_target"] == 3.0, "its weight stays within the clamp"


def test_nobody_else_is_far() -> None:
    assert (without_others(targets_of(two_people())).non_target == FAR).all()


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"dice_classes": [2]}, "dice_classes"), ({"tversky": FULL["tversky"] | {"classes": [2]}}, r"tversky\.classes")],
)
def test_a_region_that_is_left_out_is_refused(changes: dict[str, Any], name: str) -> None:
    loss_params(**changes)
    with pytest.raises(ParamsError, match=rf"non_target is 'background', which leaves no class of {name}.*set non_target to 'own'"):
        loss_params(**changes, non_target="background")
