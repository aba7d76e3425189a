"""Stage `unet`: the net that tells people from background, and its ONNX files."""

from pathlib import Path

from roiseg.console import is_helper, run_stage
from roiseg.export.net_files import NetPaths, export_net_files
from roiseg.params import PARAMS_FILE, load_section, read_yaml
from roiseg.stored import StoredSections
from roiseg.train.log import LiveCurves
from roiseg.unet.params import UnetParams
from roiseg.unet.train import LIVE, MODELS, train_unet


def main() -> None:
    """Write `models/unet`, `models/onnx/unet`, `metrics/train/unet` and `metrics/unet.json`."""
    values = read_yaml(PARAMS_FILE)
    params, stored = load_section(UnetParams, "unet", values), StoredSections.load(values)
    net = train_unet(params, stored, [LiveCurves(LIVE)])
    if is_helper():
        return  # the first process writes the files
    paths = NetPaths(MODELS, Path("models/onnx/unet"), Path("metrics/unet.json"), Path("logs/complexity/unet.json"))
    export_net_files(net, params.model, params.export, stored, paths)


if __name__ == "__main__":
    run_stage("unet", main, check_all=True)
