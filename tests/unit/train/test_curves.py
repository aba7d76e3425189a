"""Tests of roiseg.train.curves: which figure is a curve of which chart, and the tables."""

from pathlib import Path

import pytest

from roiseg.train.curves import CHARTS, curve_of, points, write_curves

ROWS: list[dict[str, float]] = [
    {"epoch": 1, "train_total": 1.5, "train_lr": 0.001, "weight_ce": 1.0, "miou_fg_roi": 0.25},
    {"epoch": 2, "train_total": 1.25, "train_lr": 0.0005, "weight_ce": 1.0, "miou_fg_roi": 1 / 3},
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train_total", ("loss", "total")),
        ("train_boundary", ("loss", "boundary")),
        ("val_total", ("loss", "validation total")),
        ("train_lr", ("learning_rate", "learning rate")),
        ("weight_instance_sep", ("weights", "instance_sep")),
        ("iou_nontarget_roi", ("iou", "iou_nontarget_roi")),
        ("train_grad_norm", None),
        ("train_mean_pixel_weight", None),
        ("skipped_steps", None),
        ("pixel_accuracy", None),
        ("epoch", None),
    ],
)
def test_each_figure_has_its_chart(name: str, expected: tuple[str, str] | None) -> None:
    assert curve_of(name) == expected


def test_points_by_hand() -> None:
    assert points(ROWS) == {
        "loss": [(1, "total", 1.5), (2, "total", 1.25)],
        "learning_rate": [(1, "learning rate", 0.001), (2, "learning rate", 0.0005)],
        "iou": [(1, "miou_fg_roi", 0.25), (2, "miou_fg_roi", 1 / 3)],
        "weights": [(1, "ce", 1.0), (2, "ce", 1.0)],
    }


def test_tables_by_hand(tmp_path: Path) -> None:
    write_curves(ROWS, tmp_path)
    assert {path.stem for path in (tmp_path / "curves").iterdir()} == set(CHARTS)
    assert (
        tmp_path / "curves/iou.tsv"
    ).read_text() == "epoch\tcurve\tvalue\n1\tmiou_fg_roi\t0.25\n2\tmiou_fg_roi\t0.3333333333333333\n"


def test_a_chart_without_points_is_there_all_the_same(tmp_path: Path) -> None:
    """dvc.yaml names it."""
    write_curves([{"epoch": 1, "train_total": 1.0}], tmp_path)
    assert (tmp_path / "curves/weights.tsv").read_text() == "epoch\tcurve\tvalue\n"
