"""Stage `train@{head}`: one head on cached features."""

import sys
from pathlib import Path

from roiseg.console import run_stage
from roiseg.params import load_params, load_section
from roiseg.train.log import LiveCurves, Observer
from roiseg.train.tensorboard import TensorBoard, WatchParams
from roiseg.train.train import TrainPaths, TrainSections, train_head
from roiseg.trained import FEATURES, HEADS, INDEX


def main(head: str) -> None:
    """Write `models/heads/{head}` and `metrics/train/{head}`."""
    values = load_params(head)
    statistics, rois = Path("metrics/data_analyze.json"), Path("data/rois.parquet")
    paths = TrainPaths(statistics, rois, INDEX, FEATURES, HEADS / head, Path("metrics/train") / head)
    observers: list[Observer] = [LiveCurves(paths.live)]
    if load_section(WatchParams, "watch", values).tensorboard:
        observers.append(TensorBoard(Path("logs/tensorboard") / head))
    train_head(head, TrainSections.load(values), paths, observers)


if __name__ == "__main__":
    run_stage(f"train@{sys.argv[1]}", lambda: main(sys.argv[1]), check_all=True)
