"""Phases of a run: simpler models and losses to begin with, up to those of the params (spec 14.6)."""

import json

from roiseg.errors import ParamsError
from roiseg.heads import parse_model
from roiseg.heads.base import HeadParams
from roiseg.losses import LossParams, check_outputs
from roiseg.params import NOBODY, overlay
from roiseg.train.params import PhaseParams, TrainParams

Resolved = tuple[PhaseParams | None, HeadParams, LossParams]


def resolve_phases(train: TrainParams, model: HeadParams, loss: LossParams) -> list[Resolved]:
    """Model and loss of each phase: what the phase sets laid over those of the params, and these themselves at the end.

    Args:
        train: section `train`.
        model: section `model`.
        loss: section `loss`.

    Raises:
        ParamsError: a fault in what a phase sets, or in the order of their ends; a model and a loss that don't fit, see
            `check_outputs`; or a loss that wants a teacher and none is named.
    """
    ends = [phase.until for phase in train.phases]
    if ends != sorted(set(ends)) or len({phase.name for phase in train.phases}) < len(ends):
        raise ParamsError(
            f"train.phases: {', '.join(f'{phase.name} until {phase.until}' for phase in train.phases)}; expected each to end later "
            "than the one before, and each name once"
        )
    if ends and train.additional_epochs is None and ends[-1] >= train.epochs:
        raise ParamsError(
            f"train.phases: the last one ends after epoch {ends[-1]} of {train.epochs}, which leaves none for the model of the "
            "params as they stand; lower its `until` or raise train.epochs"
        )
    check_outputs(loss, model.head, model.aux_names)
    found: list[Resolved] = [*(_resolve(phase, model, loss) for phase in train.phases), (None, model, loss)]
    if train.distill_from == NOBODY and any(part.distill is not None for _, _, part in found):
        raise ParamsError(
            f"train.distill_from: value is {NOBODY!r}, but loss.distill asks for a teacher; name the file of a trained head, "
            "such as models/kept/NAME/HEAD/best_model.pth (`roiseg train keep`), or set loss.distill to null"
        )
    return found


def _resolve(phase: PhaseParams, model: HeadParams, loss: LossParams) -> Resolved:
    try:
        own_model = parse_model(overlay(json.loads(model.model_dump_json()), phase.model))
        own_loss = LossParams.parse(overlay(json.loads(loss.model_dump_json()), phase.loss), "loss")
        check_outputs(own_loss, own_model.head, own_model.aux_names)
    except ParamsError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise ParamsError("\n".join(f"train.phases, {phase.name}: {line}" for line in lines)) from error
    return phase, own_model, own_loss
