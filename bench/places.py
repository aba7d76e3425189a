"""Where the benches of training find the outs of `dvc repro`."""

from pathlib import Path

from roiseg.train.train import TrainPaths
from roiseg.trained import FEATURES, INDEX
from roiseg.work import WORK

PATHS = TrainPaths(Path("metrics/data_analyze.json"), Path("data/rois.parquet"), INDEX, FEATURES, out=WORK, live=WORK)
"""For `roiseg.train.train.make_run`, which only reads."""
