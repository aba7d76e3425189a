"""Tests of roiseg.unet.metrics: two-class figures against numbers by hand and loops over pixels."""

import pickle
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from roiseg.evaluate.confusion import VALIDATED
from roiseg.unet.metrics import LEAD, PersonMetrics, people_confusions

Bools = NDArray[np.bool_]

FIGURES = {
    *("miou_2class", "miou_2class_pooled", "iou_person", "iou_background", "precision_person", "recall_person"),
    *("agreement", "agreement_pixels"),
}


def logits(where: Bools) -> Tensor:
    """Logits (B, 1, h, w) of a net that is sure of a map (B, h, w)."""
    return torch.from_numpy(np.where(where, 0.5, -2.0).astype(np.float32))[:, None]


def masks(where: Bools) -> Tensor:
    return torch.from_numpy(where.astype(np.float32))[:, None]


def counted(answers: Bools, people: Bools, teacher: Bools | None = None) -> PersonMetrics:
    metrics = PersonMetrics()
    metrics.add(logits(answers), masks(people), None if teacher is None else logits(teacher))
    return metrics


def slow_iou(one: Bools, other: Bools) -> float | None:
    shared = union = 0
    for first, second in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True):
        shared += first and second
        union += first or second
    return shared / union if union else None


def mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def slow_figures(answers: Bools, people: Bools, teacher: Bools) -> dict[str, float]:
    person = [slow_iou(*pair) for pair in zip(answers, people, strict=True)]
    ground = [slow_iou(~one, ~other) for one, other in zip(answers, people, strict=True)]
    like = [
        mean([slow_iou(one, other), slow_iou(~one, ~other)]) for one, other in zip(answers, teacher, strict=True)
    ]  # fmt: skip
    right, said, there = int((answers & people).sum()), int(answers.sum()), int(people.sum())
    found = {
        "miou_2class": mean([mean(pair) for pair in zip(person, ground, strict=True)]),
        "miou_2class_pooled": mean([slow_iou(answers, people), slow_iou(~answers, ~people)]),
        "iou_person": mean(person) if there else None,
        "precision_person": (right / said if said else 0.0) if there else None,
        "recall_person": right / there if there else None,
        "iou_background": mean(ground) if not people.all() else None,
        "agreement": mean(like),
        "agreement_pixels": float(np.mean([one == other for one, other in zip(answers.flat, teacher.flat, strict=True)])),
    }
    return {name: value for name, value in found.items() if value is not None}


@settings(max_examples=200)
@given(seed=st.integers(0, 10**9), images=st.integers(1, 4), height=st.integers(1, 5), width=st.integers(1, 7))
def test_figures_are_the_slow_ones(seed: int, images: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    # Some maps are all people, some all background.
    maps = rng.random((3, images, height, width)) < rng.choice([0.0, 0.4, 1.0], (3, images, 1, 1))
    answers, people, teacher = maps
    assert counted(answers, people, teacher).figures() == pytest.approx(slow_figures(answers, people, teacher), abs=1e-12)


def test_figures_by_hand() -> None:
    """Two images of 2 x 4: in one the net is a column too far right, in the other it sees somebody where nobody is."""
    people, answers = np.zeros((2, 2, 2, 4), dtype=bool)
    people[0, :, :2] = True
    answers[0, :, 1:3] = True
    answers[1, 0, 0] = True
    first, second = (1 / 3 + 1 / 3) / 2, (0 + 7 / 8) / 2
    assert counted(answers, people, people).figures() == pytest.approx(
        {
            "miou_2class": (first + second) / 2,
            "iou_person": (1 / 3 + 0) / 2,
            "iou_background": (1 / 3 + 7 / 8) / 2,
            "miou_2class_pooled": (2 / 7 + 9 / 14) / 2,
            "precision_person": 2 / 5,
            "recall_person": 2 / 4,
            "agreement": (first + second) / 2,
            "agreement_pixels": 11 / 16,
        }
    )


def test_confusions_by_hand() -> None:
    people = torch.tensor([[[[True, True, False], [False, False, False]]]])
    answers = torch.tensor([[[[True, False, True], [True, False, False]]]])
    assert people_confusions(answers, people).tolist() == [[[2, 2], [1, 1]]]


def test_a_logit_of_zero_is_background() -> None:
    metrics = PersonMetrics()
    metrics.add(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 3))
    assert metrics.figures() == {"miou_2class": 1.0, "miou_2class_pooled": 1.0, "iou_background": 1.0}


def test_a_perfect_net_has_1_everywhere() -> None:
    people = np.random.default_rng(0).random((3, 5, 8)) < 0.4
    figures = counted(people, people, people).figures()
    assert set(figures) == FIGURES
    assert set(figures.values()) == {1.0}


def test_nothing_counted_has_no_figures() -> None:
    assert PersonMetrics().figures() == {}
    assert PersonMetrics.together([]).figures() == {}
    assert counted(np.zeros((0, 2, 3), dtype=bool), np.zeros((0, 2, 3), dtype=bool)).figures() == {}


def test_a_split_without_people_has_no_figures_of_people() -> None:
    """False alarms still cost: person IoU is 0 in an image where somebody is seen."""
    nobody, alarm = np.zeros((2, 2, 2, 4), dtype=bool)
    alarm[1, 0, 0] = True
    assert counted(nobody, nobody).figures() == {"miou_2class": 1.0, "miou_2class_pooled": 1.0, "iou_background": 1.0}
    figures = counted(alarm, nobody).figures()
    assert set(figures) == {"miou_2class", "miou_2class_pooled", "iou_background"}
    assert figures["miou_2class"] == pytest.approx((1 + 7 / 16) / 2)


def test_which_figures_there_are_does_not_follow_from_the_answers() -> None:
    people = np.zeros((2, 3, 4), dtype=bool)
    people[0, 1] = True
    found = [counted(answers, people).figures() for answers in (people, np.zeros_like(people), np.ones_like(people))]
    assert all(one.keys() == other.keys() for one, other in pairwise(found))
    assert found[1]["precision_person"] == found[1]["recall_person"] == 0


def test_people_everywhere_leave_no_figure_of_background() -> None:
    everybody = np.ones((1, 2, 3), dtype=bool)
    figures = counted(everybody, everybody).figures()
    assert set(figures) == {"miou_2class", "miou_2class_pooled", "iou_person", "precision_person", "recall_person"}
    assert figures["miou_2class"] == 1


def test_names_are_none_of_the_heads() -> None:
    assert not FIGURES & set(VALIDATED)
    assert LEAD in FIGURES


def test_parts_of_several_processes_are_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    """To the last bit, in whatever order, and after a way through pickle."""
    rng = np.random.default_rng(3)
    maps = rng.random((3, 9, 4, 5)) < 0.4
    whole = counted(*maps).figures()
    parts = [counted(*maps[:, rank::2]) for rank in (1, 0)]
    again = [pickle.loads(pickle.dumps(part)) for part in parts]  # noqa: S301 - written a line before
    assert PersonMetrics.together(again).figures() == whole
    assert PersonMetrics.together(parts[::-1]).figures() == whole


def test_an_accumulator_holds_no_map() -> None:
    shape = (2, 300, 400)
    metrics = counted(np.ones(shape, dtype=bool), np.ones(shape, dtype=bool), np.ones(shape, dtype=bool))
    assert len(pickle.dumps(metrics)) < 2000


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 6\) against \(1, 1, 2, 3\), expected one shape"):
        PersonMetrics().add(torch.zeros(1, 1, 4, 6), torch.zeros(1, 1, 2, 3))
