"""The `unet` stage: cached images to a net that tells people from background."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from roiseg.batches import Loading
from roiseg.cache.params import ReaderParams
from roiseg.errors import ParamsError
from roiseg.evaluate.overlays import write_png
from roiseg.evaluate.pictures import load_fixed
from roiseg.files import new_folder, sha256_file
from roiseg.params import NOTHING_KEPT
from roiseg.stored import StoredSections
from roiseg.train.checkpoint import BEST, Checkpoint, load_checkpoint, save_checkpoint
from roiseg.train.log import Observer, write_live
from roiseg.train.params import TrainParams
from roiseg.train.run import Phase, Run
from roiseg.train.stage import Outs, hash_index, stores_of, train_run
from roiseg.train.world import make_fabric
from roiseg.trained import INDEX, load_weights
from roiseg.types import HW, IMAGE
from roiseg.unet.data import PersonDataset, person_share
from roiseg.unet.params import UnetParams, net_training
from roiseg.unet.person_loss import PersonLoss, pos_weight_of
from roiseg.unet.person_unet import PersonUnet, build_person_unet
from roiseg.unet.person_unet_params import UnetModelParams
from roiseg.unet.task import NetTask

MODELS, LIVE = Path("models/unet"), Path("metrics/train/unet")
WHERE = "unet"


def open_people(
    stored: StoredSections, split: str, layers: Sequence[str], model: UnetModelParams, *, teacher: bool = False
) -> PersonDataset:
    """Whole images of a split.

    Args:
        stored: sections of the store.
        split: `train` or `val`.
        layers: that are read.
        model: of the net; its input is as large as the masks.
        teacher: whether a layer is the teacher's.

    Raises:
        StoreError, StoreMismatchError, StoreDamagedError: see `FeatureStore`.
    """
    index, store = stored.open(split, teacher=teacher)
    return PersonDataset(index, store, layers, model.input_hw)


def start_files(model: UnetModelParams) -> dict[str, str]:
    """Files that a net's weights start from and their SHA-256, for a fingerprint."""
    return {key: sha256_file(Path(path)) for key, path in model.start_paths.items() if Path(path).is_file()}


def train_unet(params: UnetParams, stored: StoredSections, observers: Sequence[Observer] = ()) -> PersonUnet:
    """Train the net, going on where an earlier run was cut short; or take it as it is where `unet.train` is null.

    Args:
        params: section `unet`.
        stored: sections of the store.
        observers: told of each epoch.

    Returns:
        The best one, in eval mode, on the CPU.

    Raises:
        ParamsError: nothing to be trained, and no checkpoint either; or an encoder without weights that never learns.
        CheckpointError: weights to start from that can't be used.
        StoreMismatchError: the store has no images.
        TrainingError: see `Trainer`.
    """
    train, val = (open_people(stored, split, [IMAGE], params.model) for split in ("train", "val"))
    hw = stored.extractor.input_hw
    build = partial(build_person_unet, params.model, hw, where=f"{WHERE}.model")
    pos_weight = 1.0 if params.train is None else measured_weight(params.loss.pos_weight, train)
    task = NetTask(
        build,
        PersonLoss(params.loss.bce, params.loss.dice, pos_weight),
        train,
        val,
        params.augment,
        load_fixed(INDEX / "val" / "pictures", val),
    )
    described = {WHERE: json.loads(params.model_dump_json(exclude={"export"})), "image_hw": list(hw)}
    if params.train is None:
        _publish_given(task, params, stored, described)
    else:
        training = net_training(params.train, f"{WHERE}.train")
        net_run("unet", task, training, stored.reader, described, {"start": start_files(params.model)}, observers)
    return load_unet(MODELS / BEST, params.model, hw)


