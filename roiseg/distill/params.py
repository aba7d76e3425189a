"""Section `distill`."""

from typing import Any

from pydantic import Field

from roiseg.distill.eliminate import EliminateParams, check_eliminate
from roiseg.distill.features import FeatureParams, check_features
from roiseg.distill.loss import DistillLossParams
from roiseg.distill.temperature import TemperatureParams
from roiseg.distill.unfreeze import LearningPlan, StagedParams, UnfreezeParams
from roiseg.errors import ParamsError
from roiseg.params import Section
from roiseg.unet.augment import Augment
from roiseg.unet.params import NetExportParams, net_training
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
            ParamsError: see `LearningPlan`, `check_features`, `check_eliminate` and `net_training`; or several processes where
                weights join later, or an end before they do.
        """
        _ = self.plan
        self._check_devices()
        self._check_ends()
        self._check_factors()
        check_features(self.loss, self.features)
        check_eliminate(self.loss, self.eliminate)

    def _check_devices(self) -> None:
        """Refuse what would learn wrongly: torch's DDP reduces the gradients of those weights that want one when it begins."""
        devices = net_training(self.train, "distill.train").devices
        later = [name for name in ("unfreeze", "staged") if getattr(self, name) is not None]
        if devices > 1 and later:
            raise ParamsError(
                f"distill.train.devices is {devices} and distill.{later[0]} is set: weights that join later would learn in each "
                f"process on its own; set distill.train.devices to 1, or distill.{later[0]} to null"
            )

    def _check_ends(self) -> None:
        """Refuse a plan that the run is over before."""
        epochs = net_training(self.train, "distill.train").epochs
        first = {
            "unfreeze.start": None if self.unfreeze is None else self.unfreeze.start,
            "staged.encoder_only_epochs": None if self.staged is None else self.staged.encoder_only_epochs,
        }
        for name, last in first.items():
            if last is not None and last >= epochs:
                raise ParamsError(
                    f"distill.{name} is {last} and the run has {epochs} epochs (distill.train.epochs): what joins after that never "
                    f"learns; expected less than {epochs}"
                )

    def _check_factors(self) -> None:
        """Refuse factors on weights that have one of their own when they join."""
        if self.train.get("lr_factors") and (self.model.freeze_encoder or self.staged is not None):
            raise ParamsError(
                "distill.train.lr_factors is set, but parts that are frozen at first join with the factors of distill.unfreeze and "
                "distill.staged; take lr_factors out, or let all learn from the start"
            )
