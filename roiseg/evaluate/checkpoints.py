"""Any checkpoint, evaluated: the head is rebuilt from the params that the checkpoint itself holds (spec 15.3)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import nn

from roiseg.batches import Loading
from roiseg.cache.params import ReaderParams
from roiseg.coco import DataParams
from roiseg.dataset import RoiDataset
from roiseg.errors import CheckpointError, ParamsError, ProviderError, RoisegError
from roiseg.evaluate.chosen import ALL, ChosenRows, SplitFiles, chosen_ids, only, only_detections
from roiseg.evaluate.evaluate import DIGITS, EvaluatePaths, Trained, evaluate
from roiseg.evaluate.params import EvaluateParams
from roiseg.evaluate.split_losses import TRAINING_ONLY, own_loss, split_losses
from roiseg.extractor.params import ExtractorParams
from roiseg.files import write_json
from roiseg.heads.base import HeadParams
from roiseg.index import Index
from roiseg.losses import LossParams, check_outputs
from roiseg.params import load_section
from roiseg.preset import Override, flow, with_overrides
from roiseg.previews import PREVIEWS_FILE
from roiseg.train.checkpoint import BEST, Checkpoint, differing, load_checkpoint
from roiseg.trained import HeadSections, checkpoint_file, with_weights

OWN = ("dataset", "sampler", "model", "loss", "train")
"""Sections that a checkpoint holds; all others are those of params.yaml."""

SETTABLE = ("dataset", "evaluate", "loss", "model", "reader")
"""Sections that a change has an effect in: neither the data nor what was learnt is made anew."""

FILED = {"val": "validation", "train": "train"}
"""How files of figures name the splits."""

STATISTICS, DETECTIONS = Path("metrics/data_analyze.json"), Path("data/detections")
CHECKPOINTS = "checkpoints"

FIGURES = ("loss_total", "loss_ce", "loss_dice", "miou_fg_roi", "iou_target_roi", "iou_nontarget_roi", "iou_bg")
"""What is told of every checkpoint."""

TITLES = ("loss", "CE", "Dice", *FIGURES[3:])

UNTOLD = ("head", "layers", "blocks")
"""Keys of section `model` that `active_features` has told, or that no head is without."""

Sections = tuple[HeadSections, LossParams, EvaluateParams]


class Chosen(NamedTuple):
    """Some images of a split.

    Attributes:
        ids: theirs, in the order of the index.
        place: folder for files of them alone.
    """

    ids: list[int]
    place: Path


@dataclass(frozen=True)
class Asked:
    """How checkpoints are evaluated.

    Attributes:
        values: params.yaml as plain values.
        overrides: changes to the params of each checkpoint.
        split: `train` or `val`.
        images: how many of it, or which; see `roiseg.evaluate.chosen.parse_images`.
        device: where the heads run.
        out: folder for a folder of each checkpoint.
        pictures: whether images and ROIs are drawn; there are none of train.
    """

    values: Mapping[str, Any]
    overrides: Sequence[Override]
    split: str
    images: int | str
    device: torch.device
    out: Path
    pictures: bool

    def __post_init__(self) -> None:
        for override in self.overrides:
            section, _, key = override.key.partition(".")
            if section not in SETTABLE or not key or override.key == "evaluate.checkpoint":
                raise ParamsError(
                    f"--set {override.key}: without effect on how a checkpoint is evaluated, expected a key of "
                    f"{', '.join(SETTABLE)}, such as dataset.roi_padding=0.1; data and features are those that `dvc repro` made of "
                    "params.yaml, and the checkpoint is named by its file"
                )

    @property
    def suffix(self) -> str:
        """End of the names of results, so that those of some images or of train don't replace those of all of val."""
        return f"-{self.split}" * (self.split != "val") + f"-{self.images}" * (self.images != ALL)

    @property
    def changes(self) -> str:
        """The overrides as they are spelled, behind a comma; empty without any."""
        spelled = (f"~{item.key}" if item.removed else f"{item.key}={flow(item.value)}" for item in self.overrides)
        return "".join(f", {text}" for text in spelled)


