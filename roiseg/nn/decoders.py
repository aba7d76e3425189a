"""A decoder that is a row of layers.

Symbols: R ROIs, C channels, (g, g') the ROI grid, (h, w) cells of the mask.
"""

from torch import Tensor, nn

from roiseg.nn.blocks import resize
from roiseg.nn.outputs import HeadOutput
from roiseg.types import HW


class PlainDecoder(nn.Module):
    """Logits of any grid, brought to the mask's."""

    def __init__(self, *layers: nn.Module, mask_hw: HW) -> None:
        """Put the decoder together.

        Args:
            *layers: one after the other (R, C, g, g') -> (R, 3, h', w').
            mask_hw: (h, w).
        """
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self._mask_hw = mask_hw

    def forward(self, shared: Tensor) -> HeadOutput:
        """(R, C, g, g') -> logits (R, 3, h, w)."""
        return HeadOutput(resize(self.layers(shared), self._mask_hw), {})
