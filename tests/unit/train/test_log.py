"""Tests of roiseg.train.log: names of scalars, DVCLive's files, and the same while a run goes on, killed or not."""

import json
from pathlib import Path

import pytest
from dvclive.live import Live
from trainer_factory import files_of

from roiseg.train.log import LEADING, LiveCurves, Row, scalar_name, scalars, write_live


def rows(epochs: int) -> list[Row]:
    return [
        {
            "epoch": epoch,
            "train_total": 1.0 / epoch,
            "train_ce": 0.1 + 0.2 / epoch,
            "train_lr": 1e-6,
            "weight_ce": 1.0 + epoch,
            "skipped_steps": 0,
            **dict.fromkeys(LEADING, epoch / 10),
            "iou_bg": 0.5,
            "val_total": 2.0,
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train_ce", "train/ce"),
        ("train_lr", "train/lr"),
        ("train_grad_norm", "train/grad_norm"),
        ("skipped_steps", "train/skipped_steps"),
        ("weight_instance_sep", "weights/instance_sep"),
        ("miou_fg_roi", "val/miou_fg_roi"),
        ("never_class_2_miou_fg_roi", "val/never_class_2_miou_fg_roi"),
        ("val_total", "val/total"),
    ],
)
def test_names_of_scalars(name: str, expected: str) -> None:
    assert scalar_name(name) == expected


def test_every_figure_has_a_table_and_the_leading_ones_are_metrics(tmp_path: Path) -> None:
    write_live(rows(3), tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == {
        "train": {"total": 1 / 3, "ce": 0.1 + 0.2 / 3, "lr": 1e-6},
        "val": dict.fromkeys(LEADING, 0.3),
        "step": 3,
    }
    drawn = {path.relative_to(tmp_path / "plots/metrics").as_posix() for path in (tmp_path / "plots").rglob("*.tsv")}
    assert drawn == {f"{scalar_name(name)}.tsv" for name in rows(1)[0] if name != "epoch"}
    assert (tmp_path / "plots/metrics/weights/ce.tsv").read_text() == "step\tce\n1\t2.0\n2\t3.0\n3\t4.0\n"
    assert json.loads((tmp_path / "weights.json").read_text())["weight_ce_mean"] == 3
    assert {path.name for path in (tmp_path / "curves").iterdir()} == {"loss.tsv", "learning_rate.tsv", "iou.tsv", "weights.tsv"}


def test_a_loss_that_isnt_a_number_is_written_as_a_word(tmp_path: Path) -> None:
    write_live([{"epoch": 1, "train_total": float("nan")}], tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["train"] == {"total": "nan"}


def test_the_files_are_those_of_dvclive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a repository: `Live` leaves files of one open."""
    monkeypatch.chdir(tmp_path)
    values = [*rows(3), {**rows(4)[-1], "train_total": float("inf")}]
    write_live(values, tmp_path / "ours")
    with Live(str(tmp_path / "theirs"), dvcyaml=False, save_dvc_exp=False, report=None, monitor_system=False) as live:
        for row in values:
            live.step = int(row["epoch"])
            for name, value in scalars(row).items():
                if name in ("train/total", "train/ce", "train/lr") or name.removeprefix("val/") in LEADING:
                    live.log_metric(name, value)
    ours, theirs = files_of(tmp_path / "ours"), files_of(tmp_path / "theirs")
    assert {name: ours[name] for name in theirs} == theirs
    assert "metrics.json" in theirs
    assert len(theirs) == 1 + 3 + len(LEADING)


# --- while a run goes on ---


def watch(folder: Path, first: int, last: int) -> None:
    """A run that goes on after epoch `first` and ends, or is killed, after epoch `last`."""
    curves = LiveCurves(folder)
    curves.begin(rows(first))
    for epoch in range(first + 1, last + 1):
        curves.epoch(rows(epoch))
    curves.end()


@pytest.mark.parametrize("last", [1, 2, 5])
def test_after_each_epoch_the_files_are_those_of_the_end(tmp_path: Path, last: int) -> None:
    watch(tmp_path / "live", 0, last)
    write_live(rows(last), tmp_path / "whole")
    assert files_of(tmp_path / "live") == files_of(tmp_path / "whole")


@pytest.mark.parametrize(("written", "resumed"), [(3, 3), (3, 2), (2, 3), (3, 0)], ids=["whole", "ahead", "behind", "anew"])
def test_a_run_that_goes_on_after_a_kill_shows_no_point_twice_and_none_too_few(tmp_path: Path, written: int, resumed: int) -> None:
    """A kill may have met the run before the files had an epoch that was done, or the checkpoint of one that they have."""
    watch(tmp_path / "live", 0, written)
    watch(tmp_path / "live", resumed, 5)
    write_live(rows(5), tmp_path / "whole")
    assert files_of(tmp_path / "live") == files_of(tmp_path / "whole")


def test_the_beginning_forgets_an_earlier_run(tmp_path: Path) -> None:
    watch(tmp_path, 0, 3)
    LiveCurves(tmp_path).begin([])
    assert not (tmp_path / "metrics.json").exists()
    assert not list((tmp_path / "plots").rglob("*.tsv"))
    assert (tmp_path / "curves/loss.tsv").read_text() == "epoch\tcurve\tvalue\n"
    assert json.loads((tmp_path / "weights.json").read_text()) == {}


def test_what_is_read_whole_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in the middle of writing leaves the file of the epoch before."""
    watch(tmp_path, 0, 2)
    before = files_of(tmp_path)
    curves = LiveCurves(tmp_path)
    curves.begin(rows(2))

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        curves.epoch(rows(3))
    after = files_of(tmp_path)
    for name in ("metrics.json", "weights.json", "curves/loss.tsv"):
        assert after[name] == before[name]
