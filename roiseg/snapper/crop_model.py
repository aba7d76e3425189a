"""Snapping on crops of the image with a ResNet of its own (spec 21.6, 21.7).

Symbols: B images, (H, W) pixels of an image, R windows, C channels, s pixels of a crop along a side, (h, w) cells of a map of the
crop, n positions along a window. Level 2 to 5 is the ResNet's layer1 to layer4, of stride 4 to 32.

Other than published: pooling keeps position in every variant (what was built for several scales averaged it away, spec 21.12), and
every variant can be had at finer strides.
"""

from collections.abc import Mapping, Sequence

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from roiseg.nn.roi_align import roi_align
from roiseg.snapper.checks import levels_of
from roiseg.snapper.decoders import EdgeDecoders, pool_means
from roiseg.snapper.maps import MapShape, check_maps
from roiseg.snapper.params import CropModelParams
from roiseg.snapper.prior import RoughPrior
from roiseg.types import IMAGE

FPN_CHANNELS = 256


class Trunk(nn.Module):
    """A torchvision ResNet without its classifier: (R, 3, s, s) -> level -> (R, C, h, w)."""

    def __init__(self, net: torchvision.models.ResNet, levels: Sequence[int]) -> None:
        """Take the net's layers, under torchvision's names, up to the deepest level that is wanted.

        Args:
            net: with fresh weights or trained ones.
            levels: wanted, rising.
        """
        super().__init__()
        self.levels = tuple(levels)
        names = ["conv1", "bn1", "relu", "maxpool", *(f"layer{level - 1}" for level in range(2, self.levels[-1] + 1))]
        for name in names:
            self.add_module(name, getattr(net, name))

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """(R, 3, s, s) -> the wanted levels."""
        found: dict[int, Tensor] = {}
        for name, module in self.named_children():
            x = module(x)
            level = int(name.removeprefix("layer")) + 1 if name.startswith("layer") else 0
            if level in self.levels:
                found[level] = x
        return found


class Single(nn.Module):
    """One level, one set of decoders; the deepest is the published model."""

    def __init__(self, params: CropModelParams, widths: Mapping[int, int]) -> None:
        """Build the neck.

        Args:
            params: sub-section `snapper.model`.
            widths: level -> C, of that level alone.
        """
        super().__init__()
        (self._level,) = widths
        self.decode = decoders(params, widths[self._level], self._level)

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Level -> (R, C, h, w) to logits (R, 4, n)."""
        logits: Tensor = self.decode(*pool_means(maps[self._level]))
        return logits


class Concat(nn.Module):
    """All levels brought to the grid of the finest, side by side, and one set of decoders."""

    def __init__(self, params: CropModelParams, widths: Mapping[int, int]) -> None:
        """Build the neck.

        Args:
            params: sub-section `snapper.model`.
            widths: level -> C.
        """
        super().__init__()
        self.decode = decoders(params, sum(widths.values()), min(widths))

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Level -> (R, C, h, w) to logits (R, 4, n)."""
        logits: Tensor = self.decode(*pool_means(side_by_side(maps)))
        return logits


class PerScale(nn.Module):
    """Decoders of its own for each level; their logits averaged, all alike or after learnt weights."""

    def __init__(self, params: CropModelParams, widths: Mapping[int, int], *, learnt: bool) -> None:
        """Build the neck.

        Args:
            params: sub-section `snapper.model`.
            widths: level -> C.
            learnt: whether the levels' shares are learnt; they begin alike.
        """
        super().__init__()
        self.decode = nn.ModuleDict({str(level): decoders(params, width, level) for level, width in widths.items()})
        self.shares = nn.Parameter(torch.zeros(len(widths))) if learnt else None

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Level -> (R, C, h, w) to logits (R, 4, n)."""
        said = torch.stack([decode(*pool_means(maps[int(level)])) for level, decode in self.decode.items()])  # [levels, R, 4, n]
        if self.shares is None:
            return said.mean(dim=0)
        return (said * self.shares.softmax(dim=0)[:, None, None, None]).sum(dim=0)


class Pyramid(nn.Module):
    """Feature pyramid ("Feature Pyramid Networks", section 3): level -> (R, C, h, w) to level -> (R, 256, h, w)."""

    def __init__(self, widths: Mapping[int, int]) -> None:
        """Build the pyramid.

        Args:
            widths: level -> C.
        """
        super().__init__()
        self.lateral = nn.ModuleDict({str(level): nn.Conv2d(width, FPN_CHANNELS, 1) for level, width in widths.items()})
        self.smooth = nn.ModuleDict({str(level): nn.Conv2d(FPN_CHANNELS, FPN_CHANNELS, 3, padding=1) for level in widths})

    def forward(self, maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """See the class."""
        levels = sorted(maps)
        merged = {levels[-1]: self.lateral[str(levels[-1])](maps[levels[-1]])}
        for level in levels[-2::-1]:
            merged[level] = self.lateral[str(level)](maps[level]) + F.interpolate(
                merged[level + 1], scale_factor=2.0, mode="nearest"
            )
        return {level: self.smooth[str(level)](merged[level]) for level in levels}


class PyramidTogether(nn.Module):
    """Head B of the study: the pyramid's levels on the finest grid, mixed by a 1x1 convolution, and one set of decoders."""

    def __init__(self, params: CropModelParams, widths: Mapping[int, int]) -> None:
        """Build the neck.

        Args:
            params: sub-section `snapper.model`.
            widths: level -> C.
        """
        super().__init__()
        self.pyramid = Pyramid(widths)
        self.mix = nn.Sequential(nn.Conv2d(FPN_CHANNELS * len(widths), FPN_CHANNELS, 1), nn.ReLU())
        self.decode = decoders(params, FPN_CHANNELS, min(widths))

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Level -> (R, C, h, w) to logits (R, 4, n)."""
        logits: Tensor = self.decode(*pool_means(self.mix(side_by_side(self.pyramid(maps)))))
        return logits


class PyramidApart(nn.Module):
    """Head A of the study: decoders of its own for each level of the pyramid, averaged after learnt weights."""

    def __init__(self, params: CropModelParams, widths: Mapping[int, int]) -> None:
        """Build the neck.

        Args:
            params: sub-section `snapper.model`.
            widths: level -> C.
        """
        super().__init__()
        self.pyramid = Pyramid(widths)
        self.levels = PerScale(params, dict.fromkeys(widths, FPN_CHANNELS), learnt=True)

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Level -> (R, C, h, w) to logits (R, 4, n)."""
        logits: Tensor = self.levels(self.pyramid(maps))
        return logits


