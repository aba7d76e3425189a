"""A detector's map, bent a little towards what a student can follow (spec 13.1, task-specific feature adaptation)."""

from torch import Tensor, nn

BEND = 0.5
"""Largest change of a channel, in its standard deviations."""

_SQUEEZE = 8
"""Channels of the map to those inside of the adapter."""


class Adapter(nn.Module):
    """Each channel standardised, plus at most `BEND` of a learned change: (B, C, h, w) -> the same.

    A loss that is learnt on both sides drifts to where it is easy: towards a constant, or copies of one channel. Here it can't. The
    map is brought to mean 0 and deviation 1 first, and u + BEND * tanh(change) stays within BEND of u everywhere; so each channel
    keeps a deviation of at least 1 - BEND over what the norm saw, and u is known from it but for an error of BEND. That is a bound,
    not a further term of the loss whose coefficient would have to be found. The change is 0 to begin with, and what remains to gain
    by shrinking is taken away by the loss, which is divided by the variance of what comes out here.
    """

    def __init__(self, channels: int) -> None:
        """Build the block.

        Args:
            channels: C.
        """
        super().__init__()
        inside = max(channels // _SQUEEZE, 1)
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.squeeze, self.act, self.change = nn.Conv2d(channels, inside, 1), nn.ReLU(), nn.Conv2d(inside, channels, 1)
        for weight in self.change.parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same, standardised; no images leave the running figures of the norm as they are."""
        standard = self.norm(x) if x.shape[0] else x
        bent: Tensor = standard + BEND * self.change(self.act(self.squeeze(standard))).tanh()
        return bent
