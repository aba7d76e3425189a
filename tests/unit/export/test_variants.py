"""Tests of the smaller files of a head (roiseg.export.variants, half, quantize) and of their times."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from head_factory import MODELS, fresh_head
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from store_factory import NETWORK_HW, Project, shared_project

from roiseg.dataset import RoiDataset
from roiseg.errors import GraphError
from roiseg.evaluate import infer
from roiseg.evaluate.complexity import examples
from roiseg.export.half import make_half
from roiseg.export.onnx import example_inputs, export_head
from roiseg.export.onnx_head import OnnxHead
from roiseg.export.quantize import calibration_feeds, calibration_rows, make_int8
from roiseg.export.timing import measure
from roiseg.export.variants import variant_figures, write_variant
from roiseg.heads import parse_model
from roiseg.types import FeatureSpec

WIDER = {"mid_channels": 32, "deep_channels": 64, "layer_channels": 16, "out_channels": 16}
"""Changes to the small head: in one of a few channels the nodes weigh more than the weights."""

Feeds = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Files:
    """A head of random weights, and its three files."""

    project: Project
    head: torch.nn.Module
    specs: list[FeatureSpec]
    whole: Path
    half: Path
    int8: Path

    def feeds(self) -> Iterator[Feeds]:
        train = self.project.open("train")
        yield from calibration_feeds(train, calibration_rows(train, 4, seed=0))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    project, folder = shared_project(tmp_path_factory), tmp_path_factory.mktemp("variants")
    params, train = parse_model({**MODELS["roi_unet"], **WIDER}), project.open("train")
    specs = [train.store.specs[name] for name in params.layers]
    head = fresh_head(params, train.store.specs)
    found = Files(project, head, specs, folder / "head.onnx", folder / "head.fp16.onnx", folder / "head.int8.onnx")
    export_head(head, specs, NETWORK_HW, 18, {"classes": ["a", "b"], "epoch": 3}, found.whole)
    make_half(found.whole, found.half)
    make_int8(found.whole, found.int8, found.feeds())
    return found


def answers(path: Path, specs: list[FeatureSpec], case: tuple[torch.Tensor, ...]) -> NDArray[np.float32]:
    """(R, 3, h, w) probabilities."""
    features = {spec.name: values for spec, values in zip(specs, case, strict=False)}
    return np.asarray(OnnxHead(path)(features, case[-1]).mask_logits.exp().numpy())


def parts(model: onnx.ModelProto) -> tuple[Any, ...]:
    """Inputs and outputs."""
    return tuple(
        [(item.name, item.type.SerializeToString()) for item in items] for items in (model.graph.input, model.graph.output)
    )


# --- what both keep ---


@pytest.mark.parametrize(
    ("name", "says"),
    [("half", {"precision": "float16"}), ("int8", {"precision": "int8", "calibration": {"method": "moving average of minmax"}})],
)
def test_interface_and_metadata_are_those_of_the_head(files: Files, name: str, says: dict[str, Any]) -> None:
    model, whole = onnx.load(getattr(files, name)), onnx.load(files.whole)
    onnx.checker.check_model(model, full_check=True)
    assert parts(model) == parts(whole)
    assert {(item.domain, item.version) for item in model.opset_import} == {("", 18)}
    assert not {"If", "Loop", "Scan"} & {node.op_type for node in model.graph.node}
    assert {node.domain for node in model.graph.node} == {""}
    metadata, of_head = ({item.key: json.loads(item.value) for item in graph.metadata_props} for graph in (model, whole))
    metadata["roiseg"].get("calibration", {}).pop("passes", None)
    assert metadata == {"roiseg": of_head["roiseg"] | says}


def test_sizes(files: Files) -> None:
    whole, half, int8 = (path.stat().st_size for path in (files.whole, files.half, files.int8))
    assert 0.5 < half / whole < 0.53
    assert 0.25 < int8 / whole < 0.3


@pytest.mark.parametrize(("name", "tolerance"), [("half", 0.01), ("int8", 0.2)])
@pytest.mark.parametrize(("images", "rois"), [(1, 7), (3, 5), (2, 0)])
def test_answers_are_close_to_those_of_the_head(files: Files, name: str, tolerance: float, images: int, rois: int) -> None:
    case = example_inputs(files.specs, NETWORK_HW, images, rois, seed=rois)
    expected, found = (answers(path, files.specs, case) for path in (files.whole, getattr(files, name)))
    assert found.shape == expected.shape == (rois, 3, 12, 10)
    assert np.abs(found - expected).max(initial=0) < tolerance
    assert np.abs(found.sum(axis=1) - 1).max(initial=0) < 1e-3
    if rois:
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.95


def test_the_same_bytes_twice_and_not_a_word(
    files: Files, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    make_half(files.whole, tmp_path / "half.onnx")
    make_int8(files.whole, tmp_path / "int8.onnx", files.feeds())
    assert (tmp_path / "half.onnx").read_bytes() == files.half.read_bytes()
    assert (tmp_path / "int8.onnx").read_bytes() == files.int8.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"half.onnx", "int8.onnx"}
    assert capfd.readouterr() == ("", "")
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- float16 ---


def test_image_numbers_beyond_those_of_float16(files: Files) -> None:
    """2049 isn't a float16; the image beside it is empty."""
    *maps, boxes = example_inputs(files.specs, NETWORK_HW, 1, 1, seed=1)
    many = [torch.cat([torch.zeros_like(item).expand(2049, -1, -1, -1), item]) for item in maps]
    boxes[:, 0] = 2049
    case = (*many, boxes)
    np.testing.assert_allclose(answers(files.half, files.specs, case), answers(files.whole, files.specs, case), atol=0.01)


