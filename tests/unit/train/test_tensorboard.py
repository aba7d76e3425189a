"""Tests of roiseg.train.tensorboard: events are read back as TensorBoard reads them."""

import builtins
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from roiseg.errors import PackageError
from roiseg.train.log import Row
from roiseg.train.tensorboard import TensorBoard


def rows(epochs: int, scale: float = 1.0) -> list[Row]:
    return [
        {"epoch": epoch, "train_ce": scale / epoch, "weight_ce": 1.0, "miou_fg_roi": 0.25 * epoch, "skipped_steps": 0}
        for epoch in range(1, epochs + 1)
    ]


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = accumulator.EventAccumulator(str(folder))
    reader.Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def watch(folder: Path, first: int, last: int, scale: float = 1.0, *, killed: bool = False) -> None:
    board = TensorBoard(folder)
    board.begin(rows(first, scale))
    for epoch in range(first + 1, last + 1):
        board.epoch(rows(epoch, scale))
    if not killed:
        board.end()


def expected(epochs: int, scale: float = 1.0) -> dict[str, list[tuple[int, float]]]:
    """Events hold float32."""
    steps = range(1, epochs + 1)
    return {
        "train/ce": [(step, float(np.float32(scale / step))) for step in steps],
        "weights/ce": [(step, 1.0) for step in steps],
        "val/miou_fg_roi": [(step, 0.25 * step) for step in steps],
        "train/skipped_steps": [(step, 0.0) for step in steps],
    }


def test_scalars_by_group(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    watch(tmp_path, 0, 3)
    assert events(tmp_path) == expected(3)


def test_an_epoch_can_be_read_before_the_run_is_over(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    watch(tmp_path, 0, 2, killed=True)
    assert events(tmp_path) == expected(2)


@pytest.mark.parametrize(("written", "resumed"), [(3, 3), (3, 2), (2, 3)], ids=["whole", "ahead", "behind"])
def test_a_run_that_goes_on_after_a_kill_shows_no_point_twice(tmp_path: Path, written: int, resumed: int) -> None:
    pytest.importorskip("tensorboard")
    watch(tmp_path, 0, written, killed=True)
    watch(tmp_path, resumed, 5)
    assert events(tmp_path) == expected(5)


def test_a_new_run_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    watch(tmp_path, 0, 5)
    watch(tmp_path, 0, 2, scale=7.0)
    assert events(tmp_path) == expected(2, scale=7.0)


def test_nothing_is_written_before_the_run_begins(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = TensorBoard(tmp_path / "board")
    board.end()
    assert not (tmp_path / "board").exists()
    with pytest.raises(RuntimeError, match="before begin"):
        board.epoch(rows(1))


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard" or name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    import_before = builtins.__import__

    def without(
        name: str,
        globals_: Mapping[str, object] | None = None,
        locals_: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if name.split(".")[0] == "tensorboard":
            raise ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")
        return import_before(name, globals_, locals_, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PackageError, match=r"watch\.tensorboard is true, but 'tensorboard' isn't installed; run `uv sync --extra"):
        TensorBoard(tmp_path)
