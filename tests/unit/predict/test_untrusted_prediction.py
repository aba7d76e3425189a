"""Tests of roiseg.predict on ONNX files from anywhere, given as head, backbone or filter."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from untrusted import PLACES, SECRET, fill, keep_outside

from roiseg.errors import GraphError
from roiseg.predict import Predictor
from roiseg.predict.smoothing import Smoothing

INPUT = {"hw": [32, 64], "resize": "stretch", "color": "rgb", "pixel_max": 1.0}
HEAD = {
    "layers": {"p5": {"channels": 4, "stride_hw": [4, 4]}},
    "input": INPUT,
    "scales": {},
    "roi_padding": 0.0,
}
FILTER = {"reach_px": 2, "channels": 1}


def told(**change: object) -> str:
    """Metadata of a head with something else in it."""
    return json.dumps({**HEAD, **change})


def write(path: Path, inputs: list[str], outputs: list[str], metadata: str | None) -> Path:
    """A model of one convolution by `stem.weight` behind its first input; further inputs lead nowhere."""
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Conv", [inputs[0], "stem.weight"], outputs, strides=[4, 4])],
            "small",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, "H", "W"]) for name in inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(SECRET, "stem.weight")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    if metadata is not None:
        helper.set_model_props(model, {"roiseg": metadata})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as `export` writes it, of models that do nothing."""
    made = fill(tmp_path)
    write(made / "head.onnx", ["features_p5", "boxes"], ["masks"], json.dumps(HEAD))
    write(made / "backbone.onnx", ["images"], ["p5"], None)
    write(made / "filter.onnx", ["input"], ["output"], json.dumps(FILTER))
    return made


def test_the_folder_is_taken_as_it_is(folder: Path) -> None:
    """Or the tests below would fail for another reason than theirs."""
    Predictor(folder, "cpu", filter_file=folder / "filter.onnx")


@pytest.mark.parametrize("name", ["head", "backbone", "filter"])
@pytest.mark.parametrize("place", PLACES)
def test_weights_elsewhere(folder: Path, name: str, place: str) -> None:
    path = keep_outside(folder / f"{name}.onnx", "stem.weight", PLACES[place])
    with pytest.raises(GraphError, match=rf"{name}\.onnx: onnxruntime \S+ can't take the weights that it keeps in other files: "):
        Predictor(folder, "cpu", filter_file=folder / "filter.onnx")
    assert path.is_file()


@pytest.mark.parametrize("name", ["head", "backbone", "filter"])
def test_weights_beside_the_file(folder: Path, name: str) -> None:
    path = folder / f"{name}.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=f"{name}.data", size_threshold=0)
    assert (folder / f"{name}.data").stat().st_size >= SECRET.nbytes
    Predictor(folder, "cpu", filter_file=folder / "filter.onnx")


@pytest.mark.parametrize("name", ["head", "backbone", "filter"])
@pytest.mark.parametrize("data", [b"", b"<!DOCTYPE html>", np.random.default_rng(0).bytes(900)], ids=["nothing", "text", "noise"])
def test_damage(folder: Path, name: str, data: bytes) -> None:
    (folder / f"{name}.onnx").write_bytes(data)
    with pytest.raises(GraphError, match=rf"{name}\.onnx: onnxruntime \S+ can't read it: .*Fetch or export it again"):
        Predictor(folder, "cpu", filter_file=folder / "filter.onnx")


