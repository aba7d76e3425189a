"""Tests of roiseg.extractor.graph: what a cut keeps, what its casts do, and what it refuses."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from onnx_factory import CHANNELS, FLAT, INPUT_HW, LAYER_3, LAYER_34, LAYERS, make_detector

from roiseg.backbone import make_backbone
from roiseg.cut_graph import CutGraph
from roiseg.errors import GraphError
from roiseg.extractor.graph import bake_scales, cut, load_graph, read_metadata, uncast
from roiseg.extractor.params import DetectionParams
from roiseg.types import CutLayer, StoredType

BOXES = DetectionParams(output="detections", person_class=0, min_score=0.0)


def make_cut(path: Path, dtype: StoredType = "float16", layers: dict[str, str] = LAYERS) -> onnx.ModelProto:
    return cut(load_graph(path), layers, INPUT_HW, dtype, None, str(path))


def run(model: onnx.ModelProto, feeds: dict[str, NDArray[Any]], names: list[str] | None = None) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = names or [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def pixels(count: int = 2, seed: int = 0, high: int = 256) -> NDArray[np.float32]:
    return np.random.default_rng(seed).integers(0, high, (count, 3, *INPUT_HW)).astype(np.float32)


def float_features(path: Path, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The tensors by another way: the whole detector, with them as further outputs."""
    model = onnx.load(path)
    for tensor in LAYERS.values():
        model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    return run(model, {"images": images}, list(LAYERS.values()))


