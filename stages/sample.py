"""Stage `sample`: draws the built-in data set and trains the sample backbone, where the params use them."""

import logging
from pathlib import Path

from roiseg.console import run_stage
from roiseg.files import new_folder
from roiseg.params import PARAMS_FILE, get_dotted, load_section, read_yaml
from roiseg.sample.generate import generate
from roiseg.sample.params import SampleParams

OUT = Path("data/sample")
USERS = ("data.train.annotations", "data.val.annotations", "extractor.onnx")


def main() -> None:
    """Write `data/sample`; only a note where nothing in the params points there."""
    values = read_yaml(PARAMS_FILE)
    params = load_section(SampleParams, "sample", values)
    if any(Path(get_dotted(values, key)).is_relative_to(OUT) for key in USERS):
        generate(params, OUT)
        return
    logging.getLogger("sample").info("%s isn't used by %s: not drawn", OUT, ", ".join(USERS))
    with new_folder(OUT) as folder:
        (folder / "NOT_DRAWN.txt").write_text("params.yaml points data and extractor elsewhere\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage("sample", main)