@dataclass(frozen=True)
class Evaluated:
    """What came of a checkpoint.

    Attributes:
        file: it.
        name: of its results.
        epoch: that it was saved after.
        features: family of the head and what is switched on in it.
        left_out: terms of its loss that only training has.
        figures: all of them, flat.
        on: split, and changes to its params.
        folder: with its results.
    """

    file: Path
    name: str
    epoch: int
    features: str
    left_out: Sequence[str]
    figures: Mapping[str, float]
    on: str
    folder: Path

    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        told = dict(zip(TITLES, _told(self.figures), strict=True))
        losses, ious = TITLES[:3], TITLES[3:]
        told["loss"] += f" (without {', '.join(self.left_out)})" * bool(self.left_out)
        return [
            f"{self.file}: epoch {self.epoch}, {self.features}",
            f"  {int(self.figures['images'])} images, {int(self.figures['rois'])} ROIs of {self.on}",
            "  " + ", ".join(f"{title} {told[title]}" for title in losses),
            "  " + ", ".join(f"{title} {told[title]}" for title in ious),
            f"  {self.folder}",
        ]


@dataclass(frozen=True)
class Failed:
    """A checkpoint that couldn't be evaluated.

    Attributes:
        file: it.
        error: why.
    """

    file: Path
    error: RoisegError


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` made definite.

    Raises:
        ProviderError: CUDA was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ProviderError("--device is 'cuda', but torch finds no CUDA device here; use 'auto' or 'cpu'")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def result_names(files: Sequence[Path]) -> list[str]:
    """A name for the results of each checkpoint: its head, its file, and as many of the folders above as tell it from the others.

    Args:
        files: such as `models/heads/default/checkpoints/checkpoint_epoch_0004_56x56_4260.pth`, no two of them the same.
    """
    parts = [[part for part in path.resolve().with_suffix("").parts[1:] if part != CHECKPOINTS] for path in files]
    names = ["-".join(part[-2:]) for part in parts]
    depth = 2
    while len(set(names)) < len(names) and depth < max(map(len, parts)):
        depth += 1
        names = ["-".join(part[-depth:]) if names.count(name) > 1 else name for name, part in zip(names, parts, strict=True)]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names, start=1)]


def evaluate_checkpoints(paths: Sequence[Path], asked: Asked) -> Iterator[Evaluated | Failed]:
    """Each checkpoint in turn; one that fails leaves the others be.

    Args:
        paths: files, or folders of heads, whose `best_model.pth` is meant.
        asked: how.

    Raises:
        ParamsError, AnnotationError: a fault that all of them would have.
    """
    data = load_section(DataParams, "data", asked.values)
    extractor = load_section(ExtractorParams, "extractor", asked.values)
    files = SplitFiles.of(asked.split, data)
    ids = chosen_ids(asked.images, files, Index(files.index, extractor.input_hw, extractor.resize))
    named = list({path.resolve(): path for path in (path / BEST if path.is_dir() else path for path in paths)}.values())
    with TemporaryDirectory(prefix="roiseg-") as place:
        read = files if ids is None else only(files, ids.tolist(), Path(place))
        for file, name in zip(named, result_names(named), strict=True):
            try:
                yield _evaluate(file, name + asked.suffix, asked, read, None if ids is None else Chosen(ids.tolist(), Path(place)))
            except RoisegError as error:
                yield Failed(file, error)


def _evaluate(file: Path, name: str, asked: Asked, read: SplitFiles, chosen: Chosen | None) -> Evaluated:
    checkpoint = load_checkpoint(checkpoint_file(file.parent, file.name))
    values = own_values(file, checkpoint, asked)
    sections, loss, params = _sections(file, values, own_values(file, checkpoint, replace(asked, overrides=())))
    dataset = sections.open_split(asked.split)
    check_features(file, checkpoint, dataset)
    detections = detections_of(asked, params)
    if chosen is not None:
        index = Index(read.index, sections.extractor.input_hw, sections.extractor.resize)
        dataset = RoiDataset(index, ChosenRows(dataset.store, chosen.ids), sections.dataset, dataset.layers, dataset.mask_hw)
        detections = only_detections(detections, chosen.ids, chosen.place)
    head = with_weights(checkpoint, file, sections.model, dataset.store.specs).to(asked.device)
    folder = asked.out / name
    paths = paths_in(folder, f"{file.stem}_{FILED[asked.split]}", read, detections, asked.pictures and asked.split == "val")
    losses = _losses(head, dataset, checkpoint, values, loss, params, sections.reader, asked.device)
    trained = Trained(head, name, f"{file.name}, epoch {checkpoint.epoch}{asked.changes}")
    figures = evaluate(trained, dataset, params, sections.reader, paths, device=asked.device) | losses
    write_json(paths.figures, {key: round(float(value), DIGITS) for key, value in figures.items()})
    left_out = [name for name in TRAINING_ONLY if getattr(loss, name) is not None]
    on = f"{asked.split}{asked.changes}"
    return Evaluated(file, name, checkpoint.epoch, active_features(sections.model), left_out, figures, on, folder)


def own_values(file: Path, checkpoint: Checkpoint, asked: Asked) -> dict[str, Any]:
    """Whole params: those of the checkpoint laid over params.yaml, and the changes over both.

    Raises:
        CheckpointError: the checkpoint lacks sections.
        ParamsError: see `with_overrides`.
    """
    lacking = [name for name in OWN if not isinstance(checkpoint.params.get(name), Mapping)]
    if lacking:
        raise CheckpointError(
            f"{file}: its params lack the sections {', '.join(lacking)}, expected {', '.join(OWN)}; train the head again, or go "
            "back to the version that wrote it"
        )
    epochs = checkpoint.params["train"].get("epochs")
    if not isinstance(epochs, int):
        raise CheckpointError(
            f"{file}: train.epochs is {epochs!r} in its params, expected how many the run was to have, for weights of the "
            "loss follow it; train the head again, or go back to the version that wrote it"
        )
    return with_overrides({**asked.values, **{name: checkpoint.params[name] for name in OWN}}, asked.overrides)


def _sections(file: Path, values: Mapping[str, Any], unchanged: Mapping[str, Any]) -> Sections:
    """The sections of `values`; where they are faulty, `unchanged` says whether the changes are to blame or the checkpoint."""
    try:
        return _parsed(values)
    except ParamsError as fault:
        try:
            _parsed(unchanged)
        except ParamsError:
            raise CheckpointError(
                f"{file}: the params that it holds aren't those of today: {fault}\ngive what is missing by --set section.key=value "
                "and take away what is unknown by --set '~section.key'; or train it again"
            ) from fault
        raise


def _parsed(values: Mapping[str, Any]) -> Sections:
    sections, loss = HeadSections.load(values), load_section(LossParams, "loss", values)
    check_outputs(loss, sections.model.head, sections.model.aux_names)
    return sections, loss, load_section(EvaluateParams, "evaluate", values)


def check_features(file: Path, checkpoint: Checkpoint, dataset: RoiDataset) -> None:
    """See that a head reads what it was trained on; layers that it doesn't read may be others.

    Raises:
        CheckpointError: each field that differs, with both values.
    """
    store = dataset.store
    shapes = {name: [store.specs[name].channels, *store.specs[name].stride_hw] for name in dataset.layers}
    keys = ["input", "dtype"]
    if checkpoint.fingerprint.get("layers") == store.asked["layers"]:
        keys += ["graph", "scales"]  # of a network that is cut elsewhere they are others, though its layers are the same
    then, now = (
        {
            "layers": {name: asked.get("layers", {}).get(name) for name in dataset.layers},
            "channels_and_strides": {name: list(sizes.get(name, ())) for name in dataset.layers},
            **{key: asked.get(key) for key in keys},
        }
        for asked, sizes in ((checkpoint.fingerprint, checkpoint.layers), (store.asked, shapes))
    )
    lines = differing(then, now)
    if lines:
        raise CheckpointError(
            f"{file}: was trained on other features than {store.path} holds (then -> now); take the params that it was trained "
            "with and `dvc repro`, or train it again:\n  " + "\n  ".join(lines)
        )


def detections_of(asked: Asked, params: EvaluateParams) -> Path:
    """Boxes of the split: `evaluate.detections` are those of val, unless a change says otherwise."""
    told = any(override.key == "evaluate.detections" for override in asked.overrides)
    return Path(params.detections) if told or asked.split == "val" else DETECTIONS / f"{asked.split}.parquet"


def paths_in(folder: Path, start: str, read: SplitFiles, detections: Path, pictures: bool) -> EvaluatePaths:
    """Files of `evaluate` in a folder of their own.

    Args:
        folder: of the checkpoint.
        start: of the name of the file of figures.
        read: the split.
        detections: boxes of it.
        pictures: whether there are pictures of it, and they are wanted.
    """
    return EvaluatePaths(
        annotations=read.annotations,
        detections=detections,
        pictures=read.index / "pictures" if pictures else None,
        previews=read.index / PREVIEWS_FILE if pictures else None,
        figures=folder / f"{start}_metrics.json",
        plots=folder / "plots",
        curves=folder / "curves",
        results=folder / "results.json",
        detector_results=folder / "results.detector.json",
        table=folder / "rois.parquet",
        report=folder / "report.html",
    )


def _losses(
    head: nn.Module,
    dataset: RoiDataset,
    checkpoint: Checkpoint,
    values: Mapping[str, Any],
    loss: LossParams,
    params: EvaluateParams,
    reader: ReaderParams,
    device: torch.device,
) -> dict[str, float]:
    own = own_loss(loss, checkpoint, _statistics(loss), values["train"]["epochs"])
    seen = checkpoint.loss[0] if checkpoint.loss else {}
    return split_losses(head, dataset, own, loss, seen, device, Loading(params.images_per_batch, reader.load_threads, reader.ahead))


def _statistics(loss: LossParams) -> dict[str, Any]:
    """data_analyze.json, where the loss takes its class weights from it.

    Raises:
        ParamsError: it isn't there.
    """
    mode = loss.class_weights.mode
    if mode in ("none", "manual"):
        return {}
    if not STATISTICS.is_file():
        raise ParamsError(
            f"{STATISTICS}: not there, and loss.class_weights.mode {mode!r} reads it; run `dvc repro analyze`, or "
            "--set loss.class_weights.mode=none"
        )
    return dict(json.loads(STATISTICS.read_text()))


def active_features(model: HeadParams) -> str:
    """Family of a head, its layers, and what is switched on in it."""
    values = json.loads(model.model_dump_json())
    told = ", ".join(_switched_on({key: value for key, value in values.items() if key not in UNTOLD}))
    return f"{model.head} on {'+'.join(model.layers)}" + f"; {told}" * bool(told)


def _switched_on(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        if value is True:
            yield key
        elif isinstance(value, str):
            yield f"{key} {value}"
        elif isinstance(value, Mapping) and value:
            below = ", ".join(_switched_on(value))
            yield key + f" ({below})" * bool(below)


def table(found: Sequence[Evaluated]) -> list[str]:
    """A line for each checkpoint below one of titles, the best first."""
    ranked = sorted(found, key=lambda item: -item.figures.get("miou_fg_roi", 0.0))
    rows = [("checkpoint", "epoch", *TITLES), *((item.name, str(item.epoch), *_told(item.figures)) for item in ranked)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _told(figures: Mapping[str, float]) -> list[str]:
    return [f"{figures[name]:.4f}" if name in figures else "-" for name in FIGURES]
