"""Section `distill`."""

from typing import Any

from pydantic import Field

from roiseg.distill.eliminate import EliminateParams, check_eliminate
from roiseg.distill.features import FeatureParams, check_features
from roiseg.distill.loss import DistillLossParams
from roiseg.distill.temperature import TemperatureParams
from roiseg.distill.unfreeze import LearningPlan, StagedParams, UnfreezeParams
from roiseg.params import Section
from roiseg.unet.augment import Augment
from roiseg.unet.params import NetExportParams
from roiseg.unet.person_unet_params import UnetModelParams


class DistillParams(Section):
    """Section `distill`: a small net that learns from the truth, a larger one and the detector."""

    model: UnetModelParams
    augment: Augment
    loss: DistillLossParams
    temperature: TemperatureParams
    features: FeatureParams | None
    unfreeze: UnfreezeParams | None
    staged: StagedParams | None
    eliminate: EliminateParams | None
    train: dict[str, Any] = Field()
    export: NetExportParams

    @property
    def plan(self) -> LearningPlan:
        """What learns when.

        Raises:
            ParamsError: see `LearningPlan`.
        """
        return LearningPlan(self.model.freeze_encoder, self.unfreeze, self.staged)

    def check(self) -> None:
        """Hold the sub-sections against each other.

        Raises:
            ParamsError: see `LearningPlan`, `check_features` and `check_eliminate`.
        """
        _ = self.plan
        check_features(self.loss, self.features)
        check_eliminate(self.loss, self.eliminate)
