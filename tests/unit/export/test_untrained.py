"""Tests of roiseg.export.untrained and its command: before extraction and training, of a checkpoint, and what is refused."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from export_factory import Exported, shared_export
from onnx import numpy_helper
from ruamel.yaml import YAML
from store_factory import DATASET, MODEL, extractor_params, make_checkpoint, shared_project
from typer.testing import CliRunner

from roiseg.cli import app
from roiseg.cut_graph import CutGraph
from roiseg.errors import CheckpointError, GraphError, RoisegError, UnwritableError
from roiseg.export import untrained
from roiseg.export.metadata import Learnt
from roiseg.export.parity import Parity
from roiseg.export.untrained import Deployed, deploy, layer_specs
from roiseg.extractor.session import Backbone
from roiseg.files import sha256_file
from roiseg.heads import build_head, parse_model
from roiseg.params import read_yaml
from roiseg.train.checkpoint import save_checkpoint
from roiseg.types import FeatureSpec

PARAMS = Path(__file__).parents[3] / "params.yaml"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return shared_export(tmp_path_factory)


@pytest.fixture
def place(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a cut detector and nothing else."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/backbone.onnx").write_bytes(exported.project.backbone.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values_of(exported: Exported, **changes: object) -> dict[str, Any]:
    """Whole params: those of the repository, with the sections of the small project."""
    sections = exported.project.sections()
    own = {
        "extractor": json.loads(extractor_params().model_dump_json()),
        "cache": json.loads(sections.cache.model_dump_json()),
        "dataset": dict(DATASET),
        "model": dict(MODEL),
    }
    return {**read_yaml(PARAMS), **own, **changes}


def checkpoint_of(exported: Exported, values: dict[str, Any], path: Path, learnt_on: Mapping[str, Any] | None = None) -> Path:
    """A file that holds the exported head, with all sections that a run keeps."""
    given = make_checkpoint(exported.inputs.head, exported.inputs.val, parse_model(MODEL))
    params = {name: values[name] for name in ("dataset", "sampler", "model", "loss", "train")}
    save_checkpoint(path, replace(given, params=params, fingerprint=learnt_on or given.fingerprint))
    return path


def deployed(values: dict[str, Any], checkpoint: Path | None, out: Path) -> Deployed:
    """Export by the params.yaml that these values make."""
    with Path("params.yaml").open("w") as file:
        YAML().dump(values, file)
    return deploy(None, checkpoint, out)


def weights_in(path: Path) -> set[bytes]:
    return {numpy_helper.to_array(item).tobytes() for item in onnx.load(path).graph.initializer}


def test_fresh_weights_need_the_cut_detector_alone(exported: Exported, place: Path) -> None:
    """They are those that a run with this seed begins with."""
    values = values_of(exported)
    done = deployed(values, None, place / "out")
    assert {path.name for path in (place / "out").iterdir()} == {"head.onnx", "backbone.onnx", "head.json", "end_to_end.onnx"}
    assert (done.learnt.epoch, done.real_images) == (0, 0)
    assert 0 < done.parity.max_abs < 1e-4
    with torch.random.fork_rng():
        torch.manual_seed(values["train"]["seed"])
        fresh = build_head(parse_model(MODEL), exported.inputs.val.store.specs)
    held = weights_in(place / "out/head.onnx")
    assert all(item.detach().numpy().tobytes() in held for item in fresh.parameters() if item.ndim == 4)
    metadata = json.loads((place / "out/head.json").read_text())
    assert metadata["fingerprints"] == {
        "backbone_sha256": sha256_file(exported.project.backbone),
        "checkpoint_sha256": None,
        "store_sha256": None,
    }
    assert (metadata["epoch"], metadata["metrics"]) == (0, {})
    assert metadata["params"]["model"]["head"] == "roi_crop"
    assert done.lines()[0] == f"{place / 'out'}: backbone.onnx, end_to_end.onnx, head.json, head.onnx (fresh weights)"


def test_a_checkpoint_is_exported_by_its_own_params(exported: Exported, place: Path) -> None:
    """params.yaml has another head meanwhile; real ROIs are compared where the features are."""
    values = values_of(exported)
    file = checkpoint_of(exported, values, place / "best_model.pth")
    (place / "data/features").symlink_to(exported.project.features)
    (place / "data/index").symlink_to(exported.project.index)
    done = deployed({**values, "model": {**values["model"], "mid_channels": 4}}, place, place / "out")
    assert (done.learnt.epoch, done.real_images) == (3, len(exported.inputs.val.rows))
    assert weights_in(place / "out/head.onnx") == weights_in(exported.folder / "head.onnx")
    metadata = json.loads((place / "out/head.json").read_text())
    assert metadata["metrics"] == {"miou_fg_roi": 0.5}
    assert metadata["params"]["model"]["mid_channels"] == MODEL["mid_channels"]
    assert metadata["fingerprints"]["checkpoint_sha256"] == sha256_file(file)
    assert len(metadata["fingerprints"]["store_sha256"]) == 64
    assert f"and {done.real_images} validation images" in done.lines()[1]


def refused(exported: Exported, match: str, error: type[RoisegError], checkpoint: Path | None = None, **changes: object) -> None:
    """The export fails before anything is written."""
    with pytest.raises(error, match=match):
        deployed(values_of(exported, **changes), checkpoint, Path("out"))
    assert not Path("out").exists()


def test_without_a_cut_detector(exported: Exported, place: Path) -> None:
    (place / "data/backbone.onnx").unlink()
    refused(exported, r"data/backbone\.onnx: isn't there, expected the cut detector; run `dvc repro backbone`", GraphError)


def test_a_detector_that_was_cut_otherwise(exported: Exported, place: Path) -> None:
    extractor = {**values_of(exported)["extractor"], "input_hw": [96, 64]}
    match = r"was cut by other params \(input_hw \(64, 96\) there, \(96, 64\) in params.yaml\); run `dvc repro backbone`"
    refused(exported, match, GraphError, extractor=extractor)


def test_a_layer_that_the_detector_lacks(exported: Exported, place: Path) -> None:
    model = {**MODEL, "layers": ["layer_34", "layer_7"]}
    refused(
        exported, r"lacks layer_7, which model\.layers names, and has layer_34, layer_3, image; add it", GraphError, model=model
    )


def test_a_checkpoint_of_other_features(exported: Exported, place: Path) -> None:
    learnt = {**exported.inputs.val.store.asked, "input": {"hw": [64, 96], "resize": "letterbox", "color": "rgb", "pixel_max": 1.0}}
    file = checkpoint_of(exported, values_of(exported), place / "old.pth", learnt)
    match = r"old\.pth: was trained on other features than params\.yaml names.*\n.*input\.resize: .*letterbox.*stretch"
    refused(exported, match, CheckpointError, file)


def test_a_folder_of_something_else_is_left_alone(exported: Exported, place: Path) -> None:
    (place / "mine").mkdir()
    (place / "mine/thesis.tex").write_text("years of work")
    with pytest.raises(UnwritableError, match="mine: holds what no export wrote, expected a new folder or one of an export"):
        deployed(values_of(exported), None, Path("mine"))
    assert (place / "mine/thesis.tex").read_text() == "years of work"


def test_int8_before_and_after_calibration(
    exported: Exported, place: Path, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Fresh weights do with scales for values up to 1; weights that have learnt on others don't."""
    project = shared_project(tmp_path_factory, "int8")
    info = Backbone(project.backbone, "cpu", "float32", project.scales).info
    found = untrained._scales(info, trained=False)
    assert {name: values.shape for name, values in found.items()} == {"layer_34": (6,), "layer_3": (4,)}
    assert all((values * 127 == pytest.approx(1)) for values in found.values())
    assert (
        "data/scales.npz: isn't there yet; the backbone's layers are clipped to [-1, 1], run `dvc repro calibrate`" in caplog.text
    )
    with pytest.raises(GraphError, match=r"data/scales\.npz: isn't there, expected the scales that the head learnt on"):
        untrained._scales(info, trained=True)


