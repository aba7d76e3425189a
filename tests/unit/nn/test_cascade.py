"""Tests of roiseg.nn.cascade: what each later stage sees, and what it makes of it."""

import pytest
import torch
from torch import nn

from roiseg.nn.cascade import BoundaryStage, SeparationStage
from roiseg.nn.style import group_style

STYLE = group_style(1)


def test_second_stage_changes_the_logits_of_the_first() -> None:
    stage, shared, logits = BoundaryStage(4, 6, STYLE), torch.randn(2, 4, 3, 5), torch.randn(2, 3, 6, 10)
    last = stage.change[-1]
    assert isinstance(last, nn.Conv2d)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, 0.5)  # type: ignore[arg-type]
    torch.testing.assert_close(stage(shared, logits), logits + 0.5)


def test_third_stage_replaces_them() -> None:
    stage, shared = SeparationStage(4, 6, STYLE), torch.randn(2, 4, 3, 5)
    logits = torch.randn(2, 3, 6, 10)
    torch.testing.assert_close(stage(shared, logits + 7), stage(shared, logits), atol=1e-4, rtol=1e-4)
    assert stage(shared, logits).shape == (2, 3, 6, 10)
    dilations = [part.dilation for part in stage.modules() if isinstance(part, nn.Conv2d) and part.dilation != (1, 1)]
    assert dilations == [(2, 2), (4, 4)]


@pytest.mark.parametrize("cls", [BoundaryStage, SeparationStage])
def test_a_stage_sees_features_and_the_stage_before(cls: type[nn.Module]) -> None:
    stage, shared, logits = cls(4, 6, STYLE), torch.randn(2, 4, 3, 5), torch.randn(2, 3, 6, 10)
    plain = stage(shared, logits) - logits
    assert (stage(-shared, logits) - logits - plain).abs().max() > 1e-3
    assert (stage(shared, -logits) + logits - plain).abs().max() > 1e-3
    assert stage(shared[:0], logits[:0]).shape == (0, 3, 6, 10)
