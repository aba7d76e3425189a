"""What composed heads are put together from: inputs, a trunk and a decoder of their family, and parts that any of them may have.

    features, boxes -> inputs -> [relational] -> trunk -> [attention] -> shared features
    shared features -> decoder -> [+ upsampling] -> [cascade] -> [boundary refinement] -> mask logits
    shared features -> [auxiliary branches]

Symbols: R ROIs, M `mid_channels`, (g, g') the ROI grid, (h, w) cells of the mask.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from roiseg.heads.base import Cells, HeadParams
from roiseg.heads.inputs import GridParams, InputHeadParams, build_inputs
from roiseg.nn.attention import Attention, make_attention
from roiseg.nn.blocks import Resize, conv, residual
from roiseg.nn.cascade import make_cascade
from roiseg.nn.outputs import HeadOutput
from roiseg.nn.refinement import BoundaryRefinement, make_upsampling
from roiseg.nn.relational import RoiAttention
from roiseg.nn.style import Style, kaiming
from roiseg.params import Section
from roiseg.types import FeatureSpec

EARLIER_STAGES = frozenset({"stage_1", "stage_2"})
"""Outputs of a cascade."""

NARROWEST = 8
"""The narrowest parts of heads have `mid_channels` over this."""


class BranchParams(Section):
    """An auxiliary branch.

    Attributes:
        channels: of its first convolution; of `embedding`, of its output.
    """

    channels: int = Field(ge=2, multiple_of=2)


class AuxiliaryParams(Section):
    """Sub-section `auxiliary`: further outputs that only training looks at; each null where it is off.

    Attributes:
        foreground: is there a person, (R, 1, h, w).
        contour: is this the target's outline, (R, 1, h, w).
        distance: the target's normalised distance transform, (R, 1, h, w).
        embedding: what contrastive losses compare, (R, channels, g, g').
        correct_by_foreground: whether the foreground branch has a say in the masks outside of training.
    """

    foreground: BranchParams | None = None
    contour: BranchParams | None = None
    distance: BranchParams | None = None
    embedding: BranchParams | None = None
    correct_by_foreground: bool = False

    @property
    def branches(self) -> dict[str, BranchParams]:
        """Those that are on, by name."""
        named = {name: getattr(self, name) for name in ("foreground", "contour", "distance", "embedding")}
        return {name: branch for name, branch in named.items() if branch is not None}

    @model_validator(mode="after")
    def _something_is_on(self) -> "AuxiliaryParams":
        if not self.branches:
            raise ValueError("all branches are null, expected at least one; or set auxiliary to null")
        if self.correct_by_foreground and self.foreground is None:
            raise ValueError("correct_by_foreground is true and foreground null, expected the branch that corrects")
        return self


class RefineParams(Section):
    """Sub-section `refine`.

    Attributes:
        upsampling: logits from the shared features at higher resolution, added to the decoder's: `progressive`, `subpixel` or null.
        boundary: whether the last logits are mended where classes meet.
    """

    upsampling: Literal["progressive", "subpixel"] | None = None
    boundary: bool = False

    @model_validator(mode="after")
    def _something_is_on(self) -> "RefineParams":
        if self.upsampling is None and not self.boundary:
            raise ValueError("upsampling is null and boundary false, expected one of them on; or set refine to null")
        return self


class RelationalParams(Section):
    """Sub-section `relational`: attention over the ROIs of an image.

    Attributes:
        heads: of the attention.
        dropout: share of its weights that training drops.
    """

    heads: int = Field(default=8, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class CascadeParams(Section):
    """Sub-section `cascade`: two more stages behind the decoder, which is the first.

    Attributes:
        channels: of both stages.
        share_features: whether both read the features that the decoder reads; otherwise each makes its own of the fused inputs.
    """

    channels: int = Field(default=128, ge=1)
    share_features: bool = True


class PartsParams(HeadParams):
    """Section `model`, as far as every composed head has it, whatever it reads; the defaults of heads are the published values.

    Attributes:
        inputs: from features to a map for each ROI.
        blocks: norms and activations.
        mid_channels: M.
        attention: on the shared features: `se`, `spatial`, `cbam` or null.
        auxiliary: further outputs, or null.
        refine: mending of the logits, or null.
        relational: attention over ROIs, or null.
        cascade: later stages, or null.
    """

    mask_hw: tuple[Cells, Cells] = (56, 56)
    inputs: GridParams
    blocks: Style = Style()
    mid_channels: int = Field(default=256, ge=NARROWEST, multiple_of=NARROWEST)
    attention: Attention | None = None
    auxiliary: AuxiliaryParams | None = None
    refine: RefineParams | None = None
    relational: RelationalParams | None = None
    cascade: CascadeParams | None = None

    @property
    def aux_names(self) -> frozenset[str]:
        """See `HeadParams`."""
        branches = {} if self.auxiliary is None else self.auxiliary.branches
        return frozenset(branches) | (EARLIER_STAGES if self.cascade is not None else frozenset())

    def widths(self) -> dict[str, int]:
        """Numbers of channels that a norm may meet, by the key that they come from; families add theirs."""
        widths = {"mid_channels": self.mid_channels // NARROWEST}
        widths |= {f"inputs.{name}": width for name, width in self.inputs.widths().items()}
        if self.cascade is not None:
            widths["cascade.channels"] = self.cascade.channels
        if self.auxiliary is not None:
            # The foreground branch narrows to half; an embedding has no norm of its own width.
            narrow = {"foreground": 2, "contour": 1, "distance": 1}
            branches = {name: item for name, item in self.auxiliary.branches.items() if name in narrow}
            widths |= {f"auxiliary.{name}.channels": item.channels // narrow[name] for name, item in branches.items()}
        return widths

    @model_validator(mode="after")
    def _parts_fit(self) -> "PartsParams":
        faults = self.inputs.faults(self.layers)
        groups = self.blocks.groups or 1
        faults += [
            f"{name}: its narrowest norm has {width} channels, which isn't a multiple of blocks.groups {groups}"
            for name, width in self.widths().items()
            if width % groups
        ]
        if self.relational is not None and self.mid_channels % self.relational.heads:
            faults.append(f"mid_channels {self.mid_channels} isn't a multiple of relational.heads {self.relational.heads}")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class ComposedParams(InputHeadParams, PartsParams):
    """Section `model`, as far as every composed head on the detector's layers has it."""


class ComposedHead(nn.Module):
    """See the module's docstring; parts are passed in."""

    def __init__(
        self,
        inputs: nn.Module,
        trunk: nn.Module,
        decoder: nn.Module,
        *,
        relational: nn.Module | None,
        extras: Mapping[str, nn.Module],
        cascade: nn.Module | None,
        auxiliary: Mapping[str, nn.Module],
        correct_by_foreground: bool,
    ) -> None:
        """Put the head together.

        Args:
            inputs: features and boxes -> (R, M, g, g').
            trunk: (R, M, g, g') -> shared features (R, M, g, g').
            decoder: (R, M, g, g') -> `HeadOutput`.
            relational: (R, M, g, g') and boxes -> (R, M, g, g').
            extras: `guide`: features and boxes -> (R, 1, g, g'), which the decoder takes beside the shared features; `upsampling`:
                shared features -> (R, 3, h, w), added to the decoder's; `boundary`: (R, 3, h, w) -> the same.
            cascade: (R, M, g, g') before and after the trunk, and (R, 3, h, w) -> logits of every stage.
            auxiliary: name of an output -> shared features to it.
            correct_by_foreground: see `AuxiliaryParams`.
        """
        super().__init__()
        self.inputs, self.relational, self.trunk, self.decoder = inputs, relational, trunk, decoder
        self.guide, self.upsampling, self.boundary = (extras.get(name) for name in ("guide", "upsampling", "boundary"))
        self.cascade, self.auxiliary = cascade, nn.ModuleDict(auxiliary)
        self._correct_by_foreground = correct_by_foreground

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> HeadOutput:
        """Mask logits of every box, and the outputs of the branches that are on.

        Args:
            features: layer -> (N, C, H, W) float32.
            boxes: (R, 5) of image number and xyxy in the unit frame.
        """
        x = self.inputs(features, boxes)
        if self.relational is not None:
            x = self.relational(x, boxes)
        shared = self.trunk(x)
        guides = () if self.guide is None else (self.guide(features, boxes),)
        logits, found = self.decoder(shared, *guides)
        aux = dict(found)
        if self.upsampling is not None:
            logits = logits + self.upsampling(shared)
        if self.cascade is not None:
            *earlier, logits = self.cascade(x, shared, logits)
            aux |= {f"stage_{number}": stage for number, stage in enumerate(earlier, start=1)}
        if self.boundary is not None:
            logits = self.boundary(logits)
        aux |= {name: branch(shared) for name, branch in self.auxiliary.items()}
        if self._correct_by_foreground and not self.training:
            logits = correct(logits, aux["foreground"])
        return HeadOutput(logits, aux)


def correct(logits: Tensor, foreground: Tensor) -> Tensor:
    """Logits whose softmax is p0 (1 - c), p1 c, p2 c, scaled to sum 1: p their softmax, c the sigmoid of the foreground's logit.

    Args:
        logits: (R, 3, h, w).
        foreground: (R, 1, h, w).
    """
    said = torch.cat([F.logsigmoid(-foreground), F.logsigmoid(foreground), F.logsigmoid(foreground)], dim=1)
    return logits + said


def compose(params: ComposedParams, specs: Sequence[FeatureSpec], trunk: nn.Module, decoder: nn.Module) -> ComposedHead:
    """A head on the detector's layers around the trunk and the decoder of a family, with fresh weights.

    Args:
        params: section `model`.
        specs: the layers of `params.layers`, in order.
        trunk: (R, M, g, g') -> (R, M, g, g').
        decoder: (R, M, g, g') -> `HeadOutput`.
    """
    inputs = build_inputs(params.inputs, specs, params.mid_channels, params.blocks)
    return assemble(params, inputs, trunk, decoder)


def assemble(
    params: PartsParams, inputs: nn.Module, trunk: nn.Module, decoder: nn.Module, guide: nn.Module | None = None
) -> ComposedHead:
    """A head around its inputs, the trunk and the decoder of a family, with fresh weights.

    Args:
        params: section `model`.
        inputs: features and boxes -> (R, M, g, g').
        trunk: (R, M, g, g') -> (R, M, g, g').
        decoder: (R, M, g, g') -> `HeadOutput`; with a guide, it takes that too.
        guide: features and boxes -> (R, 1, g, g'), without weights.
    """
    mid, style = params.mid_channels, params.blocks
    attended = trunk if params.attention is None else nn.Sequential(trunk, make_attention(params.attention, mid, style))
    cascade = _cascade(params)
    auxiliary = _branches(params)
    mending = _mending(params)
    upsampling = [part for name, part in mending.items() if name == "upsampling"]
    for part in (inputs, attended, decoder, *([cascade] if cascade else []), *auxiliary.values(), *upsampling):
        part.apply(kaiming)
    related = params.relational
    return ComposedHead(
        inputs,
        attended,
        decoder,
        relational=None if related is None else RoiAttention(mid, heads=related.heads, dropout=related.dropout),
        extras=mending if guide is None else {**mending, "guide": guide},
        cascade=cascade,
        auxiliary=auxiliary,
        correct_by_foreground=params.auxiliary is not None and params.auxiliary.correct_by_foreground,
    )


def _cascade(params: PartsParams) -> nn.Module | None:
    if params.cascade is None:
        return None
    own = params.cascade
    return make_cascade(params.mid_channels, own.channels, params.blocks.up, share_features=own.share_features)


def _mending(params: PartsParams) -> dict[str, nn.Module]:
    mid, style, mending = params.mid_channels, params.blocks.up, dict[str, nn.Module]()
    if params.refine is not None and params.refine.upsampling is not None:
        mending["upsampling"] = make_upsampling(params.refine.upsampling, mid, params.mask_hw, style)
    if params.refine is not None and params.refine.boundary:
        mending["boundary"] = BoundaryRefinement(mid // NARROWEST, style)
    return mending


def _branches(params: PartsParams) -> dict[str, nn.Module]:
    if params.auxiliary is None:
        return {}
    mid, style, found = params.mid_channels, params.blocks.up, dict[str, nn.Module]()
    for name, branch in params.auxiliary.branches.items():
        width = branch.channels
        if name == "foreground":
            parts = [conv(mid, width, style), conv(width, width // 2, style), nn.Conv2d(width // 2, 1, 1)]
        elif name == "contour":
            parts = [conv(mid, width, style), conv(width, width, style), nn.Conv2d(width, 1, 1)]
        elif name == "distance":
            parts = [conv(mid, width, style), residual(width, style), nn.Conv2d(width, 1, 1)]
        else:
            parts = [conv(mid, mid // 4, style), nn.Conv2d(mid // 4, width, 1)]
        found[name] = nn.Sequential(*parts) if name == "embedding" else nn.Sequential(*parts, Resize(params.mask_hw))
    return found
