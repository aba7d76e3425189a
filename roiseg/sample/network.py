"""The backbone in torch, for training it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roiseg.sample.complexity import list_convs
from roiseg.sample.topology import ConvSpec
from roiseg.sample.walker import Walker
from roiseg.sample.weights import Weights


class _Conv(nn.Module):
    """One convolution, with batch norm and SiLU or with a bias."""

    def __init__(self, spec: ConvSpec) -> None:
        super().__init__()
        self.normed = spec.normed
        pad = spec.kernel // 2
        self.conv = nn.Conv2d(spec.inputs, spec.outputs, spec.kernel, spec.stride, pad, groups=spec.groups, bias=not spec.normed)
        self.norm = nn.BatchNorm2d(spec.outputs, eps=1e-3, momentum=0.1) if spec.normed else nn.Identity()

    def forward(self, value: Tensor) -> Tensor:
        """Map a (N, inputs, H, W) float32 map to (N, outputs, H / stride, W / stride)."""
        value = self.norm(self.conv(value))
        return F.silu(value) if self.normed else value


def _ends_bottleneck(name: str) -> bool:
    """Whether this is the second convolution of a residual bottleneck, such as `model.3.cv2.0.m.1.cv2`."""
    return ".m." in name and name.endswith(".cv2")


class Network(nn.Module):
    """The backbone.

    Args:
        width: Factor on all channels.
        weights: What its convolutions start with; batch norms start as identities.
    """

    def __init__(self, width: float, weights: Weights) -> None:
        super().__init__()
        self.width = width
        self.specs = list_convs(width)
        self.convs = nn.ModuleDict({spec.name.replace(".", "/"): _Conv(spec) for spec in self.specs})
        with torch.no_grad():
            for spec in self.specs:
                conv = self._conv(spec).conv
                conv.weight.copy_(torch.from_numpy(weights[spec.name][0]))
                if conv.bias is not None:
                    conv.bias.copy_(torch.from_numpy(weights[spec.name][1]))
                if _ends_bottleneck(spec.name):
                    # Bottlenecks start as identities, which makes the network shallow, and quick to learn, at first.
                    self._conv(spec).norm.get_parameter("weight").zero_()

    def _conv(self, spec: ConvSpec) -> _Conv:
        module = self.convs[spec.name.replace(".", "/")]
        if not isinstance(module, _Conv):
            raise TypeError(f"{spec.name}: {type(module).__name__} is no convolution")
        return module

    def forward(self, image: Tensor, last: int = 42) -> tuple[dict[int, Tensor], Tensor]:
        """Run the network.

        Args:
            image: (N, 3, H, W) float32 RGB, 0 to 1; H and W multiples of 32.
            last: Number of the last layer to run.

        Returns:
            The maps that `Walker.run` keeps, and the output of the last layer, all float32.
        """
        return Walker(self, self.width).run(image, last)

    def parameters_until(self, last: int) -> list[nn.Parameter]:
        """Parameters of the layers up to number `last`, in the order in which they run."""
        specs = [spec for spec in self.specs if int(spec.name.split(".")[1]) <= last]
        return [parameter for spec in specs for parameter in self._conv(spec).parameters()]

    def folded(self) -> Weights:
        """Weights with the batch norms folded in, as inference uses them; same names as `list_convs`."""
        weights: Weights = {}
        for spec in self.specs:
            module = self._conv(spec)
            kernel = module.conv.weight.detach().double()
            bias = module.conv.bias.detach().double() if module.conv.bias is not None else torch.zeros(spec.outputs)
            if isinstance(module.norm, nn.BatchNorm2d):
                mean, variance = module.norm.running_mean, module.norm.running_var
                if mean is None or variance is None:
                    raise ValueError(f"{spec.name}: batch norm without running statistics can't be folded")
                factor = module.norm.weight.detach().double() / torch.sqrt(variance.double() + module.norm.eps)
                kernel = kernel * factor[:, None, None, None]
                bias = module.norm.bias.detach().double() - mean.double() * factor
            weights[spec.name] = (kernel.numpy().astype(np.float32), bias.numpy().astype(np.float32))
        return weights

    # What Walker asks of an interpreter; see `topology.Interpreter`.

    def channels(self, value: Tensor) -> int:
        """See `Interpreter`."""
        return int(value.shape[1])

    def conv(self, value: Tensor, spec: ConvSpec) -> Tensor:
        """See `Interpreter`."""
        result: Tensor = self._conv(spec)(value)
        return result

    def add(self, name: str, values: Sequence[Tensor]) -> Tensor:
        """See `Interpreter`."""
        del name
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total

    def concat(self, name: str, values: Sequence[Tensor]) -> Tensor:
        """See `Interpreter`."""
        del name
        return torch.cat(list(values), 1)

    def split(self, name: str, value: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """See `Interpreter`."""
        del name
        return list(torch.split(value, list(sizes), 1))

    def upsample(self, name: str, value: Tensor, factor: int) -> Tensor:
        """See `Interpreter`; not `F.interpolate`, whose gradient some devices sum in changing order."""
        del name
        return value.repeat_interleave(factor, 2).repeat_interleave(factor, 3)

    def max_pool(self, name: str, value: Tensor, kernel: int, stride: int) -> Tensor:
        """See `Interpreter`."""
        del name
        return F.max_pool2d(value, kernel, stride, kernel // 2)

    def avg_pool(self, name: str, value: Tensor) -> Tensor:
        """See `Interpreter`."""
        del name
        return F.avg_pool2d(value, 2, 1)

    def flatten(self, name: str, values: Sequence[Tensor]) -> Tensor:
        """See `Interpreter`."""
        del name
        return torch.cat([value.flatten(2) for value in values], 2)
