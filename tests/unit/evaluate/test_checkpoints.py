"""Tests of roiseg.evaluate.checkpoints and the command: any checkpoint, with its own params, on the prepared split."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from head_factory import MODELS, every_part, fresh_head
from pycocotools.coco import COCO
from ruamel.yaml import YAML
from store_factory import NETWORK_HW, TENSORS, Project, make_checkpoint, shared_project
from trainer_factory import sections_of, with_everything
from typer.testing import CliRunner, Result

from roiseg import cli
from roiseg.batches import Loading
from roiseg.cache.params import ReaderParams
from roiseg.coco import prepared_name
from roiseg.dataset import RoiDataset
from roiseg.errors import ResultsError
from roiseg.evaluate import checkpoints
from roiseg.evaluate.checkpoints import active_features, result_names
from roiseg.evaluate.chosen import only_detections
from roiseg.evaluate.detections import COLUMNS
from roiseg.evaluate.evaluate import EvaluatePaths, Trained
from roiseg.evaluate.infer import Score, predictions
from roiseg.evaluate.params import EvaluateParams
from roiseg.evaluate.table import RoiTable
from roiseg.files import write_json, write_parquet
from roiseg.heads import parse_model
from roiseg.params import PARAMS_FILE, overlay, read_yaml
from roiseg.train.checkpoint import Checkpoint, save_checkpoint

SHIPPED = Path(__file__).parents[3] / PARAMS_FILE
BEST = "models/heads/{}/best_model.pth"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


@pytest.fixture
def whole(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared project to be in, with features and without heads."""
    values = read_yaml(SHIPPED)
    values["extractor"] |= {"layers": dict(TENSORS), "input_hw": list(NETWORK_HW), "onnx": "detector.onnx"}
    values["cache"]["dtype"] = project.dtype
    values["evaluate"]["images_per_batch"] = 2
    with (tmp_path / PARAMS_FILE).open("w") as file:
        YAML(typ="safe").dump(values, file)
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        name = prepared_name(values["data"][split]["annotations"], "full")
        shutil.copyfile(project.annotations(split), tmp_path / "data" / "annotations" / name)
    detections = pd.DataFrame({name: [] for name in COLUMNS}).astype({"row": np.int64, "image_id": np.int64})
    for split in ("train", "val"):
        write_parquet(tmp_path / "data" / "detections" / f"{split}.parquet", detections)
    for name in ("index", "features"):
        (tmp_path / "data" / name).symlink_to(getattr(project, name))
    (tmp_path / "metrics").mkdir()
    shutil.copyfile(project.statistics, tmp_path / "metrics" / "data_analyze.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def figures_alone(
    head: Trained,
    dataset: RoiDataset,
    params: EvaluateParams,
    reader: ReaderParams,
    paths: EvaluatePaths,
    *,
    device: torch.device,
) -> dict[str, float]:
    """`evaluate`, without all that takes long; its results are the image of each ROI and the sum of its logits."""
    score = Score.empty()
    results: list[dict[str, float]] = []
    loading = Loading(params.images_per_batch, reader.load_threads, reader.ahead)
    for prediction in predictions(head.module, dataset, device, loading):
        score.add(prediction)
        images = [
            dataset.index.people(prediction.batch.rows[number]).image_id for number in prediction.batch.boxes[:, 0].int().tolist()
        ]
        sums = prediction.logits.sum(dim=(1, 2, 3)).tolist()
        results += [{"image_id": image, "sum": round(value, 2)} for image, value in zip(images, sums, strict=True)]
    rois = int(dataset.index.rois_per_image.sum())
    figures = {**score.figures(), "images": len(dataset.rows), "rois": rois}
    write_json(paths.results, results)
    return figures


