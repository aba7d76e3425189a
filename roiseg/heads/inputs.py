"""Sub-section `inputs` of heads: which grid each layer is aligned to, and how the layers become one map."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import nn

from roiseg.heads.base import Cells, HeadParams
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
    channels: int = Field(default=64, ge=2, multiple_of=2)


class GridParams(Section):
    """Sub-section `inputs`, as far as every head with an ROI grid has it.

    Attributes:
        roi_hw: the grid that all layers come to.
        sampling_ratio: samples along each side of a bin.
    """

    roi_hw: tuple[Cells, Cells] = (28, 28)
    sampling_ratio: int = Field(default=2, ge=1, le=8)

    def faults(self, layers: Sequence[str]) -> list[str]:
        """What doesn't fit the layers that the head reads.

        Args:
            layers: `model.layers`.
        """
        return []

    def widths(self) -> dict[str, int]:
        """Numbers of channels that a norm may meet and that are none of the head's own, by the key that they come from."""
        return {}


class InputsParams(GridParams):
    """Sub-section `inputs` of heads that read the detector's layers.

    Attributes:
        layer_roi_hw: layer -> a grid of its own that it is aligned to first; the others are aligned to `roi_hw`.
        fusion: `single` (one layer); or of several `adaptive` (learnt shares), `sum`, `concat`, `fpn` (top-down pyramid, then sum).
            Where it isn't given, `single` or `adaptive`, see `InputHeadParams`.
        smooth: whether a convolution and a residual block follow the fusion.
        rgb: the image beside some layers, or null.
    """

    layer_roi_hw: Mapping[str, tuple[Cells, Cells]] = Field(default_factory=dict)
    fusion: Literal["single", "adaptive", "sum", "concat", "fpn"]
    smooth: bool = False
    rgb: RgbParams | None = None

    def faults(self, layers: Sequence[str]) -> list[str]:
        """See `GridParams`."""
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

    def widths(self) -> dict[str, int]:
        """See `GridParams`."""
        return {} if self.rgb is None else {"rgb.channels": self.rgb.channels}


class InputHeadParams(HeadParams):
    """Section `model`, as far as every head with such inputs has it.

    Attributes:
        inputs: from features to a map for each ROI.
        blocks: norms and activations.
    """

    mask_hw: tuple[Cells, Cells] = (56, 56)
    inputs: InputsParams
    blocks: Style = Style()

    @model_validator(mode="before")
    @classmethod
    def _fusion_by_number_of_layers(cls, values: object) -> object:
        return _with_fusion(values)


def _with_fusion(values: object) -> object:
    """Section `model` with the fusion that its layers want where it gives none; what is no mapping is refused elsewhere."""
    if not isinstance(values, Mapping):
        return values
    layers, inputs = values.get("layers"), values.get("inputs", {})
    if not isinstance(layers, Sequence) or not isinstance(inputs, Mapping) or "fusion" in inputs:
        return values
    maps: list[Any] = [name for name in layers if name != IMAGE]
    return {**values, "inputs": {**inputs, "fusion": "single" if len(maps) == 1 else "adaptive"}}


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
