"""The `train` stage: params and paths to a trained head."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from roiseg.cache.source import FeatureSource
from roiseg.dataset import RoiDataset
from roiseg.errors import ParamsError
from roiseg.evaluate.pictures import FixedPicture, load_fixed
from roiseg.files import sha256_file
from roiseg.heads import build_head
from roiseg.losses import LossParams, MaskLoss, class_weights, needs_frames, taught_outputs
from roiseg.params import NOTHING_KEPT, load_section
from roiseg.sampler import Sampler, SamplerParams
from roiseg.train.head_task import HeadTask
from roiseg.train.keep import check_same, kept_files, load_kept
from roiseg.train.log import Observer
from roiseg.train.params import PhaseParams, TrainParams
from roiseg.train.phases import resolve_phases
from roiseg.train.run import Phase, Run
from roiseg.train.stage import Outs, hash_index, stores_of, train_run
from roiseg.train.taught_head_task import TaughtHeadTask
from roiseg.train.teacher_head import TeacherHead, load_teacher_head
from roiseg.train.world import make_fabric
from roiseg.trained import HeadSections


@dataclass(frozen=True)
class TrainSections:
    """The sections that a head is trained by."""

    head: HeadSections
    sampler: SamplerParams
    loss: LossParams
    train: TrainParams

    @classmethod
    def load(cls, values: Mapping[str, Any], train: str = "train") -> "TrainSections":
        """From the whole params, a head's preset laid over them.

        Args:
            values: the params.
            train: dotted path that messages call section `train` by.

        Raises:
            ParamsError: any fault.
        """
        return cls(
            HeadSections.load(values),
            load_section(SamplerParams, "sampler", values),
            load_section(LossParams, "loss", values),
            TrainParams.parse(values.get("train"), train),
        )

    def described(self) -> dict[str, Any]:
        """What the checkpoints keep: all that shapes the head, and nothing that only makes it fast."""
        head = {"dataset": self.head.dataset, "sampler": self.sampler, "model": self.head.model}
        parts = {**head, "loss": self.loss, "train": self.train}
        return {name: json.loads(part.model_dump_json()) for name, part in parts.items()}

    def phases(self) -> list[tuple[PhaseParams | None, "TrainSections"]]:
        """The sections of each phase.

        Raises:
            ParamsError: see `resolve_phases`.
        """
        found = resolve_phases(self.train, self.head.model, self.loss)
        return [(phase, replace(self, head=replace(self.head, model=model), loss=loss)) for phase, model, loss in found]


@dataclass(frozen=True)
class TrainPaths:
    """What the stage reads and writes.

    Attributes:
        statistics: data_analyze.json.
        rois: the table of training ROIs, read if the sampler needs it.
        index: `data/index`.
        features: `data/features`.
        out: `models/heads/{head}`: `best_model.pth`, `untrained_model.pth`, `checkpoints/`.
        live: `metrics/train/{head}`: DVCLive's files, and `pictures/`.
        stage: that trains; None: `train@{head}`.
    """

    statistics: Path
    rois: Path
    index: Path
    features: Path
    out: Path
    live: Path
    stage: str | None = None


def train_head(head: str, sections: TrainSections, paths: TrainPaths, observers: Sequence[Observer] = ()) -> dict[str, float]:
    """Train a head, going on where an earlier run was cut short, or where a kept one ended.

    Args:
        head: its name, an entry of `heads`.
        sections: params.
        paths: what is read and written.
        observers: told of each epoch.

    Returns:
        Figures of the last epoch.

    Raises:
        ParamsError: see `TrainSections.phases` and `Sampler`; or `train.additional_epochs` without a run to go on from.
        CheckpointError: see `roiseg.train.keep` and `load_teacher_head`.
        AnnotationError, StoreMismatchError: see `Sampler`.
        TrainingError: see `Trainer`.
        UnwritableError: the file system refuses a file of the run, or the outs.
        WorkBusyError: another process trains the same.
    """
    fabric = make_fabric(sections.train)
    fabric.launch()
    kept = kept_files(Path(sections.train.resume_from), head)
    if not kept and sections.train.additional_epochs is not None:
        raise ParamsError(
            f"train.additional_epochs is {sections.train.additional_epochs}, but train.resume_from is {NOTHING_KEPT!r}; name a "
            "kept run there, or set train.additional_epochs to null"
        )
    run = make_run(sections, paths, kept)
    outs = Outs(paths.out, paths.live, (paths.statistics,))
    return train_run(paths.stage or f"train@{head}", run, _fingerprint(sections, paths, run, kept), outs, fabric, observers)[-1]


def make_run(sections: TrainSections, paths: TrainPaths, kept: Sequence[Path]) -> Run:
    """What to train on what.

    Args:
        sections: params.
        paths: what is read; what is written isn't looked at.
        kept: files of a run to go on from, see `roiseg.train.keep.kept_files`.

    Raises:
        ParamsError, CheckpointError, AnnotationError, StoreMismatchError: see `train_head`.
    """
    parts = sections.phases()
    train, val = (sections.head.open_split(split, paths.index, paths.features) for split in ("train", "val"))
    sampler = Sampler(train, sections.sampler, paths.rois)
    statistics = json.loads(paths.statistics.read_text())
    fixed = load_fixed(paths.index / "val" / "pictures", val)
    teacher = _load_teacher(parts, train.store)
    phases = [_make_phase(params, part, sampler, val, statistics, fixed, teacher) for params, part in parts]
    run = Run(phases, sections.train, sections.head.reader, load_kept(kept))
    if run.kept is not None:
        phase = run.phase_of(run.kept.last.epoch)
        check_same(run.kept.last, phase.described, phase.task.stores["train"].asked, run.epochs, str(kept[0]))
    return run


def _make_phase(
    params: PhaseParams | None,
    sections: TrainSections,
    sampler: Sampler,
    val: RoiDataset,
    statistics: Mapping[str, Any],
    fixed: Sequence[FixedPicture],
    teacher: TeacherHead | None,
) -> Phase:
    model = sections.head.model
    # A head that decodes the whole map does so on the grid of its first layer.
    frame_hw = val.store.shapes[model.layers[0]][1:] if needs_frames(sections.loss) else None
    build = partial(build_head, model, val.store.specs)
    loss = MaskLoss(sections.loss, class_weights(sections.loss.class_weights, statistics))
    judged, layout = val.read_by(model.layers, model.mask_hw), sections.train.pictures
    task: HeadTask
    if teacher is None or sections.loss.distill is None:
        task = HeadTask(build, loss, sampler.read_by(model.layers, model.mask_hw, frame_hw), judged, fixed, layout)
    else:
        layers = list(dict.fromkeys([*model.layers, *teacher.layers]))
        drawn = sampler.read_by(layers, model.mask_hw, frame_hw)
        task = TaughtHeadTask(build, loss, drawn, judged, teacher, fixed, layout)
    return Phase(params.name if params else None, params.until if params else None, task, sections.described())


def _load_teacher(parts: Sequence[tuple[PhaseParams | None, TrainSections]], store: FeatureSource) -> TeacherHead | None:
    """The head that some phase learns from; the phases share it."""
    taught = [sections for _, sections in parts if sections.loss.distill is not None]
    if not taught:
        return None
    last = taught[-1]
    outputs = frozenset[str]().union(*(taught_outputs(sections.loss) for sections in taught))
    return load_teacher_head(Path(last.train.distill_from), last.described(), store, outputs)


def _fingerprint(sections: TrainSections, paths: TrainPaths, run: Run, kept: Sequence[Path]) -> dict[str, Any]:
    taught = any(isinstance(phase.task, TaughtHeadTask) for phase in run.phases)
    return {
        "params": [phase.described for phase in run.phases],
        "statistics": sha256_file(paths.statistics),
        "rois": sha256_file(paths.rois) if sections.sampler.needs_shares else None,
        "teacher": sha256_file(Path(sections.train.distill_from)) if taught else None,
        "stores": stores_of(run.phases[-1].task),
        "index": hash_index(paths.index),
        "kept": {path.name: sha256_file(path) for path in kept},
    }
