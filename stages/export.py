"""Stage `export@{head}`: ONNX files, and the proof that they agree with torch."""

import sys
from pathlib import Path

from roiseg.cache.scales import load_scales
from roiseg.console import run_stage
from roiseg.export.export import ExportInputs, ExportParams, export
from roiseg.params import load_params, load_section
from roiseg.trained import HEADS, HeadSections, load_head


def main(head: str) -> None:
    """Write `models/onnx/{head}` and `metrics/export/{head}.json`."""
    values = load_params(head)
    sections = HeadSections.load(values)
    val = sections.open_split("val")
    params = load_section(ExportParams, "export", values)
    model, checkpoint = load_head(HEADS / head, params.checkpoint, sections, val)
    inputs = ExportInputs(model, checkpoint, val, Path("data/backbone.onnx"), load_scales(Path("data/scales.npz")))
    export(
        inputs,
        params,
        Path("models/onnx") / head,
        Path(f"metrics/export/{head}.json"),
    )


if __name__ == "__main__":
    run_stage(f"export@{sys.argv[1]}", lambda: main(sys.argv[1]), check_all=True)