def test_specs_are_those_of_the_store(exported: Exported, place: Path) -> None:
    info: CutGraph = Backbone(exported.project.backbone, "cpu", "float32").info
    found = layer_specs(info, exported.project.sections())
    assert found.pop("image") == FeatureSpec("image", 3, (1.0, 1.0))
    assert found == exported.inputs.val.store.specs


# --- the command ---


def test_the_command_says_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "try").mkdir()
    (tmp_path / "try/head.onnx").touch()
    asked = []

    def instead(head: str | None, checkpoint: Path | None, out: Path) -> Deployed:
        asked.append((head, checkpoint, out))
        return Deployed(out, Learnt.nothing({}), Parity(2e-7, 0.0), 0)

    monkeypatch.setattr(untrained, "deploy", instead)
    result = CliRunner().invoke(app, ["export", "--head", "baseline", "--out", "try"])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "try: head.onnx (fresh weights)",
        "  largest difference from torch 2.0e-07, on random input",
    ]
    assert asked == [("baseline", None, Path("try"))]


def test_a_head_or_a_checkpoint() -> None:
    result = CliRunner().invoke(app, ["export", "--head", "baseline", "--checkpoint", "best_model.pth"])
    assert result.exit_code == 1
    assert "--head is 'baseline' and --checkpoint best_model.pth, which brings its own; expected at most one" in result.output
