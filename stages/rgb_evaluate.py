"""Stage `rgb_evaluate`: figures, plots and COCO results of the head on pixels."""

from pathlib import Path

import torch

from roiseg.coco import DataParams, prepared_name
from roiseg.console import run_stage
from roiseg.evaluate.evaluate import EvaluatePaths, Trained, evaluate
from roiseg.evaluate.params import EvaluateParams
from roiseg.params import PARAMS_FILE, load_section, read_yaml
from roiseg.rgb import MODELS, NAME, rgb_values
from roiseg.trained import HeadSections, load_head


def main() -> None:
    """Write what dvc.yaml lists as outs of the stage."""
    values = rgb_values(read_yaml(PARAMS_FILE))
    sections, params = HeadSections.load(values), load_section(EvaluateParams, "evaluate", values)
    split, dataset = load_section(DataParams, "data", values).val, sections.open_split("val")
    module, checkpoint = load_head(MODELS, params.checkpoint, sections, dataset)
    annotations = Path("data/annotations") / prepared_name(split.annotations, split.subset)
    paths = EvaluatePaths.of(NAME, annotations, Path(params.detections))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = Trained(module, NAME, f"{params.checkpoint}, epoch {checkpoint.epoch}")
    evaluate(trained, dataset, params, sections.reader, paths, device=device)


if __name__ == "__main__":
    run_stage("rgb_evaluate", main, check_all=True)
