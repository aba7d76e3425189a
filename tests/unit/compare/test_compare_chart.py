"""Tests of roiseg.compare.chart."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from compare_factory import run_of
from numpy.typing import NDArray

from roiseg.compare.chart import draw
from roiseg.compare.comparison import Comparison
from roiseg.errors import UnwritableError

BLUE, GREY = (0x3B, 0x82, 0xC4), (0x8C, 0x8C, 0x8C)


def comparison(values: list[float | None], metrics: int = 1, base: int = 0) -> Comparison:
    names = [f"metric_{number}" for number in range(metrics)]
    runs = []
    for place, value in enumerate(values):
        ends = {} if value is None else {"": value, "_low": value - 0.1, "_high": value + 0.1}
        runs.append(run_of(f"run-{place}", {f"{name}{end}": number for name in names for end, number in ends.items()}))
    return Comparison(runs, [run.name for run in runs], base, names, {}, {}, [], [], [])


def picture(path: Path) -> NDArray[np.uint8]:
    read = cv2.imread(str(path))
    assert read is not None
    return np.asarray(read[..., ::-1], dtype=np.uint8)


def bars(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> list[int]:
    """Longest run of a colour in each band of rows that hold it, from the top."""
    widths = (np.abs(pixels.astype(int) - colour).max(axis=2) <= 2).sum(axis=1)
    found: list[int] = []
    for before, width in zip([0, *widths], widths, strict=False):
        if width > 20 and before <= 20:
            found.append(0)
        if width > 20:
            found[-1] = max(found[-1], int(width))
    return found


def test_bars_are_as_long_as_their_values_and_the_base_is_grey(tmp_path: Path) -> None:
    draw(comparison([0.8, 0.4, 0.2], base=1), tmp_path / "chart.png")
    pixels = picture(tmp_path / "chart.png")
    (base,) = bars(pixels, GREY)
    first, second = bars(pixels, BLUE)
    # The interval and the dotted line take some pixels of each.
    assert first / base == pytest.approx(2, rel=0.05)
    assert second / base == pytest.approx(0.5, rel=0.05)


def test_a_run_without_the_metric_has_no_bar(tmp_path: Path) -> None:
    draw(comparison([0.8, None, 0.2]), tmp_path / "chart.png")
    assert len(bars(picture(tmp_path / "chart.png"), BLUE)) == 1


@pytest.mark.parametrize(("runs", "metrics"), [(2, 7), (9, 7), (33, 1)])
def test_room_grows_with_runs_and_metrics(tmp_path: Path, runs: int, metrics: int) -> None:
    draw(comparison([0.5] * runs, metrics), tmp_path / "chart.png")
    pixels = picture(tmp_path / "chart.png")
    assert pixels.shape[1] == (1100 if metrics > 1 else 550)
    assert len(bars(pixels, BLUE)) == (runs - 1) * -(-metrics // 3), "no two bars touch"


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        draw(comparison([0.5, 0.6]), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableError, match=r"--chart .*chart.png: can't be written \(.*\); name a file in a folder of yours"):
        draw(comparison([0.5, 0.6]), tmp_path / "file" / "chart.png")
