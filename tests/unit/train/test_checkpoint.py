"""Tests of roiseg.train.checkpoint: names, bytes, the way back, and files that aren't checkpoints."""

import os
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from roiseg.errors import CheckpointError
from roiseg.train.checkpoint import NAME, Checkpoint, checkpoint_name, load_checkpoint, newest, save_checkpoint


def checkpoint_of(epoch: int = 2) -> Checkpoint:
    weight = torch.arange(6.0).reshape(2, 3)
    return Checkpoint(
        epoch=epoch,
        model={"layer.weight": weight},
        live={"layer.weight": weight + 1},
        optimizer={
            "state": {0: {"step": torch.tensor(4.0), "exp_avg": weight * 2}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}],
        },
        scaler={"scale": 2.0},
        rng={"cpu": [torch.get_rng_state()]},
        loss=[{"fg": 1.5}],
        params={"model": {"head": "roi_crop", "layers": ["a", "b"]}, "train": {"seed": 0}},
        layers={"a": [6, 8.0, 8.0]},
        fingerprint={"dtype": "float16", "layers": {"a": "/a"}},
        metrics={"miou_fg_roi": 0.5},
        best=0.5,
        rate=0.01,
        rows=[{"epoch": 1, "miou_fg_roi": 0.25}, {"epoch": 2, "miou_fg_roi": 0.5}],
    )


@pytest.mark.parametrize(
    ("miou", "digits"),
    [(0.4260, "4260"), (1.0, "9999"), (0.0, "0000"), (0.57, "5700"), (0.0003, "0003"), (0.42609, "4260"), (0.99999, "9999")],
)
def test_name(miou: float, digits: str) -> None:
    name = checkpoint_name(7, (56, 48), miou)
    assert name == f"checkpoint_epoch_0007_56x48_{digits}.pth"
    assert re.fullmatch(r"checkpoint_epoch_\d{4}_\d+x\d+_\d{4}\.pth", name)


def test_name_of_every_four_decimals() -> None:
    assert all(checkpoint_name(1, (1, 1), number / 10_000).endswith(f"_{number:04d}.pth") for number in range(10_000))


def test_name_is_read_back() -> None:
    match = NAME.match(checkpoint_name(12, (56, 48), 0.426))
    assert match is not None
    assert match.groupdict() == {"epoch": "0012", "height": "56", "width": "48", "score": "4260"}
    short = NAME.match("checkpoint_epoch_0005.pth")
    assert short is not None
    assert short["epoch"] == "0005"
    assert not any(NAME.match(name) for name in ("best.pth", "checkpoint_epoch_5.pth", "checkpoint_epoch_0005_4260.pth", "x.pth"))


def test_newest_goes_by_epoch_and_reads_the_short_form(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    assert newest(tmp_path / "missing") is None
    for name in (
        "checkpoint_epoch_0002_56x56_9000.pth",
        "checkpoint_epoch_0010.pth",
        "best.pth",
        "checkpoint_epoch_0011.pth.partial",
    ):
        (tmp_path / name).touch()
    assert newest(tmp_path) == tmp_path / "checkpoint_epoch_0010.pth"
    (tmp_path / "checkpoint_epoch_0011_56x56_0001.pth").touch()
    assert newest(tmp_path) == tmp_path / "checkpoint_epoch_0011_56x56_0001.pth"


def test_round_trip(tmp_path: Path) -> None:
    saved = checkpoint_of()
    save_checkpoint(tmp_path / "a.pth", saved)
    found = load_checkpoint(tmp_path / "a.pth")
    for name in ("epoch", "params", "layers", "fingerprint", "metrics", "best", "scaler", "rate", "rows"):
        assert getattr(found, name) == getattr(saved, name)
    assert torch.equal(found.model["layer.weight"], saved.model["layer.weight"])
    assert torch.equal(found.live["layer.weight"], saved.live["layer.weight"])
    assert torch.equal(found.optimizer["state"][0]["exp_avg"], saved.optimizer["state"][0]["exp_avg"])
    assert found.optimizer["param_groups"] == [{"lr": 0.1, "betas": [0.9, 0.99]}]
    assert torch.equal(found.rng["cpu"][0], saved.rng["cpu"][0])


def test_equal_contents_have_equal_bytes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", checkpoint_of())
    save_checkpoint(tmp_path / "another_name.pth", checkpoint_of())
    once = load_checkpoint(tmp_path / "a.pth")
    save_checkpoint(
        tmp_path / "again.pth", replace(once, params={"".join(["mo", "del"]): once.params["model"], "train": {"seed": 0}})
    )
    first, second, third = (path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert first == second == third
    save_checkpoint(tmp_path / "other.pth", checkpoint_of(epoch=3))
    assert (tmp_path / "other.pth").read_bytes() != first


def test_gpu_and_gradients_leave_no_trace(tmp_path: Path) -> None:
    plain = checkpoint_of()
    learning = replace(plain, model={"layer.weight": torch.nn.Parameter(plain.model["layer.weight"].clone())})
    save_checkpoint(tmp_path / "a.pth", plain)
    save_checkpoint(tmp_path / "b.pth", learning)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"best\.pth: no such checkpoint; train it \(`dvc repro`\)"):
        load_checkpoint(tmp_path / "best.pth")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.99])
def test_torn(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint(path, checkpoint_of())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=r"a\.pth: not a checkpoint of roiseg"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [{"epoch": 1}, {"state_dict": torch.zeros(2)}, [1, 2], torch.zeros(3), "text"])
def test_foreign_contents(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth: not a checkpoint of roiseg"):
        load_checkpoint(tmp_path / "a.pth")


def test_another_schema(tmp_path: Path) -> None:
    fields = dict(vars(checkpoint_of()))
    del fields["scaler"], fields["rows"]
    torch.save({**fields, "model_state": {}}, tmp_path / "a.pth")
    message = (
        "a.pth: not a checkpoint of roiseg as it is now: lacks scaler, rows, and has model_state, which is unknown here; train "
        "it again (`dvc repro`), or go back to the version that wrote it"
    )
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_checkpoint(tmp_path / "a.pth")


def test_contents_of_another_program(tmp_path: Path) -> None:
    torch.save({f"layer_{number}": torch.zeros(1) for number in range(20)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"holds layer_0, .*layer_7 and 12 more, expected epoch, model, live"):
        load_checkpoint(tmp_path / "a.pth")
    torch.save([1], tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds a list, expected a mapping of fields"):
        load_checkpoint(tmp_path / "a.pth")


def test_text_file(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    message = "a.pth: not a checkpoint of roiseg (torn, not written by torch, or with more in it than tensors and plain values)"
    with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
        load_checkpoint(tmp_path / "a.pth")
    assert "weights_only" not in str(caught.value), "torch's advice to load it unsafely"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epoch", "last", "epoch is of type str, expected int"),
        ("best", None, "best is of type NoneType, expected float"),
        ("params", None, "params is of type NoneType, expected mapping"),
        ("rows", 3, "rows is of type int, expected sequence"),
    ],
)
def test_fields_of_another_kind(tmp_path: Path, name: str, value: object, message: str) -> None:
    torch.save({**vars(checkpoint_of()), name: value}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=f"not a checkpoint of roiseg as it is now: {message}; train it again"):
        load_checkpoint(tmp_path / "a.pth")


class _Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_isnt_run(tmp_path: Path, zipped: bool) -> None:
    path, trace = tmp_path / "a.pth", tmp_path / "it_ran"
    if zipped:
        torch.save({"epoch": _Harm(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"epoch": _Harm(trace)}, protocol=2))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not trace.exists()