@pytest.fixture
def root(whole: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, for what doesn't ask about reports."""
    monkeypatch.setattr(checkpoints, "evaluate", figures_alone)
    return whole


def checkpoint_of(project: Project, family: str = "roi_crop", seed: int = 5, **sections: Mapping[str, Any]) -> Checkpoint:
    """As if a random head had been trained; `sections` are laid over its params."""
    described = sections_of(project, family).described()
    params = {name: overlay(values, sections.get(name, {})) for name, values in described.items()}
    dataset, model = project.open("val", params["model"]), parse_model(params["model"])
    return replace(make_checkpoint(fresh_head(model, dataset.store.specs, seed), dataset, model), params=params)


def keep(checkpoint: Checkpoint, name: str = "first") -> Path:
    path = Path(BEST.format(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, checkpoint)
    return path


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(cli.app, ["evaluate", "--device", "cpu", *(str(item) for item in arguments)])
    assert result.exit_code == status, result.output
    return result


def figures_of(folder: Path) -> dict[str, float]:
    (path,) = folder.glob("*_validation_metrics.json")
    return dict(json.loads(path.read_text()))


# --- one checkpoint ---


def test_a_checkpoint_is_rebuilt_from_its_own_params(project: Project, whole: Path) -> None:
    """params.yaml says roi_unet on three layers; the checkpoint is another head."""
    path = keep(checkpoint_of(project, "multiscale"))
    text = run(path, "--out", "out").stdout
    folder = whole / "out" / "first-best_model"
    figures = figures_of(folder)
    assert (folder / "best_model_validation_metrics.json").is_file()
    lines = text.splitlines()
    assert lines[0].startswith(f"{path}: epoch 3, multiscale on layer_34+layer_3; inputs (fusion adaptive)")
    assert lines[1].strip() == f"4 images, {project.open('val').index.rois_per_image.sum()} ROIs of val"
    for title, name in (("loss", "loss_total"), ("CE", "loss_ce"), ("Dice", "loss_dice"), ("iou_bg", "iou_bg")):
        assert re.search(rf"\b{title} {figures[name]:.4f}", text), name
    assert f"miou_fg_roi {figures['miou_fg_roi']:.4f}, iou_target_roi {figures['iou_target_roi']:.4f}" in text
    assert lines[-1].strip() == "out/first-best_model"
    annotations = COCO(str(whole / "data" / "annotations" / "instances_val_person_only_no_crowd.json"))
    assert len(annotations.loadRes(str(folder / "results.json")).anns) == figures["rois"]
    assert (folder / "plots" / "validation_two_row.png").is_file()
    assert len(RoiTable.read(folder / "rois.parquet")) == figures["rois"]
    assert "first-best_model" in (folder / "report.html").read_text()


def test_losses_are_those_of_all_pixels_and_rois(project: Project, root: Path) -> None:
    checkpoint = checkpoint_of(project)
    run(keep(checkpoint))
    found = figures_of(root / "validation_results" / "first-best_model")
    dataset = project.open("val")
    head = fresh_head(parse_model(MODELS["roi_crop"]), dataset.store.specs, seed=5)
    entropies, dices = [], []
    for row in dataset.rows.tolist():
        sample = dataset.whole_sample(row)
        features = {name: torch.from_numpy(dataset.store.read(row, [name])[name][None]).float() for name in dataset.layers}
        boxes = torch.from_numpy(np.concatenate([np.zeros((len(sample.boxes), 1)), sample.boxes], axis=1)).float()
        with torch.no_grad():
            guess = head(features, boxes).mask_logits.softmax(dim=1).double().numpy()
        for probabilities, labels in zip(guess, sample.labels, strict=True):
            entropies.append(-np.log(np.take_along_axis(probabilities, labels[None].astype(int), axis=0)).mean())
            for label in (1, 2):
                said, true = probabilities[label], labels == label
                dices.append(1 - (2 * said[true].sum() + 1) / (said.sum() + true.sum() + 1))
    assert found["loss_ce"] == pytest.approx(np.mean(entropies), abs=2e-6)
    assert found["loss_dice"] == pytest.approx(np.mean(dices), abs=2e-6)
    assert found["loss_total"] > found["loss_ce"], "pixel weights, and Dice on top"


def test_own_loss_is_that_of_its_epoch(project: Project, root: Path) -> None:
    """CE alone, with weights that rise on hard pixels towards the end of a run."""
    loss = {"dice": 0.0, "boundary_weight": 1.0, "instance_sep_weight": 1.0, "class_weights": {"mode": "none"}}
    run(keep(checkpoint_of(project, loss=loss), "flat"))
    rising = loss | {"adaptive": {"curve": "linear", "end_boundary_weight": 50.0, "end_instance_sep_weight": 1.0}}
    shutil.rmtree("metrics")  # no class weights, so nothing to read
    for name, epoch in (("begin", 1), ("end", 4)):
        run(keep(replace(checkpoint_of(project, loss=rising), epoch=epoch), name))
    flat, begin, end = (figures_of(root / "validation_results" / f"{name}-best_model") for name in ("flat", "begin", "end"))
    assert begin["loss_total"] == pytest.approx(flat["loss_total"], abs=1e-6)
    assert abs(end["loss_total"] - flat["loss_total"]) > 1e-3
    assert begin["loss_ce"] == end["loss_ce"] == flat["loss_ce"]


@pytest.mark.parametrize("family", ["variable_roi", "hierarchical_unet_v1", "positional"])
def test_losses_of_branches(project: Project, root: Path, family: str) -> None:
    """Cascade, auxiliary outputs, dynamic weights; and the whole map, which a head gives only while it trains."""
    model, loss = with_everything(family)
    if loss["hierarchical"]:
        loss["hierarchical"] |= {"bg": 1.0, "dynamic": True}
    checkpoint = checkpoint_of(project, family, model=model, loss=loss)
    state = {"bg": 3.0, "fg": 0.5, "target": 1.0, "non_target": 1.0}
    totals = []
    for name, batch in (("one", 1), ("two", 4)):
        result = run(keep(replace(checkpoint, loss=[state]), name), "--set", f"evaluate.images_per_batch={batch}")
        assert ("(without full_map)" in result.stdout) == (family == "positional")
        totals.append(figures_of(root / "validation_results" / f"{name}-best_model")["loss_total"])
    assert all(np.isfinite(total) for total in totals)


# --- changes ---


def test_changes_have_an_effect(project: Project, root: Path) -> None:
    path = keep(checkpoint_of(project))
    run(path, "--out", "plain")
    run(path, "--out", "padded", "--set", "dataset.roi_padding=0.3")
    run(path, "--out", "weighed", "--set", "loss.dice=0", "--set", "+loss.focal_gamma=2.0")
    run(path, "--out", "batched", "--set", "evaluate.images_per_batch=4")
    plain, padded, weighed, batched = (
        figures_of(root / name / "first-best_model") for name in ("plain", "padded", "weighed", "batched")
    )
    assert padded["loss_ce"] != plain["loss_ce"]
    assert weighed["loss_total"] < plain["loss_total"]
    assert {key: value for key, value in weighed.items() if key != "loss_total"} == pytest.approx(
        {key: value for key, value in plain.items() if key != "loss_total"}
    )
    assert batched == pytest.approx(plain, abs=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "dataset.roi_pading=0.1",
            "ParamsError: 1 fault in the params: dataset.roi_pading: unknown key; did you mean 'roi_padding'",
        ),
        ("dataset.roi_padding=wide", "dataset.roi_padding: value is 'wide'; input should be a valid number"),
        ("evaluate.images_per_batch=0", "evaluate.images_per_batch: value is 0; input should be greater than or equal to 1"),
        ("~loss.ce", "loss.ce: missing"),
        ("~loss.cee", "--set ~loss.cee: not there, so that it can't be removed; did you mean 'ce'"),
        ("loss.ce.x=1", "--set loss.ce.x: loss.ce is 1.0, which has no keys; set it whole"),
        ("loss.hierarchicle.bg=1", "loss.hierarchicle is missing; did you mean 'hierarchical'"),
        ("loss.contrastive={weight:0.1,temperature:0.1,samples:8}", "loss.contrastive: reads the outputs embedding of a head"),
        (
            "train.lr=1",
            "--set train.lr: without effect on how a checkpoint is evaluated, expected a key of dataset, evaluate, loss, model, "
            "reader, such as dataset.roi_padding=0.1",
        ),
        ("evaluate.checkpoint=a.pth", "--set evaluate.checkpoint: without effect"),
        ("losss.ce=1", "--set losss.ce: without effect on how a checkpoint is evaluated, expected a key of"),
        ("loss=1", "--set loss: without effect on how a checkpoint is evaluated, expected a key of"),
        ("loss.ce", "--set 'loss.ce': missing EQUAL at '<EOF>'; expected key=value, such as evaluate.images_per_batch=2"),
        ("loss.ce=1,2", "--set 'loss.ce=1,2': stands for several values, expected one; put a list in brackets"),
        ("model.mid_channels=4", "its weights don't fit the model (shapes, checkpoint -> model)"),
    ],
)
def test_wrong_changes(project: Project, root: Path, change: str, message: str) -> None:
    result = run(keep(checkpoint_of(project)), "--set", change, status=1)
    assert message in " ".join(result.stderr.split())
    assert not (root / "validation_results").exists()


