"""Tests of roiseg.trained: sections of a head, and stores, tables and checkpoints that must fit them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from head_factory import MODELS, fresh_head
from store_factory import MODEL, Project, extractor_params, make_checkpoint, shared_project

from roiseg.errors import AnnotationError, CheckpointError, ParamsError, StoreError, StoreMismatchError
from roiseg.params import PARAMS_FILE, read_yaml
from roiseg.train.checkpoint import BEST, save_checkpoint
from roiseg.trained import HeadSections, load_head


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


def shipped() -> dict[str, Any]:
    return read_yaml(Path(__file__).parents[2] / PARAMS_FILE)


def test_sections_of_the_shipped_params() -> None:
    sections = HeadSections.load(shipped())
    assert sections.model.head == "roi_unet"
    assert set(sections.model.layers) <= set(sections.extractor.layers)


def test_missing_sections_are_named() -> None:
    values = shipped()
    del values["model"]
    with pytest.raises(ParamsError, match=r"model\.head: value is None"):
        HeadSections.load(values)
    with pytest.raises(ParamsError, match="dataset: the section is missing"):
        HeadSections.load({name: value for name, value in shipped().items() if name != "dataset"})


def test_open_split_joins_tables_and_store(project: Project) -> None:
    dataset = project.open("val")
    assert dataset.store.image_ids.tolist() == dataset.index.image_ids.tolist()
    assert dataset.layers == tuple(MODEL["layers"])
    assert dataset.mask_hw == (12, 10)
    assert dataset.index.network_hw == (64, 96)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": "letterbox"}, r"input\.resize: store has 'stretch', asked for 'letterbox'"),
        ({"input_hw": [64, 64]}, r"input\.hw: store has \[64, 96\], asked for \[64, 64\]"),
        ({"color": "bgr"}, r"input\.color: store has 'rgb', asked for 'bgr'"),
        (
            {"layers": {"layer_34": "/model.33/Concat_output_0"}},
            r"layers\.layer_34: store has '/model\.34/.*asked for '/model\.33",
        ),
    ],
)
def test_store_of_other_params(project: Project, changes: dict[str, Any], message: str) -> None:
    sections = replace(project.sections(), extractor=extractor_params(**changes))
    with pytest.raises(StoreMismatchError, match=message):
        sections.open_split("val", project.index, project.features)


def test_store_of_another_type(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = shared_project(tmp_path_factory, "int8")
    with pytest.raises(StoreMismatchError, match=r"dtype: store has 'int8', asked for 'float16'"):
        project.sections().open_split("val", project.index, other.features)


def test_speed_doesnt_matter(project: Project) -> None:
    sections = replace(project.sections(), extractor=extractor_params(batch_size=4, provider="auto", onnx="elsewhere.onnx"))
    assert len(sections.open_split("val", project.index, project.features).rows) == 4


def test_missing_store_and_tables(project: Project, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"val\.zarr: no feature store there"):
        project.sections().open_split("val", project.index, tmp_path)
    with pytest.raises(AnnotationError, match=r"no index tables there"):
        project.sections().open_split("val", tmp_path, project.features)


def test_load_head(project: Project, tmp_path: Path) -> None:
    sections, dataset = project.sections(), project.open("val")
    head = fresh_head(sections.model, dataset.store.specs, seed=5)
    save_checkpoint(tmp_path / "best_model.pth", make_checkpoint(head, dataset, sections.model))
    loaded, checkpoint = load_head(tmp_path, BEST, sections, dataset)
    assert checkpoint.epoch == 3
    assert not loaded.training
    assert all(torch.equal(value, head.state_dict()[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({**MODEL, "mask_hw": [10, 12], "blocks": 2}, r"another model \(mask_hw, blocks differ\); train it again \(`dvc repro`\)"),
        (MODELS["roi_unet"], r"another model \(head, .*differ\)"),
    ],
)
def test_load_head_of_another_model(project: Project, tmp_path: Path, model: dict[str, Any], message: str) -> None:
    sections, dataset = project.sections(), project.open("val")
    save_checkpoint(
        tmp_path / "best_model.pth", make_checkpoint(fresh_head(sections.model, dataset.store.specs), dataset, sections.model)
    )
    with pytest.raises(CheckpointError, match=message):
        load_head(tmp_path, BEST, project.sections(model), dataset)


def test_weights_of_another_shape(project: Project, tmp_path: Path) -> None:
    """As of a version of roiseg that built the same model otherwise."""
    sections, dataset = project.sections(), project.open("val")
    checkpoint = make_checkpoint(fresh_head(sections.model, dataset.store.specs), dataset, sections.model)
    name, *_ = checkpoint.model
    others = {key: value for key, value in checkpoint.model.items() if key != name} | {"extra": torch.zeros(2)}
    save_checkpoint(tmp_path / "best_model.pth", replace(checkpoint, model=others))
    with pytest.raises(CheckpointError, match=r"its weights don't fit the model \(shapes, checkpoint -> model\)") as caught:
        load_head(tmp_path, BEST, sections, dataset)
    shape = list(checkpoint.model[name].shape)
    assert f"  extra: [2] -> not there\n  {name}: not there -> {shape}\n" in str(caught.value)


def test_load_head_that_isnt_there(project: Project, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "gone", ignore_errors=True)
    with pytest.raises(CheckpointError, match=r"best_model\.pth: no such checkpoint"):
        load_head(tmp_path / "gone", BEST, project.sections(), project.open("val"))
