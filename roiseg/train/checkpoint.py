"""Checkpoints: named by epoch, mask size and score; atomic; readable without unpickling code."""

import io
import pickle
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import torch
from torch import Tensor

from roiseg.errors import CheckpointError
from roiseg.files import write_bytes
from roiseg.types import HW

NAME = re.compile(r"^checkpoint_epoch_(?P<epoch>\d{4})(?:_(?P<height>\d+)x(?P<width>\d+)_(?P<score>\d{4}))?\.pth$")
"""The long form is written; the short one, which the original also used, is read."""

CHECKPOINT_FILE = r"^(checkpoints/)?[A-Za-z0-9_-]+\.pth$"
"""What params may name: a file of a head's folder."""

BEST = "best_model.pth"
SHOWN = 8
"""Names that a message spells out."""

UNTRAINED = "untrained_model.pth"
"""Fresh weights, for trying out a deployment before anything is learnt."""

SNAPSHOTS = "snapshots_model.pth"
"""Mean of what was learnt at the end of each cycle of `cosine_restarts`."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to be understood, evaluated or continued.

    Attributes:
        epoch: counted from 1; the last finished one.
        model: the head's weights, averaged over steps: what is validated and exported.
        live: the weights that the optimiser works on.
        optimizer: state of the optimiser.
        scaler: state of the scaler of float16 gradients; empty without one.
        rng: device -> states of torch's generator in each process.
        loss: what the loss has seen, in each process.
        params: sections `dataset`, `sampler`, `model`, `loss`, `train` as plain values.
        layers: layer -> [channels, vertical stride, horizontal stride].
        fingerprint: fields of the store that the head was trained on, see `roiseg.extractor.extract.asked_fields`.
        metrics: validation figures of this epoch.
        best: highest leading figure up to and with this epoch, -1 for none.
        rate: learning rate of the last step.
        rows: the run's record, a row for each epoch so far.
    """

    epoch: int
    model: Mapping[str, Tensor]
    live: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any]
    rng: Mapping[str, list[Tensor]]
    loss: Sequence[Mapping[str, float]]
    params: Mapping[str, Any]
    layers: Mapping[str, list[float]]
    fingerprint: Mapping[str, Any]
    metrics: Mapping[str, float]
    best: float
    rate: float
    rows: Sequence[Mapping[str, float]]


def checkpoint_name(epoch: int, mask_hw: HW, miou: float) -> str:
    """`checkpoint_epoch_{EEEE}_{H}x{W}_{MMMM}.pth`; MMMM are the first four decimals of the mIoU (0.4260 -> 4260)."""
    digits = min(int(round(miou * 10_000, 6)), 9999)  # 0.57 * 10000 is 5699.999999999999
    return f"checkpoint_epoch_{epoch:04d}_{mask_hw[0]}x{mask_hw[1]}_{digits:04d}.pth"


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write aside and rename. Equal contents give equal bytes: torch names the archive after its file, so it gets none."""
    buffer = io.BytesIO()
    torch.save({name: _plain(value) for name, value in vars(checkpoint).items()}, buffer)
    write_bytes(path, buffer.getvalue())


def _plain(value: Any) -> Any:  # noqa: ANN401 - walks any nesting
    """Containers as plain dicts and lists, and equal texts as one object, those that torch adds too: pickle looks at identity."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, str):
        return sys.intern(value)
    return value


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU; no code in it is run.

    Raises:
        CheckpointError: missing, torn, written by something else, or by a version of roiseg whose checkpoints hold other fields.
    """
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint; train it (`dvc repro`), or `dvc pull`") from error
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, KeyError, pickle.UnpicklingError) as error:
        # What torch says is advice to load it unsafely, or nothing.
        raise CheckpointError(
            f"{path}: not a checkpoint of roiseg (torn, not written by torch, or with more in it than tensors and plain values); "
            "`dvc checkout` or `dvc pull` it, or train the head again"
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: not a checkpoint of roiseg (holds a {type(data).__name__}, expected a mapping of fields)")
    known, given = [item.name for item in fields(Checkpoint)], [str(name) for name in data]
    lacking, unknown = [name for name in known if name not in given], [name for name in given if name not in known]
    if len(lacking) == len(known):
        raise CheckpointError(f"{path}: not a checkpoint of roiseg (holds {_shown(given)}, expected {_shown(known)})")
    if lacking or unknown:
        faults = [f"lacks {_shown(lacking)}"] * bool(lacking) + [f"has {_shown(unknown)}, which is unknown here"] * bool(unknown)
        raise CheckpointError(
            f"{path}: not a checkpoint of roiseg as it is now: {', and '.join(faults)}; train it again (`dvc repro`), "
            "or go back to the version that wrote it"
        )
    for name, hint in get_type_hints(Checkpoint).items():
        kind, value = get_origin(hint) or hint, data[name]
        if not isinstance(value, (int, float) if kind is float else kind):
            raise CheckpointError(
                f"{path}: not a checkpoint of roiseg as it is now: {name} is of type {type(value).__name__}, expected "
                f"{kind.__name__.lower()}; train it again (`dvc repro`), or go back to the version that wrote it"
            )
    return Checkpoint(**data)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "") if names else "nothing"


def differing(then: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
    """A line for each key that two nested mappings hold otherwise, with both values: `key: then -> now`.

    Args:
        then: such as the params of a checkpoint.
        now: those of today.
        free: dotted keys that may differ, with all below them.
    """
    before, after = dict(_flat(then)), dict(_flat(now))
    keys = [key for key in dict.fromkeys([*before, *after]) if not any(key == name or key.startswith(f"{name}.") for name in free)]
    return [f"{key}: {_said(before, key)} -> {_said(after, key)}" for key in keys if _said(before, key) != _said(after, key)]


def _said(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "not there"


def _flat(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", list(value) if isinstance(value, tuple) else value


def by_epoch(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = [(int(match["epoch"]), path) for path in folder.glob("*.pth") if (match := NAME.match(path.name))]
    return [path for _, path in sorted(found)]


def newest(folder: Path) -> Path | None:
    """The checkpoint of the highest epoch in a folder, or None."""
    found = by_epoch(folder)
    return found[-1] if found else None


def prune(folder: Path, keep: int | None) -> None:
    """Delete all but the last `keep` checkpoints of a folder; None keeps all."""
    if keep is not None:
        found = by_epoch(folder)
        for path in found[: max(len(found) - keep, 0)]:
            path.unlink()
