"""Tests of roiseg.doctor: it finds what is wrong, one fault hides no other, and it names the remedy."""

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from store_factory import Project, shared_project
from typer.testing import CliRunner

from roiseg import cli, doctor
from roiseg.doctor import Finding, examine

SHIPPED = Path(__file__).parents[2] / "params.yaml"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone, as far as the doctor looks."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(SHIPPED, "params.yaml")
    Path(".dvc").mkdir()
    return tmp_path


def change(section: str, **values: Any) -> None:  # noqa: ANN401 - YAML holds anything
    yaml = YAML()
    params = yaml.load(Path("params.yaml").read_text())
    params[section].update(values)
    with Path("params.yaml").open("w") as file:
        yaml.dump(params, file)


def found(what: str) -> list[Finding]:
    return [finding for finding in examine() if finding.what == what]


def test_a_fresh_clone_is_well(folder: Path) -> None:
    findings = list(examine())
    assert {finding.what for finding in findings} == {"python", "gpu", "providers", "params", "files", "dvc", "space"}
    assert not [finding for finding in findings if finding.state == "bad"]
    assert any("data/sample/backbone.onnx isn't there yet; `dvc repro` draws it" in finding.text for finding in findings)


def test_status_and_output(folder: Path) -> None:
    well = CliRunner().invoke(cli.app, ["doctor"])
    assert well.exit_code == 0
    assert "good params" in " ".join(well.output.split())
    change("extractor", onnx="nowhere/yolo.onnx")
    ill = CliRunner().invoke(cli.app, ["doctor"])
    assert ill.exit_code == 1
    assert "extractor.onnx: nowhere/yolo.onnx isn't there; put it there, or set extractor.onnx" in " ".join(ill.output.split())


def test_weights_that_nets_start_from(folder: Path) -> None:
    """Read hours after the run begins; what the hub has is no file."""
    values = YAML(typ="safe").load(Path("params.yaml").read_text())
    change("unet", model=values["unet"]["model"] | {"checkpoint": "weights/b3.pth", "encoder_weights": "not/read.pth"})
    change("distill", model=values["distill"]["model"] | {"encoder_weights": "imagenet"})
    faults = [finding.text for finding in found("files") if finding.state == "bad"]
    assert faults == [
        "unet.model.checkpoint: weights/b3.pth isn't there; put it there, or set unet.model.checkpoint in params.yaml"
    ]
    change("distill", model=values["distill"]["model"] | {"encoder_weights": "weights/b0.pth"})
    assert any("distill.model.encoder_weights: weights/b0.pth isn't there" in finding.text for finding in found("files"))


def test_faulty_params_hide_nothing_else(folder: Path) -> None:
    change("train", epochs="many", leraning_rate=1)
    assert [finding.state for finding in found("params")] == ["bad"]
    assert "2 faults in the params" in found("params")[0].text
    assert found("dvc")[0].state == "good"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_asked_for_and_absent(folder: Path) -> None:
    change("extractor", provider="cuda")
    good, bad = found("providers")
    assert good.text.startswith("cpu load; extractor.provider is 'cuda'")
    assert bad.state == "bad"
    assert "there is no CUDA device here" in bad.text
    assert found("gpu")[0].state == "note"


def test_dvc_elsewhere_or_absent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "links_into", lambda *_: False)
    assert "DVC copies every out; set cache.dir to a folder beside the repository" in found("dvc")[0].text
    Path(".dvc").rmdir()
    assert "no .dvc folder here" in found("dvc")[0].text


@pytest.mark.parametrize(("free", "state"), [(10**12, "good"), (1000, "bad")])
def test_room_for_the_stores(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    project: Project = shared_project(tmp_path_factory, "int8")
    Path("data").mkdir()
    shutil.copyfile(project.backbone, "data/backbone.onnx")
    shutil.copytree(project.index, "data/index")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**13, 0, free))
    (finding,) = found("space")
    assert finding.state == state
    good, bad = "stores to be written: train 0.00 GB, val 0.00 GB; they fit", "GB are free, but the store takes"
    assert (good if state == "good" else bad) in finding.text
    for split in ("train", "val"):
        (Path("data/features") / f"{split}.zarr").mkdir(parents=True)
    assert found("space")[0].text == "no store is left to be written"
