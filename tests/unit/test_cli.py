"""Tests of roiseg.cli through typer's runner: what it prints, what it writes, and how it fails."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from export_factory import Exported, shared_export
from pooling_factory import write_pooling
from pycocotools.mask import area as mask_area
from store_factory import shared_project
from typer.testing import CliRunner, Result

from roiseg import cli
from roiseg.params import PARAMS_FILE, preset_names, preset_path, read_yaml

SHIPPED = Path(__file__).parents[2] / PARAMS_FILE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    copied = tmp_path / "params.yaml"
    copied.write_bytes(SHIPPED.read_bytes())
    return copied


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(cli.app, [str(item) for item in arguments])
    assert result.exit_code == status, result.output
    return result


def plain(result: Result) -> str:
    """Output without colours and frames, on one line."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", result.output).split())


def test_help_names_every_command() -> None:
    text = plain(run("--help"))
    assert all(name in text for name in ("predict", "evaluate", "preset", "params", "cache", "doctor", "compare"))
    assert all(
        option in plain(run("predict", "--help"))
        for option in ("--boxes", "--model", "--out", "--format", "--provider", "--filter", "--batch", "--tolerance")
    )
    assert all(name in plain(run("preset", "--help")) for name in ("list", "show", "apply"))


@pytest.mark.parametrize(
    "arguments", [["preset", "aply", "real"], ["predict"], ["predict", "a.png", "--boxes", "1,2,3,4", "--format", "xywh"]]
)
def test_wrong_usage_is_status_two(arguments: list[str]) -> None:
    run(*arguments, status=2)


# --- presets ---


def test_preset_list_says_what_each_is_and_sets() -> None:
    lines = run("preset", "list").stdout.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert [line.split(":")[0] for line in heads] == preset_names()
    assert all(len(line.split()) > 3 and line.endswith(".") and "#" not in line for line in heads)
    place = lines.index("efficient: Two layers, summed.")
    assert [line.split() for line in lines[place + 1 : place + 3]] == [
        "model head multiscale, layers [layer_5, layer_34], inputs {fusion: sum}".split(),
        "loss boundary_width 3.0, boundary_weight 1.5, instance_sep_weight 2.0".split(),
    ]
    assert not any("_replace" in line for line in lines)
    (default,) = [number for number, line in enumerate(lines) if line.startswith("default: params.yaml as it stands")]
    assert lines[default + 1].startswith("dynamic_filter: "), "it sets nothing"


def test_preset_show_prints_the_file() -> None:
    assert run("preset", "show", "real").stdout == preset_path("real").read_text()


def test_preset_apply_writes_and_names_keys(file: Path) -> None:
    result = run("preset", "apply", "coco_yolov9e", "--file", file)
    assert "train.epochs" in result.stdout.splitlines()
    assert read_yaml(file)["train"]["epochs"] == read_yaml(preset_path("coco_yolov9e"))["train"]["epochs"]
    assert run("preset", "apply", "coco_yolov9e", "--file", file).stdout == ""


def test_preset_apply_as_args_writes_nothing(file: Path) -> None:
    text = run("preset", "apply", "real", "--as-args", "--file", file).stdout
    assert len(text.splitlines()) == 1
    assert "-S train.epochs=24" in text
    assert "-S model.mid_channels=48" in text
    assert file.read_bytes() == SHIPPED.read_bytes()


@pytest.mark.parametrize("command", ["show", "apply"])
def test_unknown_preset(command: str) -> None:
    result = run("preset", command, "rael", status=1)
    assert "ParamsError: " in result.stderr
    assert "did you mean 'real'" in result.stderr
    assert "Traceback" not in result.output


# --- params ---


def test_params_check_of_the_shipped_file(file: Path) -> None:
    assert run("params", "check", file).stdout.strip() == f"{file}: no fault"


def test_params_check_of_a_wrong_file(file: Path) -> None:
    file.write_text(file.read_text().replace("  epochs: ", "  epoch: "))
    result = run("params", "check", file, status=1)
    assert "train.epoch: unknown key; did you mean 'epochs'" in result.stderr
    assert "train.epochs: missing" in result.stderr
    assert "no fault" not in result.stdout


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), ("a: [", "not valid YAML"), ("- a", "expected a mapping")]
)
def test_params_check_of_no_params(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_text(content)
    assert message in run("params", "check", path, status=1).stderr


# --- cache ---


@pytest.fixture
def stores(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `data/features`, to be in."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/features").symlink_to(shared_project(tmp_path_factory, "int8").features)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_cache_bench_prints_a_line_for_each_side_of_each_layer(stores: Path) -> None:
    lines = run("cache", "bench", "val", "--images", 2).stdout.splitlines()
    assert lines[0].startswith("data/features/val.zarr: 2 images in random order")
    assert [line.split(":")[0].strip() for line in lines[1::5]] == ["layer_34", "layer_3"]
    assert all(re.search(r"images/s +[\d.]+ GB/s +[\d.]+$", line) for number, line in enumerate(lines[1:]) if number % 5)
    assert len(lines) == 11
    assert not list((stores / ".work").iterdir())


def test_cache_bench_of_one_layer(stores: Path) -> None:
    lines = run("cache", "bench", "train", "--layer", "layer_3").stdout.splitlines()
    assert lines[0].startswith("data/features/train.zarr: 5 images")
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["val", "--layer", "layer_33"], "no layer 'layer_33'; did you mean 'layer_3' or 'layer_34'?"),
        (["test"], "data/features/test.zarr: no feature store there"),
    ],
)
def test_cache_bench_of_what_is_not_there(stores: Path, arguments: list[str], message: str) -> None:
    result = run("cache", "bench", *arguments, status=1)
    assert "StoreError: " in result.stderr
    assert message in result.stderr
    assert result.stdout == ""


