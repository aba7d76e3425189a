"""Tests of roiseg.evaluate.infer: passes of a head are bounded, and leave the ROIs of an image together."""

import numpy as np
import pytest
import torch
from head_factory import COMPOSED, fresh_head
from store_factory import MODEL, Project, shared_project

from roiseg.batches import Loading
from roiseg.evaluate.infer import pass_sizes, predictions, run_head
from roiseg.export.onnx import example_inputs
from roiseg.geometry import Floats
from roiseg.heads import parse_model
from roiseg.types import MAX_ROIS, FeatureSpec

SPECS = {"layer_34": FeatureSpec("layer_34", 6, (8.0, 8.0)), "layer_3": FeatureSpec("layer_3", 4, (4.0, 4.0))}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], [0]),
        ([1], [1]),
        ([20, 20, 20], [60]),
        ([40, 24, 1], [64, 1]),
        ([40, 40, 40], [40, 40, 40]),
        ([289], [64, 64, 64, 64, 33]),
        ([10, 289, 31, 1], [10, 64, 64, 64, 64, 64, 1]),
    ],
)
def test_images_stay_together_where_they_fit(counts: list[int], expected: list[int]) -> None:
    images = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.int64)).float()
    assert MAX_ROIS == 64
    assert pass_sizes(images) == expected


def test_rois_that_hear_each_other_say_the_same_in_any_batch() -> None:
    params = parse_model({**COMPOSED, "head": "coarse", "relational": {"heads": 2, "dropout": 0.0}})
    head = fresh_head(params, SPECS)
    *maps, boxes = example_inputs(list(SPECS.values()), (64, 96), 2, 80, seed=0)
    boxes[:, 0] = (torch.arange(80) >= 40).float()
    with torch.no_grad():
        together = run_head(head, dict(zip(SPECS, maps, strict=True)), boxes)
        second = {name: values[1:] for name, values in zip(SPECS, maps, strict=True)}
        alone = run_head(head, second, boxes[40:] - torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(together[40:], alone, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def test_further_boxes_are_asked_of_every_image_in_the_same_pass_over_the_features(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The annotated boxes as further ones get the annotated ones' answers; an image without ROIs is asked about too."""
    dataset = project.open("val")
    head, device = fresh_head(parse_model(MODEL), dataset.store.specs), torch.device("cpu")
    without, start = int(dataset.rows[1]), len(dataset.index.people(int(dataset.rows[0])).boxes)
    has_roi = dataset.index._has_roi.copy()
    has_roi[start : start + len(dataset.index.people(without).boxes)] = False
    monkeypatch.setattr(dataset.index, "_has_roi", has_roi)
    monkeypatch.delitem(vars(dataset.index), "rois_per_image")
    dataset = dataset.read_by(dataset.layers, dataset.mask_hw)

    def further(row: int) -> Floats:
        if row == without:
            return np.array([[0.1, 0.2, 0.6, 0.9]])
        return dataset.index.people(row).boxes[dataset.index.people(row).roi_numbers]

    found = list(predictions(head, dataset, device, Loading(2, 1, 1), rows=range(len(dataset.index)), further=further))
    assert [row for item in found for row in item.batch.rows] == list(range(len(dataset.index)))
    seen = 0
    for item in found:
        places = item.further[:, 0].long()
        own = torch.tensor([item.batch.rows[place] != without for place in places.tolist()])
        torch.testing.assert_close(item.further[own], item.batch.boxes)
        torch.testing.assert_close(item.further_logits[own], item.logits, atol=1e-5, rtol=1e-5)
        seen += int((~own).sum())
    assert seen == 1
    plain = list(predictions(head, dataset, device, Loading(2, 1, 1)))
    assert without not in [row for item in plain for row in item.batch.rows]
    assert all(len(item.further) == len(item.further_logits) == 0 for item in plain)
