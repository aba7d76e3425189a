"""Stage `distill`: a small net that learns from the truth, the U-net and the detector, and its ONNX files."""

from pathlib import Path

from roiseg.console import is_helper, run_stage
from roiseg.distill.distill import LIVE, MODELS, distill
from roiseg.distill.params import DistillParams
from roiseg.export.net_files import NetPaths, export_net_files
from roiseg.params import PARAMS_FILE, load_section, read_yaml
from roiseg.stored import StoredSections
from roiseg.train.log import LiveCurves


def main() -> None:
    """Write `models/distill`, `models/onnx/distill`, `metrics/train/distill` and `metrics/distill.json`."""
    values = read_yaml(PARAMS_FILE)
    params, stored = load_section(DistillParams, "distill", values), StoredSections.load(values)
    net = distill(params, stored, [LiveCurves(LIVE)])
    if is_helper():
        return  # the first process writes the files
    paths = NetPaths(
        MODELS,
        Path("models/onnx/distill"),
        Path("metrics/distill.json"),
        Path("logs/complexity/distill.json"),
        teacher=Path("models/onnx/unet"),
    )
    export_net_files(net, params.model, params.export, stored, paths)


if __name__ == "__main__":
    run_stage("distill", main, check_all=True)