# --- some images ---


@pytest.mark.parametrize(("images", "count"), [("1", 1), ("3", 3), ("99", 4), ("fixed", 2), ("all", 4)])
def test_some_images(project: Project, root: Path, images: str, count: int) -> None:
    run(keep(checkpoint_of(project)), "--images", images)
    folder = root / "validation_results" / f"first-best_model{'' if images == 'all' else f'-{images}'}"
    figures = figures_of(folder)
    seen = {item["image_id"] for item in json.loads((folder / "results.json").read_text())}
    assert (figures["images"], len(seen)) == (count, count)
    index = project.open("val").index
    rows = np.flatnonzero(np.isin(index.image_ids, list(seen)))
    assert figures["rois"] == index.rois_per_image[rows].sum()
    if images == "3":
        assert rows.tolist() == [0, 2, 3], "spread evenly"


def test_results_of_an_image_are_those_that_it_has_among_all(project: Project, root: Path) -> None:
    """Rows of index and store stay together; and so do the results of all, whatever is evaluated afterwards."""
    path = keep(checkpoint_of(project))
    run(path, "--out", "out")
    run(path, "--out", "out", "--images", "1")
    folder = root / "out" / "first-best_model-1"
    dataset = project.open("val")
    (image_id,) = {item["image_id"] for item in json.loads((folder / "results.json").read_text())}
    assert image_id == dataset.index.image_ids[0]
    everything, one = (json.loads((root / "out" / f"first-best_model{end}" / "results.json").read_text()) for end in ("", "-1"))
    assert one == [item for item in everything if item["image_id"] == image_id]


