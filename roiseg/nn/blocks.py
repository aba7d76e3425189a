"""Small blocks that heads are put together from.

Symbols: R ROIs, C channels, (h, w) cells.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from roiseg.nn.style import Style
from roiseg.types import HW


class ConvNormAct(nn.Module):
    """Convolution, norm, activation: (R, Cin, h, w) -> (R, Cout, h / stride, w / stride)."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int, style: Style, bias: bool) -> None:
        """Build the block.

        Args:
            in_channels: Cin.
            out_channels: Cout.
            kernel: side of the kernel, odd.
            stride: cells between two outputs.
            style: norm and activation.
            bias: whether the convolution has one, which a norm of each channel after it makes redundant.
        """
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=bias)
        self.norm, self.act = style.make_norm(out_channels), style.make_activation()

    def forward(self, x: Tensor) -> Tensor:
        """(R, Cin, h, w) -> (R, Cout, h / stride, w / stride)."""
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class UpNormAct(nn.Module):
    """Transposed convolution to twice the grid, norm, activation: (R, Cin, h, w) -> (R, Cout, 2h, 2w)."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: Literal[2, 4], style: Style) -> None:
        """Build the block.

        Args:
            in_channels: Cin.
            out_channels: Cout.
            kernel: 2, where outputs of two cells don't mix, or 4.
            style: norm and activation.
        """
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, kernel, stride=2, padding=(kernel - 2) // 2)
        self.norm, self.act = style.make_norm(out_channels), style.make_activation()

    def forward(self, x: Tensor) -> Tensor:
        """(R, Cin, h, w) -> (R, Cout, 2h, 2w)."""
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class ResBlock(nn.Module):
    """Two 3x3 convolutions around which the input goes: (R, C, h, w) -> the same (ResNet, figure 2)."""

    def __init__(self, channels: int, *, style: Style, dropout: float, bias: bool) -> None:
        """Build the block.

        Args:
            channels: C.
            style: norms and activation.
            dropout: share of channels that training drops from the branch.
            bias: whether the convolutions have one.
        """
        super().__init__()
        self.first = ConvNormAct(channels, channels, kernel=3, stride=1, style=style, bias=bias)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.norm, self.act = style.make_norm(channels), style.make_activation()
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, C, h, w)."""
        y: Tensor = self.act(x + self.dropout(self.norm(self.second(self.first(x)))))
        return y


class GlobalContext(nn.Module):
    """Adds to every cell what the mean over all cells says: (R, C, h, w) -> the same (after ParseNet, section 3.1)."""

    def __init__(self, channels: int) -> None:
        """Build the block; it starts as an identity.

        Args:
            channels: C.
        """
        super().__init__()
        self.first = nn.Linear(channels, channels)
        self.second = nn.Linear(channels, channels)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, C, h, w)."""
        said: Tensor = self.second(F.relu(self.first(x.mean(dim=(2, 3)))))  # [R, C]
        return x + said[:, :, None, None]


class Resize(nn.Module):
    """Bilinear, to a grid that is known when the head is built: (R, C, h, w) -> (R, C, *hw)."""

    def __init__(self, hw: HW) -> None:
        """Build the block.

        Args:
            hw: the grid wanted.
        """
        super().__init__()
        self._hw = hw

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, C, *hw)."""
        return resize(x, self._hw)


def resize(x: Tensor, hw: HW) -> Tensor:
    """Bilinear, cell centres at +0.5: (R, C, h, w) -> (R, C, *hw); a grid of that size already stays as it is."""
    if x.shape[2:] == hw:
        return x
    return F.interpolate(x, hw, mode="bilinear", align_corners=False)


def conv(in_channels: int, out_channels: int, style: Style, kernel: int = 3, stride: int = 1) -> ConvNormAct:
    """A `ConvNormAct` as all heads of the seed have it, with a bias."""
    return ConvNormAct(in_channels, out_channels, kernel=kernel, stride=stride, style=style, bias=True)


def residual(channels: int, style: Style, count: int = 1, dropout: float = 0.0) -> nn.Sequential:
    """A row of `ResBlock`s as all heads of the seed have them, with biases."""
    return nn.Sequential(*(ResBlock(channels, style=style, dropout=dropout, bias=True) for _ in range(count)))
