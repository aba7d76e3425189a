"""Section `loss`."""

import math

from pydantic import Field, model_validator

from roiseg.losses.auxiliary import AuxiliaryParams
from roiseg.losses.boundary import BoundaryCeParams
from roiseg.losses.cascade import StageWeights
from roiseg.losses.class_weights import ClassWeightParams
from roiseg.losses.contour import ActiveContourParams
from roiseg.losses.contrastive import ContrastiveParams
from roiseg.losses.edge import EdgeParams
from roiseg.losses.full_map import FullMapParams
from roiseg.losses.head_distill import HeadDistillParams
from roiseg.losses.hierarchical import HierarchicalParams
from roiseg.losses.region import ClassLabel, TverskyParams
from roiseg.losses.schedule import AdaptiveParams
from roiseg.losses.truth import NonTarget, classes_of
from roiseg.params import Section


class LossParams(Section):
    """Section `loss`."""

    non_target: NonTarget
    ce: float = Field(ge=0)
    focal_gamma: float = Field(ge=0, le=10)
    focal_classes: tuple[ClassLabel, ...] = Field(min_length=1)
    dice: float = Field(ge=0)
    dice_classes: tuple[ClassLabel, ...] = Field(min_length=1)
    dice_smooth: float = Field(gt=0)
    tversky: TverskyParams | None
    class_weights: ClassWeightParams
    boundary_weight: float = Field(ge=1, le=100)
    boundary_width: float = Field(gt=0)
    instance_sep_weight: float = Field(ge=1, le=100)
    near_px: float = Field(gt=0)
    adaptive: AdaptiveParams | None
    ignore_px: float = Field(ge=0)
    boundary_ce: BoundaryCeParams | None
    edge: EdgeParams | None
    active_contour: ActiveContourParams | None
    contrastive: ContrastiveParams | None
    full_map: FullMapParams | None
    hierarchical: HierarchicalParams | None
    auxiliary: AuxiliaryParams
    cascade: StageWeights
    distill: HeadDistillParams | None

    @model_validator(mode="after")
    def _classes_are_left(self) -> "LossParams":
        asked = {"dice_classes": self.dice_classes, "tversky.classes": self.tversky.classes if self.tversky else None}
        empty = [name for name, classes in asked.items() if classes is not None and not classes_of(classes, self.non_target)]
        if empty:
            raise ValueError(
                f"non_target is {self.non_target!r}, which leaves no class of {' and '.join(empty)}: it is 2 alone; "
                "add 1, or set non_target to 'own'"
            )
        return self

    @model_validator(mode="after")
    def _something_is_left_to_learn(self) -> "LossParams":
        contour = self.auxiliary.contour
        reach = {
            "edge": 0.5 if self.edge else None,
            "auxiliary.contour": math.ceil(contour.width - 0.5) - 0.5 if contour else None,
            "boundary_ce": self.boundary_ce.width / 2 - 1 if self.boundary_ce else None,
        }
        blind = {name: pixels for name, pixels in reach.items() if pixels is not None and self.ignore_px > pixels}
        if blind:
            names = " and ".join(blind)
            raise ValueError(
                f"ignore_px {self.ignore_px} leaves out every pixel beside a border that {names} would teach; "
                f"lower it to {min(blind.values())}, or set {names} to null"
            )
        return self

    def of_known_classes(self) -> "LossParams":
        """The same with regions of those classes alone that `non_target` leaves."""
        changes: dict[str, object] = {"dice_classes": classes_of(self.dice_classes, self.non_target)}
        if self.tversky is not None:
            known = classes_of(self.tversky.classes, self.non_target)
            changes["tversky"] = self.tversky.model_copy(update={"classes": known})
        return self.model_copy(update=changes)