def test_cut_keeps_what_is_needed_and_no_more(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx")
    part = make_cut(source, layers={"low": LAYER_3})
    assert [node.op_type for node in part.graph.node] == ["Conv", "Mul", "Relu", "Concat", "Cast"]
    assert {item.name for item in part.graph.initializer} == {"stem.weight", "stem.bias", "gain"}
    assert [item.name for item in part.graph.input] == ["images"]
    assert [item.name for item in part.graph.output] == ["low"]
    onnx.checker.check_model(part, full_check=True)


def test_outputs_stand_in_the_order_of_the_layers(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx", detections=True)
    part = cut(load_graph(source), LAYERS, INPUT_HW, "int8", BOXES, "d.onnx")
    assert [item.name for item in part.graph.output] == ["layer_34", "layer_3", "detections"]
    assert [item.name for item in part.graph.input] == ["images", "layer_34_scale", "layer_3_scale"]


def test_float16_is_numpys(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx")
    images = pixels()
    floats, stored = float_features(source, images), run(make_cut(source), {"images": images})
    for name, tensor in LAYERS.items():
        height, width = INPUT_HW
        stride = 8 if name == "layer_34" else 4
        assert stored[name].shape == (2, CHANNELS[name], height // stride, width // stride)
        assert stored[name].dtype == np.float16
        np.testing.assert_array_equal(stored[name], floats[tensor].astype(np.float16))
    assert (floats[LAYER_34] != floats[LAYER_34].astype(np.float16)).any()  # or rounding isn't tested


def test_int8_rounds_half_to_even_and_clips(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx")
    images = pixels()
    floats = float_features(source, images)
    scales = {name: (np.float32(2.0) ** np.arange(-8, CHANNELS[name] - 8)).astype(np.float32) for name in LAYERS}
    feeds = {f"{name}_scale": values.reshape(1, -1, 1, 1) for name, values in scales.items()}
    stored = run(make_cut(source, "int8"), {"images": images, **feeds})
    for name, tensor in LAYERS.items():
        exact = floats[tensor] / scales[name][:, None, None]
        np.testing.assert_array_equal(stored[name], np.clip(np.rint(exact), -127, 127).astype(np.int8))
        assert {stored[name].min(), stored[name].max()} == {-127, 127}
    halves = np.abs(floats[LAYER_34] / scales["layer_34"][:, None, None]) % 2 == 0.5
    assert halves.any()  # these go down, where rounding half up would take them up


def test_metadata_round_trip(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx", batch=2, input_hw=INPUT_HW, detections=True)
    part = cut(load_graph(source), LAYERS, INPUT_HW, "int8", BOXES, "d.onnx")
    (tmp_path / "cut.onnx").write_bytes(part.SerializeToString())
    path = tmp_path / "cut.onnx"
    info = read_metadata(load_graph(path), path)
    layers = (CutLayer("layer_34", LAYER_34, 12, (4, 8)), CutLayer("layer_3", LAYER_3, 8, (8, 16)))
    assert info == CutGraph("images", INPUT_HW, 2, "int8", layers, "detections")
    assert CutGraph.from_json(info.to_json()) == info


def test_metadata_of_another_onnx(tmp_path: Path) -> None:
    path = make_detector(tmp_path / "d.onnx")
    with pytest.raises(GraphError, match=r"d\.onnx: has no 'roiseg' metadata, expected the output of the `backbone` stage"):
        read_metadata(load_graph(path), path)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_uncast_gives_the_floats(tmp_path: Path, dtype: StoredType) -> None:
    source = make_detector(tmp_path / "d.onnx", detections=True)
    part = cut(load_graph(source), LAYERS, INPUT_HW, dtype, BOXES, "d.onnx")
    before = part.SerializeToString(deterministic=True)
    plain = uncast(part, read_metadata(part, source))
    assert part.SerializeToString(deterministic=True) == before
    images = pixels()
    assert [item.name for item in plain.graph.input] == ["images"]
    found, expected = run(plain, {"images": images}, list(LAYERS.values())), float_features(source, images)
    for tensor in LAYERS.values():
        np.testing.assert_array_equal(found[tensor], expected[tensor])


def test_baked_scales_equal_fed_scales(tmp_path: Path) -> None:
    part = make_cut(make_detector(tmp_path / "d.onnx"), "int8")
    rng = np.random.default_rng(3)
    scales = {name: rng.uniform(0.1, 3, count).astype(np.float32) for name, count in CHANNELS.items()}
    images = pixels()
    fed = run(part, {"images": images, **{f"{name}_scale": v.reshape(1, -1, 1, 1) for name, v in scales.items()}})
    baked = run(bake_scales(part, scales), {"images": images})
    for name in LAYERS:
        np.testing.assert_array_equal(baked[name], fed[name])
    assert len(part.graph.input) == 3


def test_bake_without_scales_changes_nothing(tmp_path: Path) -> None:
    part = make_cut(make_detector(tmp_path / "d.onnx"))
    assert bake_scales(part, {}) == part


def test_detections_of_the_cut_are_those_of_the_detector(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx", detections=True)
    images = pixels(3)
    part = cut(load_graph(source), LAYERS, INPUT_HW, "float16", BOXES, "d.onnx")
    np.testing.assert_array_equal(
        run(part, {"images": images})["detections"], run(onnx.load(source), {"images": images})["detections"]
    )


def test_bytes_are_the_same_in_every_process(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx", detections=True)
    script = (
        "import sys; from pathlib import Path; from roiseg.backbone import make_backbone\n"
        "from roiseg.extractor.params import DetectionParams\n"
        "boxes = DetectionParams(output='detections', person_class=0, min_score=0.0)\n"
        f"make_backbone(Path(sys.argv[1]), {LAYERS!r}, {INPUT_HW!r}, 'int8', boxes, Path(sys.argv[2]))\n"
    )
    other_hashes = str(int(os.environ.get("PYTHONHASHSEED", "0").replace("random", "0")) + 1)
    environment = os.environ | {"PYTHONHASHSEED": other_hashes, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script, str(source), str(tmp_path / "there.onnx")], check=True, env=environment)
    make_backbone(source, LAYERS, INPUT_HW, "int8", BOXES, tmp_path / "here.onnx")
    assert (tmp_path / "here.onnx").read_bytes() == (tmp_path / "there.onnx").read_bytes()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"no\.onnx: no such ONNX file; set extractor\.onnx"):
        load_graph(tmp_path / "no.onnx")


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"version https://git-lfs.github.com/spec/v1", "not an ONNX file"), (b"", "holds no graph")],
    ids=["text", "empty"],
)
def test_not_an_onnx(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "d.onnx"
    path.write_bytes(data)
    with pytest.raises(GraphError, match=message):
        load_graph(path)


def test_a_truncated_onnx(tmp_path: Path) -> None:
    path = make_detector(tmp_path / "d.onnx")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(GraphError, match="not an ONNX file"):
        load_graph(path)


def test_absent_tensors_are_all_named_with_near_names(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx")
    with pytest.raises(GraphError, match=r"d\.onnx: 2 wanted tensor\(s\) aren't in the graph") as caught:
        make_cut(source, layers={"a": "/model.33/Concat_output_0", "b": "zzz", "c": LAYER_3})
    text = str(caught.value)
    assert "a: no tensor '/model.33/Concat_output_0'; did you mean" in text
    assert repr(LAYER_34) in text
    assert f"b: no tensor 'zzz'; the graph's Concat outputs are {LAYER_3}, {LAYER_34}" in text


def test_an_absent_detection_output(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx")
    with pytest.raises(GraphError, match="detections: no tensor 'detections'"):
        cut(load_graph(source), LAYERS, INPUT_HW, "float16", BOXES, "d.onnx")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels_last": True}, r"channels last; expected channels first \(N, 3, H, W\): export the detector as NCHW"),
        ({"input_hw": (64, 32)}, r"is FLOAT \['N', 3, 64, 32\], but extractor\.input_hw is \[32, 64\]; set it to the size"),
        ({"inputs": 2}, r"has 2 inputs \(images, threshold\), expected one image input"),
        ({"input_type": TensorProto.UINT8}, r"is UINT8 \['N', 3, 'h', 'w'\], expected FLOAT: export the detector in float32"),
        ({"input_type": TensorProto.FLOAT16}, r"is FLOAT16 .*expected FLOAT"),
    ],
    ids=["nhwc", "size", "inputs", "uint8", "float16"],
)
def test_inputs_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    source = make_detector(tmp_path / "d.onnx", **changes)
    with pytest.raises(GraphError, match=message):
        make_cut(source)


def test_a_fixed_size_that_fits_is_taken(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx", batch=1, input_hw=INPUT_HW)
    assert read_metadata(make_cut(source), source).batch_size == 1


def test_a_tensor_that_is_no_map(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx")
    with pytest.raises(GraphError, match=r"'/head/Flatten_output_0' is float32 \[1, 384\], expected a float32 map \(N, C, H, W\)"):
        make_cut(source, layers={"flat": FLAT})


def test_a_size_that_the_network_cannot_run(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx")
    model = load_graph(source)
    reshape = onnx.helper.make_node("Reshape", [LAYER_34, "shape"], ["map"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 12, 5, 5]), "shape"))
    model.graph.node.append(reshape)
    with pytest.raises(GraphError, match=r"onnxruntime can't run the cut graph on an input of \[1, 3, 32, 64\]"):
        cut(model, {"rigid": "map"}, INPUT_HW, "float16", None, "d.onnx")


def test_a_layer_called_like_a_tensor(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx")
    with pytest.raises(GraphError, match=r"layer 'relu' has the name of a tensor of the graph; call it otherwise"):
        make_cut(source, layers={"relu": LAYER_34})


def test_batches_of_another_size(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx", batch=1)
    info = read_metadata(make_cut(source), source)
    info.check_batch(1)
    with pytest.raises(GraphError, match=r"extractor\.batch_size is 4, but the detector takes batches of 1 only; set it to 1"):
        info.check_batch(4)
