"""Small nets of people, and folders in which their stages run."""

import functools
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from person_unet_factory import bare_net
from store_factory import Project, cache_params, extractor_params, shared_views
from sudden_end import Fate, Place, SuddenEnd
from torch import Tensor, nn

from roiseg.cache.params import ReaderParams
from roiseg.distill.distill import build_student
from roiseg.distill.params import DistillParams
from roiseg.distill.task import DistillTask
from roiseg.export.net_onnx import as_backbone, export_net
from roiseg.files import write_bytes
from roiseg.onnx_names import BACKBONE_FILE
from roiseg.params import NOTHING_KEPT, overlay
from roiseg.stored import StoredSections
from roiseg.types import HW, IMAGE, TEACHER, StoredType
from roiseg.unet.data import PersonDataset
from roiseg.unet.params import UnetParams
from roiseg.unet.person_unet import PersonUnet, build_person_unet
from roiseg.unet.teacher import write_teacher
from roiseg.unet.train import open_people

NETWORK_HW = (64, 96)
"""Size of the cached images of `store_factory`."""

MODEL: Mapping[str, Any] = {
    "encoder": "timm-efficientnet-b0",
    "encoder_weights": "none",
    "checkpoint": NOTHING_KEPT,
    "freeze_encoder": False,
    "input_hw": [32, 64],
    "decoder_channels": [16, 8, 8, 4, 4],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}

TRAIN: Mapping[str, Any] = {
    "epochs": 3,
    "images_per_batch": 2,
    "lr": 0.02,
    "average_decay": 0.5,
    "clip_norm": 5.0,
    "device": "cpu",
}

EXPORT: Mapping[str, Any] = {"opset": 18, "tolerance": 1e-3, "images": 3, "variants": []}

UNET: Mapping[str, Any] = {
    "model": MODEL,
    "augment": "light",
    "loss": {"bce": 0.5, "dice": 1.0, "pos_weight": "sqrt"},
    "train": TRAIN,
    "export": EXPORT,
}

FEATURES: Mapping[str, Any] = {
    "layers": {"layer_34": 3},
    "hidden": 8,
    "form": "mse",
    "clamp": None,
    "choose": False,
    "attention": False,
    "adapt": False,
}

DISTILL: Mapping[str, Any] = {
    "model": MODEL,
    "augment": "heavy",
    "loss": {"kl": 1.0, "mse": 0.1, "bce": 0.5, "dice": 1.0, "feature": 0.5, "pos_weight": 2.0},
    "temperature": {"start": 3.0, "end": 1.0, "curve": "cosine"},
    "features": FEATURES,
    "unfreeze": None,
    "staged": None,
    "eliminate": None,
    "train": TRAIN,
    "export": EXPORT,
}


@contextmanager
def narrow_encoders() -> Iterator[None]:
    """EfficientNets of a quarter of the widths and depth: of the same parts and names, at a hundredth of the price."""
    with pytest.MonkeyPatch.context() as patch:
        for name, depth in (("b0", 0.25), ("b1", 0.5)):
            known = smp.encoders.encoders[f"timm-efficientnet-{name}"]
            widths = [3, 8, 8, 16, 32, 80]  # of the maps, in whole eights
            narrow = {**known["params"], "out_channels": widths, "channel_multiplier": 0.25, "depth_multiplier": depth}
            patch.setitem(known, "params", narrow)
        yield


def unet_section(**changes: Any) -> UnetParams:  # noqa: ANN401 - values of a section
    """Section `unet`, with changes laid over `UNET`."""
    return UnetParams.parse(overlay(UNET, changes), "unet")


def distill_section(**changes: Any) -> DistillParams:  # noqa: ANN401 - values of a section
    """Section `distill`, with changes laid over `DISTILL`."""
    return DistillParams.parse(overlay(DISTILL, changes), "distill")


def stored_sections(dtype: StoredType = "int8", **cache: object) -> StoredSections:
    """Sections of the stores of `shared_views`; `cache` replaces values of that section."""
    reader = ReaderParams(decode_threads=1, load_threads=2, ahead=2, concurrent_runs=1, checksums=True)
    return StoredSections(
        extractor_params(), cache_params(dtype, **{"views": ["plain", "mirrored"], "image": True, **cache}), reader
    )


