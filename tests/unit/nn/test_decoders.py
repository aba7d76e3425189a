"""Tests of roiseg.nn.decoders."""

import torch
from torch import nn

from roiseg.nn.decoders import PlainDecoder


def test_logits_come_at_mask_size() -> None:
    for mask_hw in ((6, 10), (5, 9)):
        output = PlainDecoder(nn.ConvTranspose2d(4, 3, 2, 2), mask_hw=mask_hw)(torch.randn(2, 4, 3, 5))
        assert output.mask_logits.shape == (2, 3, *mask_hw)
        assert output.aux == {}
