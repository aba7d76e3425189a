"""Small blocks that heads are put together from.

Symbols: R ROIs, C channels, (h, w) cells.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GroupNorm(nn.GroupNorm):
    """Group norm whose exported graph takes no ROIs, too: the exporter's own reshapes by -1, which an empty batch leaves open."""

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> the same."""
        if not torch.compiler.is_exporting():
            return super().forward(x)
        grouped: Tensor = torch.unflatten(
            x, 1, (self.num_groups, self.num_channels // self.num_groups)
        )  # [R, groups, C / groups, h, w]
        centred = grouped - grouped.mean(dim=(2, 3, 4), keepdim=True)
        variance = centred.square().mean(dim=(2, 3, 4), keepdim=True)
        normal = (centred * (variance + self.eps).rsqrt()).flatten(1, 2)  # [R, C, h, w]
        shifted: Tensor = normal * self.weight[:, None, None] + self.bias[:, None, None]
        return shifted


class ConvNormAct(nn.Module):
    """Convolution, group norm, ReLU: (R, Cin, h, w) -> (R, Cout, h / stride, w / stride)."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int, groups: int, bias: bool) -> None:
        """Build the block.

        Args:
            in_channels: Cin.
            out_channels: Cout, a multiple of `groups`.
            kernel: side of the kernel, odd.
            stride: cells between two outputs.
            groups: groups of the norm.
            bias: whether the convolution has one, which the norm after it makes redundant.
        """
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=bias)
        self.norm = GroupNorm(groups, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(R, Cin, h, w) -> (R, Cout, h / stride, w / stride)."""
        return F.relu(self.norm(self.conv(x)))


class ResBlock(nn.Module):
    """Two 3x3 convolutions around which the input goes: (R, C, h, w) -> the same (ResNet, figure 2, with group norm)."""

    def __init__(self, channels: int, *, groups: int, dropout: float) -> None:
        """Build the block.

        Args:
            channels: C, a multiple of `groups`.
            groups: groups of the norms.
            dropout: share of channels that training drops from the branch.
        """
        super().__init__()
        self.first = ConvNormAct(channels, channels, kernel=3, stride=1, groups=groups, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = GroupNorm(groups, channels)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, C, h, w)."""
        branch: Tensor = self.dropout(self.norm(self.second(self.first(x))))
        return F.relu(x + branch)


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
