"""Stage `teacher@{split}`: what the U-net says of the cached images, in a store of its own."""

import sys
from pathlib import Path

from roiseg.console import run_stage
from roiseg.files import write_json
from roiseg.params import PARAMS_FILE, read_yaml
from roiseg.stored import StoredSections
from roiseg.unet.teacher import write_teacher


def main(split: str) -> None:
    """Write `data/teacher/{split}.zarr` and `metrics/teacher_{split}.json`."""
    stored = StoredSections.load(read_yaml(PARAMS_FILE))
    write_json(Path(f"metrics/teacher_{split}.json"), write_teacher(split, Path("models/onnx/unet/backbone.onnx"), stored))


if __name__ == "__main__":
    run_stage(f"teacher@{sys.argv[1]}", lambda: main(sys.argv[1]), check_all=True)
