"""Boxes that are snapped before masks are made: by `roiseg predict --snap`, and what it changes by `roiseg snap-effect`."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from export_factory import shared_export
from snap_factory import shared_section
from steps_snapper import bright_boxes, snapper_told, write_snapper
from typer.testing import CliRunner

from roiseg.batches import Loading
from roiseg.cli import app
from roiseg.coco import load_prepared
from roiseg.evaluate.coco_truth import Truth
from roiseg.predict import Predictor
from roiseg.predict.snapping import snapper_for
from roiseg.snap import Snapper
from roiseg.snap_effect import KINDS, RoughPeople, measure

ROUGH = np.array([[35.0, 35.0, 98.0, 95.0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapper(tmp_path_factory.mktemp("snapper"))


def test_a_backbone_is_run_once_where_one_will_do(folder: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    exported = shared_export(tmp_path_factory)
    predictor = Predictor(exported.folder, "cpu")
    pixels = bright_boxes((150, 220), [(40, 30, 90, 100)])
    apart = snapper_for(predictor, folder, "cpu")
    assert not apart.shared
    (encoded,) = predictor.encode([pixels])
    found = apart(encoded, pixels, ROUGH, "here")
    assert found[0] == pytest.approx([40, 30, 90, 100], abs=4)
    assert apart(encoded, pixels, np.zeros((0, 4)), "here").shape == (0, 4)
    rule = predictor.metadata["input"]
    assert rule["hw"] != snapper_told()["input"]["hw"]
    # A Snapper of the image alone needs nothing but the same input rule.
    same = Predictor(exported.folder, "cpu")
    same.metadata["input"] = snapper_told()["input"]
    assert snapper_for(same, folder, "cpu").shared
    (both,) = same.encode([pixels])
    assert "features_image" in both.features
    assert len(same.masks(both, ROUGH)) == 1


def test_the_command_snaps_boxes_first(folder: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    exported = shared_export(tmp_path_factory)
    cv2.imwrite(str(tmp_path / "a.png"), bright_boxes((150, 220), [(40, 30, 90, 100)]))
    arguments = ["predict", str(tmp_path / "a.png"), "--boxes", "35,35,98,95", "--model", str(exported.folder), "--provider", "cpu"]
    for name, more in (("plain", []), ("snapped", ["--snap", "--snapper", str(folder)])):
        done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / name), *more])
        assert done.exit_code == 0, done.output
    plain, snapped = ((tmp_path / name / "predictions.json").read_text() for name in ("plain", "snapped"))
    assert json.loads(plain) != json.loads(snapped)


def test_the_effect(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = shared_export(tmp_path_factory)
    val, project = exported.project.open("val"), exported.project
    told = {"input": {"hw": list(val.index.network_hw), "resize": val.index.mode, "color": "rgb", "pixel_max": 1.0}}
    snapper = Snapper(write_snapper(tmp_path_factory.mktemp("effect"), **told), "cpu")
    truth = Truth(load_prepared(project.annotations("val")))
    people = RoughPeople(val, snapper, shared_section())
    monkeypatch.setattr(people, "snapped", lambda _row, rough: rough)  # the store of this project has no image
    effect = measure("default", exported.inputs.head, people, truth, Loading(2, 1, 1))
    assert set(effect.figures) == set(KINDS)
    assert effect.figures["annotated"]["box_iou"] == pytest.approx(1)
    assert 0.6 < effect.figures["rough"]["box_iou"] < 0.95
    assert effect.figures["rough"] == effect.figures["snapped"]
    assert effect.people == sum(len(people.annotated(int(row))) for row in val.rows)
    assert [line.split()[0] for line in effect.lines()[1:]] == list(KINDS)
    assert effect.flat()["rough_ap"] == pytest.approx(effect.figures["rough"]["ap"], abs=1e-6)
