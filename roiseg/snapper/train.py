"""The `snapper_train` stage: stored maps and boxes of any category to a model that snaps rough boxes."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from roiseg.evaluate.pictures import load_fixed
from roiseg.files import sha256_file
from roiseg.snapper.build import build_snapper, load_snapper
from roiseg.snapper.checks import WHERE, check_model, snap_training
from roiseg.snapper.loss import SnapLoss
from roiseg.snapper.params import CropModelParams, SnapModelParams, SnapperParams
from roiseg.snapper.split import MODELS, open_boxes
from roiseg.snapper.task import SnapTask
from roiseg.snapper.weights import IMAGENET, NO_WEIGHTS
from roiseg.stored import StoredSections
from roiseg.train.checkpoint import BEST
from roiseg.train.log import Observer
from roiseg.train.run import Phase, Run
from roiseg.train.stage import Outs, hash_index, stores_of, train_run
from roiseg.train.world import make_fabric
from roiseg.trained import INDEX

LIVE = Path("metrics/train/snapper")
STAGE = "snapper_train"


def train_snapper(params: SnapperParams, stored: StoredSections, observers: Sequence[Observer] = ()) -> nn.Module:
    """Train the model, going on where an earlier run was cut short.

    Args:
        params: section `snapper`.
        stored: sections of the store.
        observers: told of each epoch.

    Returns:
        The best one, in eval mode, on the CPU.

    Raises:
        ParamsError: see `snap_training` and `check_model`.
        AnnotationError, StoreError, StoreMismatchError, StoreDamagedError: see `open_boxes`.
        CheckpointError: weights to start from that can't be used.
        TrainingError: see `Trainer`.
    """
    training = snap_training(params.train)
    check_model(params.model)
    train, val = (open_boxes(params, stored, split) for split in ("train", "val"))
    hw = stored.extractor.input_hw
    task = SnapTask(
        partial(build_snapper, params.model, train.store.specs, hw),
        SnapLoss(params.loss, params.decision),
        params.decision,
        train,
        val,
        params.model.positions,
        load_fixed(INDEX / "val" / "pictures", val),
    )
    fabric = make_fabric(training)
    fabric.launch()
    described = {WHERE: json.loads(params.model_dump_json(exclude={"train", "export", "confidence"})), "image_hw": list(hw)}
    whole = {**described, "train": json.loads(training.model_dump_json())}
    run = Run([Phase(None, None, task, whole)], training, stored.reader)
    objects = {dataset.objects.path.name: sha256_file(dataset.objects.path) for dataset in (train, val)}
    fingerprint = {
        "params": whole,
        "stores": stores_of(task),
        "index": hash_index(INDEX),
        "objects": objects,
        "start": start_files(params.model),
    }
    train_run(STAGE, run, fingerprint, Outs(MODELS, LIVE, (MODELS / BEST,)), fabric, observers)
    return load_snapper(MODELS / BEST, params.model, train.store.specs, hw)


def start_files(model: SnapModelParams) -> dict[str, str]:
    """The file that weights start from and its SHA-256, for a fingerprint; none for most."""
    if not isinstance(model, CropModelParams) or model.weights in (IMAGENET, NO_WEIGHTS):
        return {}
    return {"weights": sha256_file(Path(model.weights))} if Path(model.weights).is_file() else {}
