"""Stage `export@{head}`: ONNX files, and the proof that they agree with torch."""

import sys
from pathlib import Path

from roiseg.cache.scales import load_scales
from roiseg.console import run_stage
from roiseg.export.export import ExportInputs, ExportPaths, export
from roiseg.export.params import ExportParams
from roiseg.params import load_params, load_section
from roiseg.trained import HEADS, INDEX, HeadSections, load_head


def main(head: str) -> None:
    """Write `models/onnx/{head}`, `metrics/export/{head}.json` and `logs/complexity/{head}.json`."""
    values = load_params(head)
    sections = HeadSections.load(values)
    params = load_section(ExportParams, "export", values)
    train, val = sections.open_split("train"), sections.open_split("val")
    model, checkpoint = load_head(HEADS / head, params.checkpoint, sections, val)
    inputs = ExportInputs(
        head=model,
        checkpoint=checkpoint,
        file=HEADS / head / params.checkpoint,
        sections=sections,
        train=train,
        val=val,
        pictures=INDEX / "val/pictures",
        backbone=Path("data/backbone.onnx"),
        scales=load_scales(Path("data/scales.npz")),
    )
    paths = ExportPaths(
        out=Path("models/onnx") / head, figures=Path(f"metrics/export/{head}.json"), times=Path(f"logs/complexity/{head}.json")
    )
    export(inputs, params, paths)


if __name__ == "__main__":
    run_stage(f"export@{sys.argv[1]}", lambda: main(sys.argv[1]), check_all=True)
