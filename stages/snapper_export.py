"""Stage `snapper_export`: ONNX files of Snapper, and the proof that they agree with torch."""

from pathlib import Path

from roiseg.cache.scales import load_scales
from roiseg.console import run_stage
from roiseg.params import PARAMS_FILE, load_section, read_yaml
from roiseg.snapper.build import load_snapper
from roiseg.snapper.calibration import load_calibration
from roiseg.snapper.export import SnapExportInputs, SnapExportPaths, export_snapper_files
from roiseg.snapper.params import SnapperParams
from roiseg.snapper.split import MODELS, open_boxes
from roiseg.stored import StoredSections
from roiseg.train.checkpoint import load_checkpoint


def main() -> None:
    """Write `models/onnx/snapper`, `metrics/export/snapper.json` and `logs/complexity/snapper.json`."""
    values = read_yaml(PARAMS_FILE)
    params, stored = load_section(SnapperParams, "snapper", values), StoredSections.load(values)
    train, val = (open_boxes(params, stored, split) for split in ("train", "val"))
    file = MODELS / params.export.checkpoint
    calibration, tolerance = load_calibration(Path("data/snapper/calibration.json"))
    inputs = SnapExportInputs(
        module=load_snapper(file, params.model, val.store.specs, stored.extractor.input_hw),
        params=params,
        checkpoint=load_checkpoint(file),
        file=file,
        calibration=calibration,
        tolerance=tolerance,
        stored=stored,
        train=train,
        val=val,
        backbone=Path("data/backbone.onnx"),
        scales=load_scales(Path("data/scales.npz")),
    )
    paths = SnapExportPaths(Path("models/onnx/snapper"), Path("metrics/export/snapper.json"), Path("logs/complexity/snapper.json"))
    export_snapper_files(inputs, paths)


if __name__ == "__main__":
    run_stage("snapper_export", main, check_all=True)
