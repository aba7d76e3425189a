"""`rgb_hierarchical`: the decisions of `hierarchical_unet_v2` from pixels, and from a teacher that tells people from background.

    image   -> ROI align -> extractor (M channels) -+
    teacher -> sigmoid -> ROI align (2 channels) ---+-> 1x1 -> trunk and decoder of version 2 -> mask logits

| parameters, 256 mid channels, norms of two values a channel | |
|---|---|
| extractor of 3 steps | 1,988,992 |
| extractor of 4 steps | 2,882,496 |
| 1x1 behind extractor and teacher | 66,304 |
| trunk and decoder of 64 base channels, depth 3, with `target_attention` | 10,913,192 |
| 72 base channels, depth 3 | 12,565,668 |
| 96 base channels, depth 4 | 60,130,200 |
| contour branch of 64 channels | 184,769 |
| distance branch of 128 channels | 591,105, one less than published: a threshold that nothing read |

No detector takes part: a head of 4 steps reads the image alone, and one of 3 steps whatever net wrote the layer `teacher`.

Symbols: M `mid_channels`, (g, g') the ROI grid.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import model_validator
from torch import nn

from roiseg.heads.base import Cells
from roiseg.heads.composed import ComposedHead, assemble
from roiseg.heads.hierarchical import hierarchical_trunk
from roiseg.heads.hierarchical_unet import Channels, V2Params, v2_decoder
from roiseg.heads.inputs import GridParams
from roiseg.nn.fusion import Sum, WeightedSum, to_grid
from roiseg.nn.person_guide import PersonGuide, PersonMap
from roiseg.nn.rgb_extractor import RgbExtractor, Steps
from roiseg.nn.rgb_inputs import RgbInputs, RgbReader
from roiseg.nn.style import Norm, Style
from roiseg.types import IMAGE, TEACHER, FeatureSpec


class RgbInputsParams(GridParams):
    """Sub-section `inputs`.

    Attributes:
        steps: of the extractor, see `RgbExtractor`.
        further_roi_hw: more grids that the image is aligned to, each with an extractor of its own; all are brought to `roi_hw` and
            summed by learnt shares.
    """

    roi_hw: tuple[Cells, Cells] = (64, 48)
    steps: Steps = 3
    further_roi_hw: tuple[tuple[Cells, Cells], ...] = ()

    def faults(self, layers: Sequence[str]) -> list[str]:
        """See `GridParams`."""
        if sorted(layers) in ([IMAGE], [IMAGE, TEACHER]):
            return []
        return [f"layers are {', '.join(layers)}, expected {IMAGE} alone, or {IMAGE} and {TEACHER}; this head reads no detector"]


class BatchStyle(Style):
    """Sub-section `blocks` of this family."""

    norm: Norm = "batch"


class RgbHierarchicalParams(V2Params):
    """Section `model` for `head: rgb_hierarchical`.

    Attributes:
        guided: whether the gate from the first decision is held back to half where the teacher sees nobody.
    """

    head: Literal["rgb_hierarchical"]
    mask_hw: tuple[Cells, Cells] = (128, 96)
    inputs: RgbInputsParams = RgbInputsParams()
    blocks: BatchStyle = BatchStyle()
    base_channels: Channels = 64
    target_attention: bool = True
    guided: bool = False

    @model_validator(mode="after")
    def _somebody_guides(self) -> "RgbHierarchicalParams":
        if self.guided and TEACHER not in self.layers:
            raise ValueError(
                f"guided is true and layers are {', '.join(self.layers)}, expected {TEACHER} among them; add it, or set guided to "
                "false"
            )
        return self


def build_rgb_hierarchical(params: RgbHierarchicalParams, specs: Sequence[FeatureSpec]) -> ComposedHead:
    """The head for these layers, with fresh weights.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
    """
    people = None
    if TEACHER in [spec.name for spec in specs]:
        people = PersonMap(roi_hw=params.inputs.roi_hw, sampling_ratio=params.inputs.sampling_ratio)
    return assemble(
        params,
        _inputs(params, people),
        hierarchical_trunk(params.mid_channels, params.blocks, 2),
        v2_decoder(params),
        PersonGuide(people) if people is not None and params.guided else None,
    )


def _inputs(params: RgbHierarchicalParams, people: PersonMap | None) -> RgbInputs:
    mid, style, inputs = params.mid_channels, params.blocks, params.inputs
    readers = [
        RgbReader(
            RgbExtractor(mid, steps=inputs.steps, style=style),
            to_grid(mid, grid, inputs.roi_hw, style),
            roi_hw=grid,
            sampling_ratio=inputs.sampling_ratio,
        )
        for grid in (inputs.roi_hw, *inputs.further_roi_hw)
    ]
    return RgbInputs(
        readers,
        WeightedSum(len(readers)) if inputs.further_roi_hw else Sum(),
        people=people,
        join=nn.Conv2d(mid + 2, mid, 1) if people is not None else None,
    )