def plain_head(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, NDArray[Any]]) -> Path:
    """A file of `features_a` (N, 2, 3, 4) and `boxes` to `masks` (N, 2, 3, 4), as `export_head` marks them."""
    given = [
        helper.make_tensor_value_info("features_a", TensorProto.FLOAT, ["N", 2, 3, 4]),
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["R", 5]),
    ]
    gives = [helper.make_tensor_value_info("masks", TensorProto.FLOAT, ["N", 2, 3, 4])]
    weights = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "plain", given, gives, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"roiseg": "{}"})
    onnx.save(model, path)
    return path


def run(path: Path, features: NDArray[np.float32]) -> NDArray[np.float32]:
    feeds = {"a": torch.from_numpy(features)}
    return np.asarray(OnnxHead(path)(feeds, torch.zeros(0, 5)).mask_logits.exp().numpy())


def test_numbers_that_float16_cannot_hold_stay_float32(tmp_path: Path) -> None:
    """In float16, 1e-7 is a fifth larger and 1e7 infinite."""
    nodes = [
        helper.make_node("Mul", ["features_a", "small"], ["tiny"]),
        helper.make_node("Mul", ["tiny", "large"], ["back"]),
        helper.make_node("Add", ["back", "one"], ["masks"]),
    ]
    constants = {name: np.float32(value) for name, value in (("small", 1e-7), ("large", 1e7), ("one", 1))}
    path = plain_head(tmp_path / "head.onnx", nodes, {name: np.asarray(value) for name, value in constants.items()})
    make_half(path, tmp_path / "half.onnx")
    kinds = {item.name: item.data_type for item in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert kinds == {"small": TensorProto.FLOAT, "large": TensorProto.FLOAT, "one_half": TensorProto.FLOAT16}
    features = np.random.default_rng(0).random((2, 2, 3, 4), dtype=np.float32)
    np.testing.assert_allclose(run(tmp_path / "half.onnx", features), features + 1, rtol=1e-3)


def test_a_result_that_is_read_further_keeps_its_name(tmp_path: Path) -> None:
    """An output that another node reads, and types that attributes name."""
    nodes = [
        helper.make_node("Cast", ["features_a"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["again"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.array([2], dtype=np.float32), "two")),
        helper.make_node("Mul", ["again", "two"], ["masks"]),
        helper.make_node("Add", ["masks", "two"], ["nobody"]),
    ]
    path = plain_head(tmp_path / "head.onnx", nodes, {})
    make_half(path, tmp_path / "half.onnx")
    features = np.array([1.5, 3.25], dtype=np.float32).repeat(12).reshape(1, 2, 3, 4)
    np.testing.assert_allclose(run(tmp_path / "half.onnx", features), 2 * np.trunc(features), rtol=1e-6)


def test_a_weight_beyond_float16_is_named(tmp_path: Path) -> None:
    weight = np.full((2, 2, 1, 1), 70000, dtype=np.float32)
    path = plain_head(tmp_path / "head.onnx", [helper.make_node("Conv", ["features_a", "w"], ["masks"])], {"w": weight})
    with pytest.raises(GraphError, match=r"head\.onnx: w holds 70000, expected at most 65504.*take fp16 out of export\.variants"):
        make_half(path, tmp_path / "half.onnx")
    assert not (tmp_path / "half.onnx").exists()


# --- INT8 ---


def test_weights_are_int8_and_the_last_layer_is_not(files: Files) -> None:
    model = onnx.load(files.int8)
    kinds = {item.name: (item.data_type, item.dims) for item in model.graph.initializer}
    of_four = {name: kind for name, (kind, dims) in kinds.items() if len(dims) == 4}
    assert sum(kind == TensorProto.INT8 for kind in of_four.values()) >= 8
    assert [name for name, kind in of_four.items() if kind == TensorProto.FLOAT] == ["head.refine.1.weight"]
    for item in model.graph.initializer:
        if item.data_type == TensorProto.INT8:
            assert np.abs(numpy_helper.to_array(item).astype(int)).max(initial=0) <= 64, item.name
    scales = {node.input[0]: list(kinds[node.input[1]][1]) for node in model.graph.node if node.op_type == "DequantizeLinear"}
    quantised = {name: dims for name, (kind, dims) in kinds.items() if kind == TensorProto.INT8 and len(dims) == 4}
    for name, dims in quantised.items():
        assert scales[name] in ([dims[0]], [dims[1]]), f"{name}: one scale for each channel"


def test_without_rois_there_is_no_calibration(files: Files, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"head\.onnx: there is no ROI to calibrate INT8 on.*raise export\.calibration_images"):
        make_int8(files.whole, tmp_path / "int8.onnx", [])


def test_without_weights_there_is_no_int8(files: Files, tmp_path: Path) -> None:
    path = plain_head(tmp_path / "head.onnx", [helper.make_node("Relu", ["features_a"], ["masks"])], {})
    with pytest.raises(
        GraphError, match=r"no node with weights among Conv, ConvTranspose, Gemm, MatMul.*take int8 out of export\.var"
    ):
        make_int8(path, tmp_path / "int8.onnx", files.feeds())


def test_calibration_is_a_seeded_sample_of_the_cache(files: Files) -> None:
    train = files.project.open("train")
    rows = calibration_rows(train, 3, seed=1)
    assert rows == sorted(set(rows))
    assert len(rows) == 3
    assert set(rows) <= set(train.rows.tolist())
    assert rows == calibration_rows(train, 3, seed=1)
    assert any(calibration_rows(train, 3, seed=seed) != rows for seed in range(2, 9))
    assert calibration_rows(train, 1000, seed=1) == train.rows.tolist()


def test_feeds_are_cached_features_in_passes_of_few_rois(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "MAX_ROIS", 2)
    train: RoiDataset = files.project.open("train")
    rows, found = train.rows.tolist(), list[tuple[int, NDArray[np.float32]]]()
    for feeds in calibration_feeds(train, rows):
        assert list(feeds) == ["features_layer_34", "features_layer_3", "boxes"]
        row = next(
            row for row in rows if np.array_equal(feeds["features_layer_3"][0], train.store.read(row, ["layer_3"])["layer_3"])
        )
        assert 0 < len(feeds["boxes"]) <= 2
        found.append((row, feeds["boxes"][:, 1:]))
    for row in rows:
        boxes = np.concatenate([boxes for place, boxes in found if place == row])
        np.testing.assert_allclose(boxes, train.whole_sample(row).boxes, rtol=1e-6)


# --- files that aren't what they should be ---


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(GraphError, match=r"broken\.onnx: not an ONNX file"):
        make_half(tmp_path / "broken.onnx", tmp_path / "out.onnx")
    path = plain_head(tmp_path / "head.onnx", [helper.make_node("Relu", ["features_a"], ["masks"])], {})
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(GraphError, match=r"head\.onnx: has no metadata 'roiseg'"):
        make_half(path, tmp_path / "out.onnx")


def custom(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"


def further_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def dangling(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nothing"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (custom, r"holds com\.microsoft\.Relu, expected ONNX's own operators, no branch"),
        (further_input, r"has other inputs than head\.onnx"),
        (dangling, r"isn't valid ONNX .*nothing"),
    ],
)
def test_a_variant_that_is_no_head_is_refused(tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str) -> None:
    path = plain_head(tmp_path / "head.onnx", [helper.make_node("Relu", ["features_a"], ["masks"])], {})
    model = onnx.load(path)
    change(model)
    with pytest.raises(GraphError, match=rf"(?s)out\.onnx: {message}.*take the variant out of export\.variants"):
        write_variant(path, model, tmp_path / "out.onnx", {})
    assert not (tmp_path / "out.onnx").exists()


# --- figures and times ---


def test_figures(files: Files) -> None:
    val = files.project.open("val")
    figures = variant_figures(files.whole, {"same": files.whole, "int8": files.int8}, val, val.rows.tolist())
    assert list(figures) == [
        f"{name}_{figure}" for name in ("same", "int8") for figure in ("bytes", "size_ratio", "miou_fg_roi", "miou_fg_roi_loss")
    ]
    assert (figures["same_size_ratio"], figures["same_miou_fg_roi_loss"]) == (1, 0)
    assert figures["int8_bytes"] == files.int8.stat().st_size
    assert figures["int8_size_ratio"] == pytest.approx(figures["int8_bytes"] / figures["same_bytes"], abs=1e-6)
    loss = figures["same_miou_fg_roi"] - figures["int8_miou_fg_roi"]
    assert figures["int8_miou_fg_roi_loss"] == pytest.approx(loss, abs=2e-6)
    assert figures["int8_miou_fg_roi"] != figures["same_miou_fg_roi"]


def test_times_of_variants_stand_beside_those_of_the_file(files: Files) -> None:
    times = measure(files.head, files.specs, examples(files.specs, NETWORK_HW), files.whole, {"int8": files.int8})
    found, whole = times["onnxruntime_int8"]["cpu"], times["onnxruntime"]["cpu"]
    assert list(found) == [f"{kind}_{rois}" for kind in ("ms", "ratio") for rois in ("1_roi", "3_rois", "10_rois")]
    assert found["ratio_3_rois"] == pytest.approx(found["ms_3_rois"] / whole["ms_3_rois"], abs=1e-3)