# --- predict ---


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return shared_export(tmp_path_factory)


def test_predict_boxes_of_both_formats(exported: Exported, tmp_path: Path) -> None:
    name = str(exported.project.people("val").images[0]["file_name"])
    image = exported.project.image("val", name)
    texts = {"xyxy": "4,6,30,36;10,2,38,34", "cxcywh": "17,21,26,30;24,18,28,32"}
    for box_format, text in texts.items():
        out = tmp_path / box_format
        result = run(
            "predict", image, "--boxes", text, "--format", box_format, "--model", exported.folder, "--out", out, "--provider", "cpu"
        )
        assert result.stdout == f"1 images, 2 masks: {out}\n"
    first, second = (json.loads((tmp_path / box_format / "predictions.json").read_text()) for box_format in texts)
    assert first == second
    np.testing.assert_allclose(first[0]["bbox"], [4, 6, 26, 30])
    assert len(list((tmp_path / "xyxy" / "masks").iterdir())) == 2


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ("4,6,30", "BoxError: --boxes '4,6,30', expected 'x0,y0,x1,y1;...' or a .json or .csv file"),
        ("30,6,4,36", "expected x0 < x1 and y0 < y1"),
        ("900,6,950,36", "which lies outside the image"),
        (".1,.2,.3,.4", "they look like shares of its width and height"),
        ("detector", "GraphError: --boxes detector: the exported backbone gives no boxes"),
        ("gone.csv", "BoxError: --boxes gone.csv: no such file"),
    ],
)
def test_predict_wrong_boxes(exported: Exported, tmp_path: Path, boxes: str, message: str) -> None:
    image = exported.project.image("val", str(exported.project.people("val").images[0]["file_name"]))
    result = run("predict", image, "--boxes", boxes, "--model", exported.folder, "--out", tmp_path / "out", status=1)
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_predict_with_one_bad_image(exported: Exported, tmp_path: Path) -> None:
    image = exported.project.image("val", str(exported.project.people("val").images[0]["file_name"]))
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(image.read_bytes())
    (tmp_path / "b" / "2.png").write_bytes(b"")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("file_name,cx,cy,w,h,score\na/1.png,.4,.5,.5,.6,.5\nb/1.png,.4,.5,.5,.6,\n")
    asked = ["--boxes", boxes, "--format", "cxcywh", "--frame", "unit", "--overlays", "none", "--segmentation", "rle"]
    out = tmp_path / "out"
    result = run("predict", tmp_path / "a", tmp_path / "b", *asked, "--model", exported.folder, "--out", out, status=1)
    assert result.stdout == f"2 images, 2 masks; 1 failed: {tmp_path / 'b' / '2.png'}: {out}\n"
    assert sorted(item.relative_to(out).as_posix() for item in out.rglob("*.*")) == [
        "masks/a/1_001.png",
        "masks/b/1_001.png",
        "predictions.json",
    ]
    first, second = json.loads((out / "predictions.json").read_text())
    assert first["score"] == pytest.approx(second["score"] / 2, abs=1e-6)
    assert first["segmentation"] == second["segmentation"]


def test_predict_a_folder_again_with_and_without_its_filter(exported: Exported, tmp_path: Path) -> None:
    image = exported.project.image("val", str(exported.project.people("val").images[0]["file_name"]))
    shutil.copytree(exported.folder, tmp_path / "head")
    write_pooling(tmp_path / "head" / "filter.onnx", "MaxPool", 2)
    shots = tmp_path / "shots"
    shots.mkdir()
    shutil.copy(image, shots)
    areas = []
    asked = ["predict", shots, "--boxes", "4,6,30,36", "--model", tmp_path / "head", "--out", shots / "out"]
    for chosen in ([], ["--filter", "none"], ["--filter", tmp_path / "head" / "filter.onnx"]):
        result = run(*asked, *chosen)
        assert result.stdout == f"1 images, 1 masks: {shots / 'out'}\n", "what the run before wrote isn't taken for images"
        areas.append(mask_area(json.loads((shots / "out" / "predictions.json").read_text())[0]["segmentation"]))
    assert areas[0] == areas[2] > areas[1] > 0


def test_predict_without_a_model(tmp_path: Path) -> None:
    result = run("predict", tmp_path / "a.png", "--boxes", "1,2,3,4", "--model", tmp_path / "gone", status=1)
    assert "GraphError: " in result.stderr
    assert "run `dvc repro export`" in result.stderr
