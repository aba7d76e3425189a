"""Stage `rgb_train`: the head on pixels and the U-net's map."""

from pathlib import Path

from roiseg.console import run_stage
from roiseg.params import PARAMS_FILE, read_yaml
from roiseg.rgb import MODELS, NAME, rgb_values
from roiseg.train.log import LiveCurves
from roiseg.train.train import TrainPaths, TrainSections, train_head
from roiseg.trained import FEATURES, INDEX


def main() -> None:
    """Write `models/rgb` and `metrics/train/rgb`."""
    statistics, live = Path("metrics/data_analyze.json"), Path("metrics/train") / NAME
    paths = TrainPaths(statistics, Path("data/rois.parquet"), INDEX, FEATURES, MODELS, live, stage="rgb_train")
    train_head(NAME, TrainSections.load(rgb_values(read_yaml(PARAMS_FILE)), f"{NAME}.train"), paths, [LiveCurves(live)])


if __name__ == "__main__":
    run_stage("rgb_train", main, check_all=True)
