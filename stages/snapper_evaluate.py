"""Stage `snapper_evaluate`: figures of the snapper beside its baselines, curves, pictures, and what makes its confidences true."""

import torch

from roiseg.console import run_stage
from roiseg.params import PARAMS_FILE, load_section, read_yaml
from roiseg.snapper.build import load_snapper
from roiseg.snapper.evaluate import SnapEvaluatePaths, evaluate_snapper
from roiseg.snapper.params import SnapperParams
from roiseg.snapper.split import MODELS, open_boxes
from roiseg.stored import StoredSections


def main() -> None:
    """Write what dvc.yaml lists as outs of the stage."""
    values = read_yaml(PARAMS_FILE)
    params, stored = load_section(SnapperParams, "snapper", values), StoredSections.load(values)
    dataset = open_boxes(params, stored, "val")
    module = load_snapper(MODELS / params.export.checkpoint, params.model, dataset.store.specs, stored.extractor.input_hw)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    paths = SnapEvaluatePaths()
    evaluate_snapper(module, dataset, params.decision, params.confidence, stored.reader, paths, device=device)


if __name__ == "__main__":
    run_stage("snapper_evaluate", main, check_all=True)