class CropSnapper(nn.Module):
    """Images, cut to windows, to four distributions.

    Attributes:
        trunk: the ResNet; its parameters have torchvision's names.
        shapes: `image` -> shape of the images that it takes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, params: CropModelParams, image: MapShape, net: torchvision.models.ResNet) -> None:
        """Build the model.

        Args:
            params: sub-section `snapper.model`.
            image: shape of the stored images.
            net: of `params.backbone`, with the weights to start from.

        Raises:
            ParamsError: keys that don't go together, see `levels_of`.
        """
        super().__init__()
        self.shapes = {IMAGE: image}
        self._crop_hw, self._sampling_ratio = (params.crop_px, params.crop_px), params.sampling_ratio
        # Not part of the weights: params say them.
        for name, values in (("mean", params.mean), ("std", params.std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1), persistent=False)
        levels = levels_of(params)
        self.trunk = Trunk(net, levels)
        self.neck = make_neck(params, {level: channels_of(params, level) for level in levels})
        self.prior = RoughPrior(params.positions) if params.prior == "rough" else None

    def forward(self, features: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """Logits.

        Args:
            features: `image` -> (B, 3, H, W) float32 RGB in [0, 1].
            windows: (R, 5 or 9), see `rough_edges`.

        Returns:
            (R, 4, n).

        Raises:
            StoreMismatchError: the images have another size than the model was built for.
        """
        check_maps(features, self.shapes)
        crops = roi_align(features[IMAGE], windows[:, :5], self._crop_hw, self._sampling_ratio)  # [R, 3, s, s]
        logits: Tensor = self.neck(self.trunk((crops - self.mean) / self.std))
        return logits if self.prior is None else logits + self.prior(windows)


def channels_of(params: CropModelParams, level: int) -> int:
    """C of a level: 256 at level 2 of a ResNet-50, 64 of the smaller ones, doubled with each level."""
    return (256 if params.backbone == "resnet50" else 64) << (level - 2)


def make_neck(params: CropModelParams, widths: Mapping[int, int]) -> nn.Module:
    """What turns levels into logits.

    Args:
        params: sub-section `snapper.model`.
        widths: level -> C of the levels that it looks at, rising.
    """
    if params.scales == "single":
        return Single(params, widths)
    if params.scales == "concat":
        return Concat(params, widths)
    if params.scales == "per_scale":
        return PerScale(params, widths, learnt=False)
    return PyramidApart(params, widths) if params.scales == "fpn_a" else PyramidTogether(params, widths)


def decoders(params: CropModelParams, channels: int, level: int) -> EdgeDecoders:
    """Decoders for maps of a level.

    Args:
        params: sub-section `snapper.model`.
        channels: C of the maps.
        level: whose grid they have.
    """
    side = params.crop_px >> level
    return EdgeDecoders(channels, params.decoder_channels, (side, side), params.positions, params.upsample)


def side_by_side(maps: Mapping[int, Tensor]) -> Tensor:
    """Level -> (R, C, h, w) as (R, sum of C, h, w) on the finest grid, bilinear."""
    finest = min(maps)
    parts = [
        maps[level]
        if level == finest
        else F.interpolate(maps[level], scale_factor=float(2 ** (level - finest)), mode="bilinear", align_corners=False)
        for level in sorted(maps)
    ]
    return torch.cat(parts, dim=1)