def measured_weight(choice: float | Literal["measured", "sqrt"], train: PersonDataset) -> float:
    """Weight of a person's pixel; images are counted only where it depends on them.

    Args:
        choice: `loss.pos_weight` of a net's section.
        train: training split.

    Raises:
        AnnotationError: see `pos_weight_of`.
    """
    if not isinstance(choice, str):
        return pos_weight_of(choice, 1, 1)
    background, people = person_share(train)
    return pos_weight_of(choice, people, background)


def net_run(
    stage: str,
    task: NetTask,
    training: TrainParams,
    reader: ReaderParams,
    described: Mapping[str, Any],
    further: Mapping[str, Any],
    observers: Sequence[Observer],
) -> None:
    """Train a net as a stage: `models/{stage}` and `metrics/train/{stage}`.

    Args:
        stage: its name.
        task: what is learnt.
        training: keys of `train`.
        reader: section `reader`.
        described: sections as plain values, kept in every checkpoint.
        further: what else shapes the outcome.
        observers: told of each epoch.
    """
    fabric = make_fabric(training)
    fabric.launch()
    whole = {**described, "train": json.loads(training.model_dump_json())}
    run = Run([Phase(None, None, task, whole)], training, reader)
    fingerprint = {"params": whole, "stores": stores_of(task), "index": hash_index(INDEX), **further}
    models = Path("models") / stage
    outs = Outs(models, Path("metrics/train") / stage, (models / BEST,))
    train_run(stage, run, fingerprint, outs, fabric, observers)


def _publish_given(task: NetTask, params: UnetParams, stored: StoredSections, described: Mapping[str, Any]) -> None:
    """The checkpoint that was given, judged once and written as a run of no epoch."""
    if params.model.checkpoint == NOTHING_KEPT:
        raise ParamsError(
            f"{WHERE}.train is null, so that the net is taken as it is, but {WHERE}.model.checkpoint is {NOTHING_KEPT!r}; name the "
            f"file of a trained net there, or give {WHERE}.train its keys ({{}} for the published ones)"
        )
    net = task.build().eval()
    loading = Loading(4, stored.reader.load_threads, stored.reader.ahead)
    figures = task.figures([task.score(net, torch.device("cpu"), loading)])
    spec = task.train.store.specs[IMAGE]
    state = net.state_dict()
    checkpoint = Checkpoint(
        epoch=0,
        model=state,
        live={},
        optimizer={},
        scaler={},
        rng={},
        loss=[],
        params=described,
        layers={IMAGE: [spec.channels, *spec.stride_hw]},
        fingerprint=task.train.store.asked,
        metrics=figures,
        best=figures[task.lead],
        rate=0.0,
        rows=[],
    )
    with new_folder(MODELS) as aside:
        save_checkpoint(aside / BEST, checkpoint)
    with new_folder(LIVE) as aside:
        write_live([{"epoch": 0, **figures}], aside)
        picture = task.draw(net, torch.device("cpu"), f"as given: {task.lead} {figures[task.lead]:.4f}")
        (aside / "pictures").mkdir()
        if picture is not None:
            write_png(aside / "pictures" / "validation_all_images_epoch_0000.png", picture)


def load_unet(path: Path, model: UnetModelParams, image_hw: HW) -> PersonUnet:
    """A trained net in eval mode, on the CPU.

    Args:
        path: checkpoint of roiseg.
        model: what it is.
        image_hw: size of the images that it will be given.

    Raises:
        CheckpointError: it isn't there, or is of another net.
    """
    return load_unet_weights(load_checkpoint(path).model, path, model, image_hw)


def load_unet_weights(weights: Mapping[str, Tensor], path: Path, model: UnetModelParams, image_hw: HW) -> PersonUnet:
    """A net with given weights, in eval mode, on the CPU.

    Args:
        weights: by the names of `PersonUnet`.
        path: where they come from, for messages.
        model: what it is.
        image_hw: size of the images that it will be given.

    Raises:
        CheckpointError: they are of another net.
    """
    net = build_person_unet(model, image_hw, where=WHERE, weights=False)
    load_weights(net, weights, path, "give the section `model` of the net that it was trained with, or train it again")
    return net.eval()
