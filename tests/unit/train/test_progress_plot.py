"""Tests of roiseg.train.progress_plot: which panels there are, and stable bytes."""

from pathlib import Path

import cv2
import matplotlib as mpl
import pytest

from roiseg.train.progress_plot import panels, progress_plot

FULL: list[dict[str, float]] = [
    {
        "epoch": epoch,
        "train_total": 2.0 / epoch,
        "train_ce": 1.0 / epoch,
        "val_total": 2.5 / epoch,
        "train_lr": 0.1,
        "miou_fg_roi": 0.1 * epoch,
        "weight_ce": 1.0,
        "weight_background": 0.5 + 0.1 * epoch,
        "weight_non_target": 2.0,
    }
    for epoch in (1, 2, 3)
]


def without(*beginnings: str) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if not name.startswith(beginnings)} for row in FULL]


def test_panels_by_hand() -> None:
    found = panels(FULL)
    assert {name: list(curves) for name, curves in found.items()} == {
        "loss": ["total", "ce", "validation total"],
        "iou": ["miou_fg_roi"],
        "terms": ["ce"],
        "classes": ["background", "non_target"],
    }
    assert found["loss"]["total"] == ([1, 2, 3], [2.0, 1.0, 2.0 / 3])


@pytest.mark.parametrize(
    ("rows", "count"),
    [(FULL, 4), (without("weight_background", "weight_non"), 3), (without("weight"), 2), (without("weight", "miou"), 1)],
    ids=["four", "three", "two", "one"],
)
def test_panels_without_data_are_skipped(rows: list[dict[str, float]], count: int, tmp_path: Path) -> None:
    assert len(panels(rows)) == count
    progress_plot(rows, tmp_path / "a.png")
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture is not None
    wide, tall = min(count, 2), -(-count // 2)
    assert picture.shape[1] / wide == pytest.approx(7.2 * 110, abs=2)
    assert picture.shape[0] / tall == pytest.approx(3.4 * 110, abs=2)
    if count == 3:
        assert (picture[picture.shape[0] // 2 + 10 :, picture.shape[1] // 2 + 10 :] == 255).all()


def test_nothing_to_draw(tmp_path: Path) -> None:
    progress_plot([], tmp_path / "a.png")
    progress_plot([{"epoch": 1, "train_lr": 0.1}], tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_the_same_bytes_each_time_whatever_the_readers_style(tmp_path: Path) -> None:
    progress_plot(FULL, tmp_path / "first.png")
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "pink", "font.size": 20}):
        progress_plot(FULL, tmp_path / "second.png")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    progress_plot(FULL[:2], tmp_path / "other.png")
    assert (tmp_path / "first.png").read_bytes() != (tmp_path / "other.png").read_bytes()


def test_many_curves_can_be_told_apart(tmp_path: Path) -> None:
    """Colours come again after ten, with another line."""
    same = [{"epoch": epoch, **{f"train_{number:02d}": float(number * epoch) for number in range(11)}} for epoch in (1, 2)]
    progress_plot(same, tmp_path / "a.png")
    fewer = [{name: value for name, value in row.items() if name != "train_10"} for row in same]
    progress_plot(fewer, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
