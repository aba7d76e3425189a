"""Stage `prepare`: COCO files to person-only files, index tables, boxes of all categories and the fixed validation pictures."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from roiseg.coco import DataParams
from roiseg.console import run_stage
from roiseg.files import write_json
from roiseg.geometry import ResizeMode
from roiseg.objects import OBJECTS
from roiseg.params import PARAMS_FILE, Section, get_dotted, load_section, read_yaml
from roiseg.prepare import prepare

Side = Annotated[int, Field(ge=1)]


class _Frame(Section):
    """The two leaves of `extractor` that the unit frame depends on."""

    input_hw: tuple[Side, Side]
    resize: ResizeMode


def main() -> None:
    """Write `data/annotations`, `data/index`, `data/objects` and `metrics/prepare.json`."""
    values = read_yaml(PARAMS_FILE)
    frame = _Frame.parse({name: get_dotted(values, f"extractor.{name}") for name in _Frame.model_fields}, "extractor")
    params = load_section(DataParams, "data", values)
    counts = prepare(params, frame.input_hw, frame.resize, Path("data/annotations"), Path("data/index"), OBJECTS)
    write_json(Path("metrics/prepare.json"), counts)


if __name__ == "__main__":
    run_stage("prepare", main, check_all=True)