def test_what_was_changed_is_told(project: Project, root: Path) -> None:
    checkpoint = checkpoint_of(project)
    extra = {**checkpoint.params, "loss": {**checkpoint.params["loss"], "sharpness": 1.0}}
    path = keep(replace(checkpoint, params=extra))
    told = run(path, "--split", "train", "--set", "dataset.roi_padding=0.1", "--set", "~loss.sharpness").stdout
    assert " ROIs of train, dataset.roi_padding=0.1, ~loss.sharpness\n" in told


def test_detections_of_some_images(tmp_path: Path) -> None:
    boxes = pd.DataFrame({"row": [0, 1, 1, 2], "image_id": [7, 8, 8, 9], "score": [0.1, 0.2, 0.3, 0.4]})
    write_parquet(tmp_path / "boxes.parquet", boxes)
    write_json(tmp_path / "boxes.json", boxes.drop(columns="row").to_dict("records"))
    (tmp_path / "few").mkdir()
    table = pd.read_parquet(only_detections(tmp_path / "boxes.parquet", [8, 9], tmp_path / "few"))
    assert table["row"].tolist() == [0, 0, 1]
    assert table["score"].tolist() == [0.2, 0.3, 0.4]
    found = json.loads(only_detections(tmp_path / "boxes.json", [9], tmp_path / "few").read_text())
    assert found == [{"image_id": 9, "score": 0.4}]
    (tmp_path / "torn.parquet").write_text("nothing")
    for name in ("torn.parquet", "gone.parquet"):
        assert only_detections(tmp_path / name, [9], tmp_path / "few") == tmp_path / name, "whoever reads it says what is wrong"
    with pytest.raises(ResultsError, match=r"gone\.json: no such results file"):
        only_detections(tmp_path / "gone.json", [9], tmp_path / "few")


