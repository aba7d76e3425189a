"""Stage `evaluate@{head}`: figures, plots and COCO results on the validation split."""

import sys
from pathlib import Path

from roiseg.coco import DataParams, prepared_name
from roiseg.console import run_stage
from roiseg.evaluate.evaluate import EvaluateParams, EvaluatePaths, evaluate
from roiseg.params import load_params, load_section
from roiseg.trained import HEADS, INDEX, HeadSections, load_head


def main(head: str) -> None:
    """Write `metrics/evaluate/{head}.json`, `metrics/plots/{head}` and `data/predictions/{head}.json`."""
    values = load_params(head)
    sections = HeadSections.load(values)
    split = load_section(DataParams, "data", values).val
    dataset = sections.open_split("val")
    params = load_section(EvaluateParams, "evaluate", values)
    model, _ = load_head(HEADS / head, params.checkpoint, sections, dataset)
    paths = EvaluatePaths(
        annotations=Path("data/annotations") / prepared_name(split.annotations, split.subset),
        pictures=INDEX / "val" / "pictures",
        figures=Path(f"metrics/evaluate/{head}.json"),
        plots=Path(f"metrics/plots/{head}"),
        results=Path(f"data/predictions/{head}.json"),
    )
    evaluate(model, dataset, params, sections.reader, paths)


if __name__ == "__main__":
    run_stage(f"evaluate@{sys.argv[1]}", lambda: main(sys.argv[1]), check_all=True)
