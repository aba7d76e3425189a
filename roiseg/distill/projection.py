"""From a student's map to a detector's (spec 13.1)."""

from torch import Tensor, nn

from roiseg.nn.norms import BatchNorm2d


class Projection(nn.Module):
    """1x1 convolution to `hidden` channels, batch norm, ReLU, 1x1 convolution: (B, C, h, w) -> (B, C', h, w).

    40 -> 768 -> 1024 has the seed's 820,480 parameters. It only learns along; the exported student has none.
    """

    def __init__(self, channels: int, hidden: int, out_channels: int) -> None:
        """Build the block.

        Args:
            channels: C, of the student's map.
            hidden: channels in between.
            out_channels: C', of the detector's map.
        """
        super().__init__()
        self.widen = nn.Conv2d(channels, hidden, 1)
        self.norm = BatchNorm2d(hidden)
        self.act = nn.ReLU()
        self.project = nn.Conv2d(hidden, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w)."""
        projected: Tensor = self.project(self.act(self.norm(self.widen(x))))
        return projected