def test_detections_and_pictures_are_those_of_the_split(project: Project, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keep(checkpoint_of(project))
    seen: list[EvaluatePaths] = []

    def noted(*arguments: Any, **named: Any) -> dict[str, float]:  # noqa: ANN401
        seen.append(arguments[-1])
        return figures_alone(*arguments, **named)

    monkeypatch.setattr(checkpoints, "evaluate", noted)
    run(path)
    run(path, "--split", "train")
    run(path, "--split", "train", "--set", "evaluate.detections=mine.json")
    run(path, "--no-pictures")
    given = ["data/detections/val.parquet", "data/detections/train.parquet", "mine.json", "data/detections/val.parquet"]
    assert [paths.detections.as_posix() for paths in seen] == given
    assert [paths.pictures is not None for paths in seen] == [True, False, False, False]
    assert [paths.previews is not None for paths in seen] == [True, False, False, False]


def test_train_split(project: Project, root: Path) -> None:
    run(keep(checkpoint_of(project)), "--split", "train", "--out", "train")
    folder = root / "train" / "first-best_model-train"
    assert json.loads((folder / "best_model_train_metrics.json").read_text())["images"] == 5
    result = run(keep(checkpoint_of(project)), "--split", "train", "--images", "fixed", status=1)
    assert "ParamsError: --images fixed: data/index/train/pictures holds none" in result.stderr


@pytest.mark.parametrize("images", ["0", "-1", "some", "1.5"])
def test_wrong_images(root: Path, images: str) -> None:
    result = run("x.pth", "--images", images, status=1)
    assert f"ParamsError: --images {images!r}: expected a number of images from 1, 'fixed' or 'all'" in result.stderr


def test_cuda_that_isnt_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run("x.pth", "--device", "cuda", status=1)
    assert "ProviderError: --device is 'cuda', but torch finds no CUDA device here; use 'auto' or 'cpu'" in result.stderr


# --- many ---


def test_many_are_compared_and_a_bad_one_loses_nothing(project: Project, root: Path) -> None:
    first, second = keep(checkpoint_of(project), "first"), keep(checkpoint_of(project, "roi_unet"), "second")
    spoilt = root / "models" / "heads" / "spoilt" / "best_model.pth"
    spoilt.parent.mkdir()
    spoilt.write_text("nothing")
    result = run(spoilt, first.parent, second, second.parent, status=1)
    assert result.stderr.count("Error: ") == 1
    assert f"CheckpointError: {spoilt}: not a checkpoint of roiseg" in result.stderr
    assert {path.name for path in (root / "validation_results").iterdir()} == {"first-best_model", "second-best_model"}
    lines = result.stdout.splitlines()
    titles, *rows = lines[lines.index("") + 1 :]
    assert titles.split() == [
        "checkpoint",
        "epoch",
        "loss",
        "CE",
        "Dice",
        "miou_fg_roi",
        "iou_target_roi",
        "iou_nontarget_roi",
        "iou_bg",
    ]
    assert {row.split()[0] for row in rows} == {"first-best_model", "second-best_model"}
    leads = [float(row.split()[5]) for row in rows]
    assert leads == sorted(leads, reverse=True)


def test_names_of_results_are_unique(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a/default/best_model.pth", "b/default/best_model.pth", "b/other/best_model.pth")]
    assert result_names(files) == ["a-default-best_model", "b-default-best_model", "other-best_model"]
    assert result_names([tmp_path / "default/checkpoints/checkpoint_epoch_0004.pth"]) == ["default-checkpoint_epoch_0004"]
    twins = [tmp_path / "x/checkpoints/y.pth", tmp_path / "x/y.pth"]
    assert len(set(result_names(twins))) == 2


# --- what doesn't fit ---


def test_missing_checkpoints(root: Path) -> None:
    result = run("models/gone.pth", status=1)
    assert "CheckpointError: models/gone.pth: no such checkpoint; train it (`dvc repro`), or `dvc pull`" in result.stderr
    (root / "empty" / "checkpoints").mkdir(parents=True)
    (root / "empty" / "checkpoints" / "best_modl.pth").touch()
    result = run("empty", status=1)
    assert "CheckpointError: empty/best_model.pth: no such checkpoint; did you mean 'checkpoints/best_modl.pth'?" in result.stderr


def test_missing_statistics(project: Project, root: Path) -> None:
    shutil.rmtree("metrics")
    result = run(keep(checkpoint_of(project)), status=1)
    assert (
        "ParamsError: metrics/data_analyze.json: not there, and loss.class_weights.mode 'separation' reads it; run `dvc repro "
        "analyze`, or --set loss.class_weights.mode=none"
    ) in result.stderr


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "int8"}, "dtype: 'int8' -> 'float16'"),
        ({"input": {"hw": [64, 64], "resize": "stretch", "color": "rgb", "pixel_max": 1.0}}, "input.hw: [64, 64] -> [64, 96]"),
        (
            {"layers": TENSORS | {"layer_3": "/model.2/Concat_output_0"}},
            "layers.layer_3: '/model.2/Concat_output_0' -> '/model.3/Concat_output_0'",
        ),
        ({"graph": "abc"}, "graph: 'abc' -> None"),
    ],
)
def test_other_features_are_refused(project: Project, root: Path, fields: dict[str, Any], message: str) -> None:
    checkpoint = checkpoint_of(project)
    path = keep(replace(checkpoint, fingerprint={**checkpoint.fingerprint, **fields}))
    text = run(path, status=1).stderr
    assert f"CheckpointError: {path}: was trained on other features than data/features/val.zarr holds (then -> now)" in text
    assert message in text
    assert text.count(" -> ") == 2


