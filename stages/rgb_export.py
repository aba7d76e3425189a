"""Stage `rgb_export`: ONNX files of the head on pixels, with the U-net in the detector's place."""

from pathlib import Path

from roiseg.console import run_stage
from roiseg.export.export import ExportInputs, ExportPaths, export
from roiseg.export.params import ExportParams
from roiseg.params import PARAMS_FILE, load_section, read_yaml
from roiseg.rgb import MODELS, NAME, as_backbone, rgb_values
from roiseg.trained import INDEX, HeadSections, load_head


def main() -> None:
    """Write `models/onnx/rgb`, `metrics/export/rgb.json` and `logs/complexity/rgb.json`."""
    values = rgb_values(read_yaml(PARAMS_FILE))
    sections, params = HeadSections.load(values), load_section(ExportParams, "export", values)
    train, val = sections.open_split("train"), sections.open_split("val")
    model, checkpoint = load_head(MODELS, params.checkpoint, sections, val)
    inputs = ExportInputs(
        head=model,
        checkpoint=checkpoint,
        file=MODELS / params.checkpoint,
        sections=as_backbone(sections),
        train=train,
        val=val,
        pictures=INDEX / "val/pictures",
        backbone=Path("models/onnx/unet/backbone.onnx"),
        scales={},
    )
    paths = ExportPaths(Path("models/onnx") / NAME, Path(f"metrics/export/{NAME}.json"), Path(f"logs/complexity/{NAME}.json"))
    export(inputs, params, paths)


if __name__ == "__main__":
    run_stage("rgb_export", main, check_all=True)
