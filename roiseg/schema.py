"""Which class every section of params.yaml has: for checking the whole file at once."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from roiseg.analyze.params import AnalyzeParams
from roiseg.cache.params import CacheParams, ReaderParams
from roiseg.calibrate import CalibrateParams
from roiseg.coco import DataParams
from roiseg.dataset import DatasetParams
from roiseg.distill.params import DistillParams
from roiseg.errors import ParamsError
from roiseg.evaluate.params import EvaluateParams
from roiseg.export.params import ExportParams
from roiseg.extractor.params import ExtractorParams
from roiseg.heads import parse_model
from roiseg.losses import LossParams
from roiseg.params import NOBODY, Section, load_sections, nearest, with_preset
from roiseg.rgb import NAME, PARTS, rgb_values
from roiseg.sample.params import SampleParams
from roiseg.sampler import SamplerParams
from roiseg.shares import check_padding
from roiseg.snapper.checks import check_model, snap_training, snapper_layers
from roiseg.snapper.params import SnapperParams
from roiseg.train.params import TrainParams
from roiseg.train.phases import resolve_phases
from roiseg.train.tensorboard import WatchParams
from roiseg.types import IMAGE, TEACHER
from roiseg.unet.params import UnetParams, net_training
from roiseg.unet.person_unet_params import check_normalisation, check_start

SECTIONS: Mapping[str, type[Section]] = {
    "sample": SampleParams,
    "data": DataParams,
    "analyze": AnalyzeParams,
    "extractor": ExtractorParams,
    "cache": CacheParams,
    "calibrate": CalibrateParams,
    "reader": ReaderParams,
    "dataset": DatasetParams,
    "sampler": SamplerParams,
    "loss": LossParams,
    "train": TrainParams,
    "watch": WatchParams,
    "evaluate": EvaluateParams,
    "export": ExportParams,
    "unet": UnetParams,
    "distill": DistillParams,
    "snapper": SnapperParams,
}
"""All but `heads`, a list, `model`, whose class depends on the head, and `rgb`, which has those of the others."""


class _Heads(Section):
    heads: tuple[str, ...] = Field(min_length=1)


def check_params(values: Mapping[str, Any]) -> None:
    """Check the whole params file, and every head's preset laid over it.

    Args:
        values: params.yaml as plain values.

    Raises:
        ParamsError: every fault of every section, in one message.
    """
    faults: list[str] = []

    def attempt(check: Any, *arguments: Any) -> None:  # noqa: ANN401 - any of the checks
        try:
            check(*arguments)
        except ParamsError as error:
            faults.extend(line.strip() for line in str(error).splitlines() if not line.endswith("in the params:"))

    known = {*SECTIONS, "heads", "model", NAME}
    faults += [f"{name}: unknown section; {nearest(name, known)}" for name in values if name not in known]
    attempt(load_sections, values, SECTIONS)
    attempt(_Heads.parse, {"heads": values.get("heads")}, "params.yaml")
    attempt(_check_layers, values)
    attempt(_check_nets, values)
    attempt(_check_rgb, values)
    attempt(_check_snapper, values)
    heads = values.get("heads")
    named = [item for item in heads if isinstance(item, str)] if isinstance(heads, list) else []
    for head in named:
        attempt(_check_preset, values, head)
        attempt(_check_shares, values, head)
    attempt(lambda: _check_teacher(_teacher_of(values), [with_preset(values, head) for head in named]))
    lines = list(dict.fromkeys(faults))
    if lines:
        raise ParamsError(f"{len(lines)} fault{'s' * (len(lines) > 1)} in the params:\n  " + "\n  ".join(lines))


def _check_preset(values: Mapping[str, Any], head: str) -> None:
    merged = with_preset(values, head)
    load_sections(merged, {name: SECTIONS[name] for name in ("dataset", "sampler", "loss", "train", "evaluate", "export")})
    try:
        _check_layers(merged)
    except ParamsError as error:
        if merged["model"] == values.get("model"):
            raise  # told with the section itself
        raise ParamsError("\n".join(f"heads: preset {head!r}: {line}" for line in str(error).splitlines())) from error
    _check_phases(merged)
    _check_export(merged)


KEEPING = frozenset({"resume_from", "additional_epochs", "extend_policy"})
"""Keys of `train` about kept runs, see `roiseg.train.keep`."""


def _check_nets(values: Mapping[str, Any]) -> None:
    """The nets' sections within themselves, and that what they read is stored."""
    try:
        unet, distill = UnetParams.parse(values.get("unet"), "unet"), DistillParams.parse(values.get("distill"), "distill")
        extracted = ExtractorParams.parse(values.get("extractor"), "extractor").layers
    except ParamsError:
        return  # told with their sections
    if unet.train is not None:
        net_training(unet.train, "unet.train")
    net_training(distill.train, "distill.train")
    distill.check()
    for name, model, later in (("unet", unet.model, False), ("distill", distill.model, distill.unfreeze is not None)):
        check_start(model, f"{name}.model", unfrozen_later=later)
        check_normalisation(model, f"{name}.model")
    unknown = [name for name in (distill.features.layers if distill.features else ()) if name not in extracted]
    if unknown:
        raise ParamsError(
            "\n".join(
                f"distill.features.layers: {name!r} isn't in extractor.layers; {nearest(name, extracted)}" for name in unknown
            )
            + "\nor set distill.features to null and distill.loss.feature to 0"
        )


