"""Norms, each under the name of what it does. All take no ROIs, in training and in an exported graph.

Symbols: R ROIs, C channels, (h, w) cells.
"""

import torch
from torch import Tensor, nn

EPS = 1e-5
"""Added to every variance."""


class GroupNorm(nn.GroupNorm):
    """Group norm whose exported graph takes no ROIs, too: the exporter's own reshapes by -1, which an empty batch leaves open."""

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> the same."""
        if not torch.compiler.is_exporting():
            return super().forward(x)
        # Not as InstanceNormalization, fast as it is on the processor: onnxruntime's CUDA kernel divides by the number of ROIs.
        grouped: Tensor = torch.unflatten(
            x, 1, (self.num_groups, self.num_channels // self.num_groups)
        )  # [R, groups, C / groups, h, w]
        centred = grouped - grouped.mean(dim=(2, 3, 4), keepdim=True)
        variance = centred.square().mean(dim=(2, 3, 4), keepdim=True)
        normal = (centred * (variance + self.eps).rsqrt()).flatten(1, 2)  # [R, C, h, w]
        shifted: Tensor = normal * self.weight[:, None, None] + self.bias[:, None, None]
        return shifted


class LayerNorm2d(GroupNorm):
    """Over all of an ROI's channels and cells together, with a factor and a shift for each channel: a group norm of one group.

    This is the seed's "LayerNorm2d". What ConvNeXt and others call so is `ChannelNorm`.
    """

    def __init__(self, channels: int) -> None:
        """Build the norm.

        Args:
            channels: C.
        """
        super().__init__(1, channels, eps=EPS)


class InstanceNorm2d(GroupNorm):
    """Over the cells of each channel of each ROI (Instance normalization, eq. 7), with a factor and a shift for each."""

    def __init__(self, channels: int) -> None:
        """Build the norm.

        Args:
            channels: C.
        """
        super().__init__(channels, channels, eps=EPS)


class ChannelNorm(nn.Module):
    """Over the channels of each cell (ConvNeXt, section 2.6), with a factor and a shift for each channel."""

    def __init__(self, channels: int) -> None:
        """Build the norm.

        Args:
            channels: C.
        """
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> the same."""
        centred = x - x.mean(dim=1, keepdim=True)
        normal = centred * (centred.square().mean(dim=1, keepdim=True) + EPS).rsqrt()
        shifted: Tensor = normal * self.weight[:, None, None] + self.bias[:, None, None]
        return shifted


class BatchNorm2d(nn.BatchNorm2d):
    """Over the cells of all ROIs of a step; a step without ROIs leaves the running figures as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> the same."""
        if self.training and x.shape[0] == 0:
            return x * self.weight[:, None, None]
        return super().forward(x)


class MixedNorm(nn.Module):
    """Batch norm and instance norm in fixed shares, each with its factors and shifts (after Batch-instance norm, eq. 3)."""

    def __init__(self, channels: int, *, batch_share: float) -> None:
        """Build the norm.

        Args:
            channels: C.
            batch_share: weight of the batch norm, 0 to 1; the instance norm has the rest.
        """
        super().__init__()
        self.batch, self.instance = BatchNorm2d(channels), InstanceNorm2d(channels)
        self._batch_share = batch_share

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) -> the same."""
        mixed: Tensor = self.batch(x) * self._batch_share + self.instance(x) * (1 - self._batch_share)
        return mixed
