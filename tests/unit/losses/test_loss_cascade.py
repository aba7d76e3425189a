"""Tests of roiseg.losses.cascade: stages of a head, and one that is missing."""

import pytest
from loss_factory import drawn_output

from roiseg.errors import ParamsError
from roiseg.losses.cascade import earlier_stages
from roiseg.nn.outputs import HeadOutput


def test_stages_in_their_order() -> None:
    output = drawn_output(2)
    assert [found is output.aux[name] for found, name in zip(earlier_stages(output), ("stage_1", "stage_2"), strict=True)] == [
        True,
        True,
    ]
    assert earlier_stages(HeadOutput(output.mask_logits, {})) == []


def test_two_stages_are_refused() -> None:
    output = drawn_output(1)
    with pytest.raises(ParamsError, match=r"loss\.cascade weighs 3 stages, but the head gives only stage_2 before its last one"):
        earlier_stages(HeadOutput(output.mask_logits, {"stage_2": output.aux["stage_2"]}))