def _check_rgb(values: Mapping[str, Any]) -> None:
    """Section `rgb`, whose faults are told with its own path."""
    merged = rgb_values(values)
    try:
        load_sections(merged, {name: SECTIONS[name] for name in PARTS if name != "model"})
        model = parse_model(merged["model"])
        resolve_phases(TrainParams.parse(merged["train"], "train"), model, LossParams.parse(merged["loss"], "loss"))
        _check_teacher(merged["train"]["distill_from"], [merged])
    except ParamsError as error:
        lines = [line.strip() for line in str(error).splitlines() if not line.endswith("in the params:")]
        raise ParamsError("\n".join(f"{NAME}.{line}" for line in lines)) from error
    idle = sorted(KEEPING & set(values[NAME].get("train", {})))
    if idle:
        raise ParamsError("\n".join(f"{NAME}.train.{name}: runs of this head can't be kept yet; take it out" for name in idle))
    if "detector" in merged["export"]["end_to_end"]:
        raise ParamsError(
            f"{NAME}.export.end_to_end: 'detector' is there, but this head goes without one; expected boxes alone, or []"
        )
    unknown = [name for name in model.layers if name not in (IMAGE, TEACHER)]
    if unknown:
        raise ParamsError(
            f"{NAME}.model.layers: {', '.join(unknown)}; expected {IMAGE}, and {TEACHER} or not: this head goes without the "
            "detector; one that reads it belongs into `model`"
        )


def _check_snapper(values: Mapping[str, Any]) -> None:
    """Section `snapper` within itself, and that what it reads is stored."""
    try:
        snapper = SnapperParams.parse(values.get("snapper"), "snapper")
    except ParamsError:
        return  # told with the section
    faults: list[str] = []
    for check in (
        lambda: snap_training(snapper.train),
        lambda: check_model(snapper.model),
        lambda: _check_stored(values, "snapper.model", snapper_layers(snapper.model)),
    ):
        try:
            check()
        except ParamsError as error:
            faults += str(error).splitlines()
    if faults:
        raise ParamsError("\n".join(faults))


def _check_teacher(named: str, learners: Sequence[Mapping[str, Any]]) -> None:
    """That some head learns from `train.distill_from`, where that names a teacher."""
    if named != NOBODY and learners and not any(_is_taught(values) for values in learners):
        raise ParamsError(
            f"train.distill_from: value is {named!r}, but no head has a loss.distill to learn by; give it one, or set distill_from "
            f"to {NOBODY!r}"
        )


def _teacher_of(values: Mapping[str, Any]) -> str:
    return TrainParams.parse(values.get("train"), "train").distill_from


def _is_taught(values: Mapping[str, Any]) -> bool:
    """Whether the loss of a head, or of a phase of it, has a teacher."""
    train = TrainParams.parse(values.get("train"), "train")
    losses = [values.get("loss"), *(phase.loss for phase in train.phases)]
    return any(isinstance(loss, Mapping) and loss.get("distill") is not None for loss in losses)


def _check_export(values: Mapping[str, Any]) -> None:
    """That the detector has the boxes that are to be exported."""
    try:
        extractor = ExtractorParams.parse(values.get("extractor"), "extractor")
    except ParamsError:
        return  # told with its section
    ExportParams.parse(values.get("export"), "export").check_detections(extractor.detections)


def _check_phases(values: Mapping[str, Any]) -> None:
    """The models and losses of `train.phases`."""
    train, loss = TrainParams.parse(values.get("train"), "train"), LossParams.parse(values.get("loss"), "loss")
    for phase, model, _ in resolve_phases(train, parse_model(values.get("model") or {}), loss):
        if phase is not None:
            _check_layers({**values, "model": json.loads(model.model_dump_json())})


def _check_shares(values: Mapping[str, Any], head: str) -> None:
    """That what a head's sampler goes by is measured on the ROIs that it draws."""
    try:
        merged = with_preset(values, head)
        sampler = SamplerParams.parse(merged.get("sampler"), "sampler")
        drawn, shared = (DatasetParams.parse(part.get("dataset"), "dataset").roi_padding for part in (merged, values))
        measured = AnalyzeParams.parse(values.get("analyze"), "analyze").padding
    except ParamsError:
        return  # told with its section
    if sampler.needs_shares:
        check_padding(shared if measured is None else measured, drawn)


def _check_layers(values: Mapping[str, Any]) -> None:
    """The model, and that what it reads is extracted: a slip that would otherwise show after `extract`."""
    model = parse_model(values.get("model") or {})
    _check_stored(values, "model", model.layers)


def _check_stored(values: Mapping[str, Any], where: str, layers: Sequence[str]) -> None:
    """That layers which `{where}.layers` names, or stands for, are extracted."""
    try:
        extracted = ExtractorParams.parse(values.get("extractor"), "extractor").layers
        stored = CacheParams.parse(values.get("cache"), "cache").image
    except ParamsError:
        return  # told with their sections
    if IMAGE in layers and not stored:
        raise ParamsError(
            f"{where}.layers: {IMAGE!r} is there and cache.image is false; set cache.image to true and run `dvc repro extract`, so "
            "that it is stored"
        )
    unknown = [name for name in layers if name not in extracted and name != IMAGE]
    if unknown:
        raise ParamsError(
            "\n".join(
                f"{where}.layers: {name!r} isn't in extractor.layers; "
                + (f"only section {NAME} reads it" if name == TEACHER else nearest(name, extracted))
                for name in unknown
            )
        )
