"""Sub-section `inputs` of composed heads: which grid each layer is aligned to, and how the layers become one map."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field
from torch import nn

from roiseg.heads.base import Cells
from roiseg.nn.blocks import conv, residual
from roiseg.nn.fusion import Concat, Sum, TopDown, WeightedSum, to_grid
from roiseg.nn.roi_inputs import LayerReader, RgbEncoder, RoiInputs
from roiseg.nn.style import Style
from roiseg.params import Section, nearest
from roiseg.types import HW, IMAGE, FeatureSpec


class RgbParams(Section):
    """Sub-section `inputs.rgb`: the image, through a small encoder, beside some layers.

    Attributes:
        layers: layers that the image's channels are joined to.
        channels: of the encoder's output.
    """

    layers: tuple[str, ...] = Field(min_length=1)
    channels: int = Field(ge=2, multiple_of=2)


class InputsParams(Section):
    """Sub-section `inputs`.

    Attributes:
        roi_hw: the grid that all layers come to.
        layer_roi_hw: layer -> a grid of its own that it is aligned to first; the others are aligned to `roi_hw`.
        sampling_ratio: samples along each side of a bin.
        fusion: `single` (one layer); or of several `adaptive` (learnt shares), `sum`, `concat`, `fpn` (top-down pyramid, then sum).
        smooth: whether a convolution and a residual block follow the fusion.
        rgb: the image beside some layers, or null.
    """

    roi_hw: tuple[Cells, Cells]
    layer_roi_hw: Mapping[str, tuple[Cells, Cells]]
    sampling_ratio: int = Field(ge=1, le=8)
    fusion: Literal["single", "adaptive", "sum", "concat", "fpn"]
    smooth: bool
    rgb: RgbParams | None

    def faults(self, layers: Sequence[str]) -> list[str]:
        """What doesn't fit the layers that the head reads.

        Args:
            layers: `model.layers`.
        """
        maps = feature_layers(layers)
        named = {"layer_roi_hw": tuple(self.layer_roi_hw), "rgb.layers": () if self.rgb is None else self.rgb.layers}
        found = [
            f"inputs.{key}: {name!r} isn't one of the feature layers in layers; {nearest(name, maps)}"
            for key, names in named.items()
            for name in names
            if name not in maps
        ]
        if (self.rgb is not None) != (IMAGE in layers):
            remedy = f"add {IMAGE} to layers" if self.rgb is not None else f"take {IMAGE} out of layers or set inputs.rgb"
            found.append(f"inputs.rgb is {'null' if self.rgb is None else 'set'} and layers are {', '.join(layers)}; {remedy}")
        if (self.fusion == "single") != (len(maps) == 1):
            found.append(
                f"inputs.fusion is {self.fusion} with {len(maps)} feature layers, expected single for one layer and adaptive, sum, "
                "concat or fpn for several"
            )
        return found


def feature_layers(layers: Sequence[str]) -> list[str]:
    """The layers of the detector among those that a head reads."""
    return [name for name in layers if name != IMAGE]


def build_inputs(params: InputsParams, specs: Sequence[FeatureSpec], mid_channels: int, style: Style) -> RoiInputs:
    """The inputs for these layers, with fresh weights.

    Args:
        params: sub-section `inputs`.
        specs: the layers of `model.layers`, in order.
        mid_channels: M.
        style: norms and activations.
    """
    maps = [spec for spec in specs if spec.name != IMAGE]
    grids: list[HW] = [params.layer_roi_hw.get(spec.name, params.roi_hw) for spec in maps]
    # The coarsest layer first; of two alike the deeper one, which stands behind.
    order = sorted(range(len(maps)), key=lambda place: (maps[place].stride_hw, place), reverse=True)
    return RoiInputs(
        nn.ModuleDict(
            {spec.name: _reader(params, spec, grid, mid_channels, style) for spec, grid in zip(maps, grids, strict=True)}
        ),
        [to_grid(mid_channels, grid, params.roi_hw, style) for grid in grids],
        _fusion(params.fusion, len(maps), mid_channels, style),
        rgb=RgbEncoder(params.rgb.channels) if params.rgb is not None else None,
        top_down=TopDown(mid_channels, order) if params.fusion == "fpn" else None,
        smooth=nn.Sequential(conv(mid_channels, mid_channels, style), residual(mid_channels, style)) if params.smooth else None,
    )


def _reader(params: InputsParams, spec: FeatureSpec, grid: HW, mid_channels: int, style: Style) -> LayerReader:
    beside = params.rgb.channels if params.rgb is not None and spec.name in params.rgb.layers else 0
    return LayerReader(
        conv(spec.channels + beside, mid_channels, style, kernel=1),
        conv(beside, beside, style, kernel=1) if beside else None,
        roi_hw=grid,
        sampling_ratio=params.sampling_ratio,
    )


def _fusion(kind: str, layers: int, mid_channels: int, style: Style) -> nn.Module:
    if kind == "adaptive":
        return WeightedSum(layers)
    if kind == "concat":
        return Concat(layers, mid_channels, style)
    return Sum()
