"""The `distill` stage: cached images, the teacher's logits and the detector's maps to a small net."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from roiseg.distill.features import FeatureAlignment
from roiseg.distill.params import DistillParams
from roiseg.distill.student import Student
from roiseg.distill.task import DistillTask
from roiseg.errors import CheckpointError
from roiseg.evaluate.pictures import load_fixed
from roiseg.stored import StoredSections
from roiseg.train.checkpoint import BEST, load_checkpoint
from roiseg.train.log import Observer
from roiseg.trained import INDEX
from roiseg.types import HW, IMAGE, TEACHER, FeatureSpec
from roiseg.unet.data import PersonDataset
from roiseg.unet.params import net_training
from roiseg.unet.person_unet import PersonUnet, build_person_unet
from roiseg.unet.train import load_unet_weights, measured_weight, net_run, open_people, start_files

MODELS, LIVE = Path("models/distill"), Path("metrics/train/distill")
WHERE = "distill"


def distill(params: DistillParams, stored: StoredSections, observers: Sequence[Observer] = ()) -> PersonUnet:
    """Train the student, going on where an earlier run was cut short.

    Args:
        params: section `distill`.
        stored: sections of the feature store.
        observers: told of each epoch.

    Returns:
        The best one without what is there only for training, in eval mode, on the CPU.

    Raises:
        ParamsError: sub-sections that contradict each other, layers that aren't stored, or a net that can't be.
        CheckpointError: weights to start from that can't be used.
        StoreMismatchError: the store has no images.
        StoreError: the teacher's store isn't there.
        TrainingError: see `Trainer`.
    """
    params.check()
    layers = [IMAGE, *([] if params.features is None else params.features.layers), TEACHER]
    train, val = (open_people(stored, split, layers, params.model, teacher=True) for split in ("train", "val"))
    training = net_training(params.train, f"{WHERE}.train")
    task = make_task(params, (train, val), stored.extractor.input_hw, training.weight_decay)
    described = {WHERE: json.loads(params.model_dump_json(exclude={"export"})), "image_hw": list(stored.extractor.input_hw)}
    net_run(WHERE, task, training, stored.reader, described, {"start": start_files(params.model)}, observers)
    return load_student(MODELS / BEST, params, stored.extractor.input_hw)


def make_task(params: DistillParams, splits: tuple[PersonDataset, PersonDataset], image_hw: HW, weight_decay: float) -> DistillTask:
    """What the student learns.

    Args:
        params: section `distill`.
        splits: train and val, with the layers that are read.
        image_hw: size of the images.
        weight_decay: of `distill.train`.

    Raises:
        AnnotationError: see `pos_weight_of`.
    """
    train, val = splits
    fresh = partial(build_student, params, image_hw, train.store.specs)
    fixed = load_fixed(INDEX / "val" / "pictures", val)
    return DistillTask(fresh, params, measured_weight(params.loss.pos_weight, train), splits, fixed, weight_decay)


def build_student(params: DistillParams, image_hw: HW, specs: Mapping[str, FeatureSpec]) -> Student:
    """A student with the weights that it starts from.

    Args:
        params: section `distill`.
        image_hw: size of the images that it will be given.
        specs: layers of the store.

    Raises:
        ParamsError, CheckpointError: see `build_person_unet` and `FeatureAlignment`.
    """
    net = build_person_unet(params.model, image_hw, where=f"{WHERE}.model", unfrozen_later=params.unfreeze is not None)
    if params.features is None:
        return Student(net, None)
    wanted = set(params.features.layers.values())
    detector = [spec for name, spec in specs.items() if name not in (IMAGE, TEACHER)]
    return Student(net, FeatureAlignment(params.features, detector, {index: net.tap_channels(index) for index in wanted}))


def load_student(path: Path, params: DistillParams, image_hw: HW) -> PersonUnet:
    """A distilled net in eval mode, on the CPU.

    Args:
        path: checkpoint of roiseg.
        params: section `distill`.
        image_hw: size of the images that it will be given.

    Raises:
        CheckpointError: it isn't there, or is of another net.
    """
    weights: Mapping[str, Any] = load_checkpoint(path).model
    own = {name.removeprefix("net."): value for name, value in weights.items() if name.startswith("net.")}
    if not own:
        raise CheckpointError(f"{path}: holds no student; name a file of models/distill, or run `dvc repro distill`")
    return load_unet_weights(own, path, params.model, image_hw)