def teacher_net(seed: int = 0) -> PersonUnet:
    """A net of another encoder and input than the student's, whose norms have seen images: its logits are all kinds."""
    torch.manual_seed(seed)
    model = unet_section(model={"encoder": "timm-efficientnet-b1", "input_hw": [64, 64]}).model
    net = build_person_unet(model, NETWORK_HW, where="unet.model").train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.rand(4, 1, 1, 1) * torch.rand(4, 3, *NETWORK_HW))
    return net.eval()


def shared_teacher(folders: pytest.TempPathFactory, *, real: bool = True) -> tuple[Project, Path]:
    """A project that holds images and mirrored features, and a folder with the teacher's `backbone.onnx` and its stores.

    Args:
        folders: of the tests.
        real: whether the teacher is `teacher_net`, or a graph that says more of a person where there is more red, which costs no
            export.
    """
    project, root = shared_views(folders), folders.getbasetemp() / ("taught" if real else "taught_simply")
    _teach(root, project.root, real=real)
    return project, root


@functools.cache
def _teach(root: Path, features: Path, *, real: bool) -> None:
    root.mkdir()
    with narrow_encoders(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        link_project(root, Project(features, "int8", {}))
        model = export_net(teacher_net(), 18, {}, root / "net.onnx").model if real else bare_net(4.0, NETWORK_HW)
        backbone = as_backbone(model, TEACHER, extractor_params())
        write_bytes(root / BACKBONE_FILE, backbone.SerializeToString(deterministic=True))
        for split in ("train", "val"):
            write_teacher(split, root / BACKBONE_FILE, stored_sections())


def link_project(root: Path, project: Project, taught: Path | None = None) -> None:
    """Links in a folder to what the stages of nets read.

    Args:
        root: the folder.
        project: with index and features.
        taught: folder of `shared_teacher`, whose stores are read; None for none.
    """
    (root / "data").mkdir()
    (root / "data" / "index").symlink_to(project.index)
    (root / "data" / "features").symlink_to(project.features)
    if taught is not None:
        (root / "data" / TEACHER).symlink_to(taught / "data" / TEACHER)


def task_of(params: DistillParams, dataset: Callable[[str], PersonDataset], pos_weight: float = 2.0) -> DistillTask:
    """What a student learns, without a stage about it.

    Args:
        params: section `distill`.
        dataset: of a split.
        pos_weight: of the cross entropy.
    """
    train, val = dataset("train"), dataset("val")
    build = functools.partial(build_student, params, NETWORK_HW, train.store.specs)
    return DistillTask(build, params, pos_weight, (train, val), (), 0.01)


def people_of(params: DistillParams, split: str) -> PersonDataset:
    """A split of the project that the working folder links to, as `distill` opens it."""
    layers = [IMAGE, *(params.features.layers if params.features else ()), TEACHER]
    return open_people(stored_sections(), split, layers, params.model, teacher=True)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a run but claims, which are empty, and of nothing that it only read."""
    found = (path for top in folder.iterdir() if top.name != "data" for path in (top, *top.rglob("*")))
    files = sorted(path for path in found if path.is_file() and path.name != "claim")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run_until_done(stage: Callable[[], object], watched: type[nn.Module], places: Collection[Place] = ()) -> Fate:
    """Run a stage, each time in a process that goes on where the last one ended.

    Args:
        stage: what is run.
        watched: class of what learns.
        places: ends of processes.
    """
    fate = Fate(watched, places)
    while True:
        with fate.process():
            try:
                stage()
            except SuddenEnd:
                continue
            return fate


def min_hw(one: Tensor, other: Tensor) -> HW:
    """The coarser of two grids."""
    return min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])


def area_mean(x: Tensor, hw: HW) -> Tensor:
    """(N, C, H, W) -> (N, C, *hw): each cell cut into so many that whole ones make a new one."""
    for axis, size in zip((2, 3), hw, strict=True):
        cut = x.repeat_interleave(size, dim=axis)
        x = cut.reshape(*cut.shape[:axis], size, -1, *cut.shape[axis + 1 :]).mean(axis + 1)
    return x
