"""Tests of roiseg.nn.person_guide: which way round the teacher's logits are read, and what the guide does with them."""

import pytest
import torch
from torch import Tensor

from roiseg.nn.person_guide import BACKGROUND, PERSON, PersonGuide, PersonMap
from roiseg.nn.roi_align import roi_align

WHOLE = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0]])


def teacher(left: float, right: float) -> dict[str, Tensor]:
    """Logits (1, 1, 4, 8) of two halves."""
    logits = torch.cat([torch.full((1, 1, 4, 4), left), torch.full((1, 1, 4, 4), right)], dim=3)
    return {"teacher": logits}


def people(hw: tuple[int, int] = (4, 8), sampling_ratio: int = 1) -> PersonMap:
    return PersonMap(roi_hw=hw, sampling_ratio=sampling_ratio)


def test_a_positive_logit_means_person() -> None:
    """The original's two channels were the other way round (spec 10.1)."""
    found = people()(teacher(left=20.0, right=-20.0), WHOLE)
    assert (BACKGROUND, PERSON) == (0, 1)
    torch.testing.assert_close(found[0, PERSON, :, :4], torch.ones(4, 4))
    torch.testing.assert_close(found[0, BACKGROUND, :, :4], torch.zeros(4, 4))
    torch.testing.assert_close(found[0, PERSON, :, 4:], torch.zeros(4, 4))
    torch.testing.assert_close(found[0, BACKGROUND, :, 4:], torch.ones(4, 4))


def test_probabilities_are_averaged_and_not_logits() -> None:
    """A bin with a sure person in one half and a weak no in the other: the mean of 1 and 0.38."""
    found = people((1, 1), sampling_ratio=2)(teacher(left=20.0, right=-0.5), torch.tensor([[0.0, 0.25, 0.0, 0.75, 1.0]]))
    assert float(found[0, PERSON]) == pytest.approx((1 + torch.tensor(-0.5).sigmoid().item()) / 2, abs=1e-4)


@pytest.mark.parametrize("hw", [(4, 8), (3, 5), (9, 2)])
def test_it_is_the_aligned_probability(hw: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    features = {"teacher": torch.randn(2, 1, 6, 9, generator=generator)}
    boxes = torch.tensor([[1.0, 0.1, 0.2, 0.7, 0.9], [0.0, 0.3, 0.1, 0.9, 0.5]])
    found = people(hw, sampling_ratio=2)(features, boxes)
    torch.testing.assert_close(found[:, 1:], roi_align(features["teacher"].sigmoid(), boxes, hw, 2))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, *hw))
    assert people(hw)(features, boxes[:0]).shape == (0, 2, *hw)


def test_outside_of_the_image_is_background() -> None:
    found = people((2, 2))(teacher(9.0, 9.0), torch.tensor([[0.0, 1.5, 1.5, 2.0, 2.0]]))
    assert torch.equal(found[0, PERSON], torch.zeros(2, 2))
    assert torch.equal(found[0, BACKGROUND], torch.ones(2, 2))


def test_the_guide_holds_attention_back_where_nobody_is() -> None:
    factor = PersonGuide(people())(teacher(left=20.0, right=-20.0), WHOLE)
    assert factor.shape == (1, 1, 4, 8)
    torch.testing.assert_close(factor[..., :4], torch.ones(1, 1, 4, 4))
    torch.testing.assert_close(factor[..., 4:], torch.full((1, 1, 4, 4), 0.5))
    torch.testing.assert_close(PersonGuide(people())(teacher(0.0, 0.0), WHOLE), torch.full((1, 1, 4, 8), 0.75))
