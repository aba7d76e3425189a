"""Stage `evaluate@{head}`: figures, plots and COCO results on the validation split."""

import sys
from pathlib import Path

import torch

from roiseg.coco import DataParams, prepared_name
from roiseg.console import run_stage
from roiseg.evaluate.evaluate import EvaluatePaths, Trained, evaluate
from roiseg.evaluate.params import EvaluateParams
from roiseg.params import load_params, load_section
from roiseg.trained import HEADS, HeadSections, load_head


def main(head: str) -> None:
    """Write what dvc.yaml lists as outs of the stage."""
    values = load_params(head)
    sections = HeadSections.load(values)
    split = load_section(DataParams, "data", values).val
    dataset = sections.open_split("val")
    params = load_section(EvaluateParams, "evaluate", values)
    module, checkpoint = load_head(HEADS / head, params.checkpoint, sections, dataset)
    trained = Trained(module, head, f"{params.checkpoint}, epoch {checkpoint.epoch}")
    annotations = Path("data/annotations") / prepared_name(split.annotations, split.subset)
    paths = EvaluatePaths.of(head, annotations, Path(params.detections))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    evaluate(trained, dataset, params, sections.reader, paths, device=device)


if __name__ == "__main__":
    run_stage(f"evaluate@{sys.argv[1]}", lambda: main(sys.argv[1]), check_all=True)
