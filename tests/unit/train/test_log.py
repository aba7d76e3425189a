"""Tests of roiseg.train.log: DVCLive gets losses and the leading figures."""

import json
from pathlib import Path

from roiseg.train.log import CURVES, write_live


def rows(epochs: int) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "train_total": 1.0 / epoch, **dict.fromkeys(CURVES, epoch / 10), "iou_bg": 0.5}
        for epoch in range(1, epochs + 1)
    ]


def test_live_files_hold_losses_and_leading_figures(tmp_path: Path) -> None:
    write_live(rows(3), tmp_path)
    last = json.loads((tmp_path / "metrics.json").read_text())
    assert last["step"] == 3
    assert last["train"] == {"total": 1 / 3}
    assert last["val"] == dict.fromkeys(CURVES, 0.3)
    drawn = {path.relative_to(tmp_path / "plots/metrics").as_posix() for path in (tmp_path / "plots").rglob("*.tsv")}
    assert drawn == {"train/total.tsv", *(f"val/{name}.tsv" for name in CURVES)}
    assert len((tmp_path / "plots/metrics/train/total.tsv").read_text().splitlines()) == 4