def test_other_channels_are_refused(project: Project, root: Path) -> None:
    path = keep(replace(checkpoint_of(project), layers={"layer_34": [6, 8.0, 8.0], "layer_3": [4, 4.0, 2.0]}))
    assert "channels_and_strides.layer_3: [4, 4.0, 2.0] -> [4, 4.0, 4.0]" in run(path, status=1).stderr


def test_layers_that_the_head_doesnt_read_may_differ(project: Project, root: Path) -> None:
    """Another layer was extracted since: the network is cut elsewhere, and says the same of the old ones."""
    checkpoint = checkpoint_of(project)
    fingerprint = {**checkpoint.fingerprint, "layers": {**TENSORS, "layer_5": "/model.5/Concat_output_0"}, "graph": "abc"}
    run(keep(replace(checkpoint, fingerprint=fingerprint)))


def test_params_of_another_schema(project: Project, root: Path) -> None:
    checkpoint = checkpoint_of(project)
    lacking = {key: value for key, value in checkpoint.params["loss"].items() if key != "edge"}
    path = keep(replace(checkpoint, params={**checkpoint.params, "loss": {**lacking, "sharpness": 1.0}}))
    text = run(path, status=1).stderr
    assert f"CheckpointError: {path}: the params that it holds aren't those of today" in text
    assert "loss.sharpness: unknown key" in text
    assert "loss.edge: missing" in text
    assert "give what is missing by --set section.key=value and take away what is unknown by --set '~section.key'" in text
    run(path, "--set", "+loss.edge=null", "--set", "~loss.sharpness")


@pytest.mark.parametrize("epochs", [{}, {"epochs": None}])
def test_params_without_the_length_of_the_run(project: Project, root: Path, epochs: dict[str, Any]) -> None:
    checkpoint = checkpoint_of(project)
    path = keep(replace(checkpoint, params={**checkpoint.params, "train": {"lr": 0.1, **epochs}}))
    assert f"CheckpointError: {path}: train.epochs is None in its params, expected how many" in run(path, status=1).stderr


def test_params_without_sections(project: Project, root: Path) -> None:
    checkpoint = checkpoint_of(project)
    path = keep(
        replace(checkpoint, params={"model": checkpoint.params["model"], "train": checkpoint.params["train"], "loss": None})
    )
    text = run(path, status=1).stderr
    assert f"{path}: its params lack the sections dataset, sampler, loss, expected dataset, sampler, model, loss, train" in text


def test_weights_that_are_not_numbers(project: Project, root: Path) -> None:
    checkpoint = checkpoint_of(project)
    spoilt = {name: torch.full_like(value, float("nan")) for name, value in checkpoint.model.items()}
    text = run(keep(replace(checkpoint, model=spoilt)), status=1).stderr
    assert "PredictionError: " in text
    assert "loss_ce is nan" in text
    assert "on the images with ids" in text


# --- what is told ---


def test_active_features() -> None:
    plain = active_features(parse_model(MODELS["roi_unet"]))
    assert plain == "roi_unet on layer_34+layer_3"
    model = overlay(MODELS["variable_roi"], every_part(4) | {"inputs": {"rgb": None}})
    assert active_features(parse_model(model)) == (
        "variable_roi on layer_34+layer_3; inputs (fusion adaptive), attention cbam, "
        "auxiliary (foreground, contour, distance, embedding, correct_by_foreground), "
        "refine (upsampling progressive, boundary), relational, cascade (share_features)"
    )
