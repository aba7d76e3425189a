"""Stage `analyze`: statistics of the person-only train annotations, and class weights."""

from pathlib import Path

from pydantic import Field

from roiseg.analyze.params import AnalyzeParams
from roiseg.analyze.run import analyze
from roiseg.console import run_stage
from roiseg.params import PARAMS_FILE, Section, get_dotted, load_section, read_yaml


class _Padding(Section):
    """The one leaf of `dataset` that this stage depends on."""

    roi_padding: float = Field(ge=0, allow_inf_nan=False)


def main() -> None:
    """Write `metrics/data_analyze.json`, `data/rois.parquet` and `metrics/analyze`."""
    values = read_yaml(PARAMS_FILE)
    shared = _Padding.parse({"roi_padding": get_dotted(values, "dataset.roi_padding")}, "dataset")
    params = load_section(AnalyzeParams, "analyze", values)
    report, rois, folder = Path("metrics/data_analyze.json"), Path("data/rois.parquet"), Path("metrics/analyze")
    analyze(params, shared.roi_padding, report, rois, folder)


if __name__ == "__main__":
    run_stage("analyze", main)