@pytest.mark.parametrize("name", ["head", "backbone", "filter"])
def test_half_a_file(folder: Path, name: str) -> None:
    path = folder / f"{name}.onnx"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(GraphError, match=rf"{name}\.onnx: onnxruntime \S+ can't read it"):
        Predictor(folder, "cpu", filter_file=folder / "filter.onnx")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, r"has no 'roiseg' metadata, expected a head that roiseg exported"),
        ("{", r"its 'roiseg' metadata isn't JSON \(.*\), expected a head"),
        ("null", r"its 'roiseg' metadata is 'null', no mapping, expected a head"),
        ('["layers"]', r"its 'roiseg' metadata is '\[\"layers\"\]', no mapping, expected a head"),
        ("{}", r"its 'roiseg' metadata lacks layers, input, scales, roi_padding, expected a head"),
        (told(layers=3), r"its 'roiseg' metadata has 3 for layers, expected a head"),
        (told(scales=None), r"its 'roiseg' metadata can't be used \(TypeError: .*\), expected what this version of roiseg writes"),
        (told(scales={"p5": [1.0]}), r"its 'roiseg' metadata can't be used \(ValueError: 1 scales of p5\)"),
        (told(roi_padding="wide"), r"its 'roiseg' metadata can't be used \(ValueError: .*'wide'\)"),
        (told(input={"hw": [32, 64]}), r"its 'roiseg' metadata can't be used \(KeyError: 'resize'\)"),
        (told(input={**INPUT, "resize": "crop"}), r"its 'roiseg' metadata can't be used \(ValueError: input\.resize is 'crop'\)"),
        (told(detections={"boxes": 3}), r"its 'roiseg' metadata can't be used \(TypeError: .*'boxes'\); run|'boxes'"),
    ],
    ids=["none", "no JSON", "null", "list", "empty", "layers", "scales", "count", "padding", "input", "resize", "detections"],
)
def test_metadata_of_a_head(folder: Path, metadata: str | None, message: str) -> None:
    write(folder / "head.onnx", ["features_p5", "boxes"], ["masks"], metadata)
    with pytest.raises(GraphError, match=rf"head\.onnx: {message}"):
        Predictor(folder, "cpu")


@pytest.mark.parametrize(
    "metadata",
    [None, "[", "3", '{"channels": 1}', '{"channels": 3, "reach_px": 2}', '{"channels": 1, "reach_px": "far"}'],
    ids=["none", "no JSON", "number", "no reach", "channels", "text"],
)
def test_metadata_of_a_filter(folder: Path, metadata: str | None) -> None:
    message = r"filter\.onnx: expected a filter of one channel that `roiseg export-filter` wrote, .*; write it with 1 channel"
    with pytest.raises(GraphError, match=message):
        Smoothing(write(folder / "filter.onnx", ["input"], ["output"], metadata), "cpu")


def test_files_that_dont_fit_each_other(folder: Path) -> None:
    """Known by their names, and found out by the first image."""
    predictor = Predictor(folder, "cpu", filter_file=None)
    pixels = np.zeros((10, 20, 3), dtype=np.uint8)
    predictor.set_image(pixels)
    with pytest.raises(
        GraphError, match=r"head\.onnx: onnxruntime \S+ breaks off on features_p5 \[1, 4, 8, 16\], boxes .* one export"
    ):
        predictor.predict([[1, 2, 8, 9]])
    model = onnx.load(folder / "backbone.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 99
    (folder / "backbone.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        GraphError, match=r"backbone\.onnx: onnxruntime \S+ breaks off on images \[1, 3, 32, 64\]: .*; expected files"
    ):
        Predictor(folder, "cpu", filter_file=None).set_image(pixels)


def test_a_backbone_of_no_known_shape(folder: Path) -> None:
    model = onnx.load(folder / "backbone.onnx")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    (folder / "backbone.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match=r"backbone\.onnx: takes \[\], expected images \(N, 3, H, W\); take the backbone\.onnx"):
        Predictor(folder, "cpu")


def test_metadata_that_is_no_text(folder: Path) -> None:
    path = folder / "head.onnx"
    path.write_bytes(path.read_bytes().replace(b"stretch", b"stre\xff\xfeh"))
    with pytest.raises(GraphError, match=r"head\.onnx: its 'roiseg' metadata isn't JSON \(.*codec can't decode"):
        Predictor(folder, "cpu")
