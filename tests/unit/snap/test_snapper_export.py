"""What `snapper_export` writes, for both kinds of models."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from net_factory import stored_sections
from onnx import TensorProto, helper
from snap_factory import NETWORK_HW, SPECS, shared_section, shared_snapper, snap_dataset

from roiseg.batches import Loading
from roiseg.errors import CheckpointError, ParityError
from roiseg.export.trace import count_axes_from_front
from roiseg.snap import Snapper
from roiseg.snapper.build import load_snapper
from roiseg.snapper.calibration import Calibration
from roiseg.snapper.export import SnapExportInputs, SnapExportPaths, export_snapper_files
from roiseg.snapper.infer import snap_results
from roiseg.snapper.params import SnapperParams
from roiseg.snapper.windows import to_image, to_share
from roiseg.train.checkpoint import BEST, load_checkpoint
from roiseg.types import IMAGE


def write_cut(path: Path) -> Path:
    """A cut graph in form: its two layers are pooled pixels, the detections nothing."""
    nodes, outputs, layers, weights = [], [], [], []
    for name in ("layer_34", "layer_3"):
        spec = SPECS[name]
        stride = [int(item) for item in spec.stride_hw]
        hw = [size // step for size, step in zip(NETWORK_HW, stride, strict=True)]
        kernel = np.full((spec.channels, 3, *stride), 0.01, dtype=np.float32)
        weights.append(onnx.numpy_helper.from_array(kernel, f"{name}_kernel"))
        nodes.append(helper.make_node("Conv", ["images", f"{name}_kernel"], [f"{name}_wide"], strides=stride))
        nodes.append(helper.make_node("Cast", [f"{name}_wide"], [name], to=TensorProto.FLOAT16))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["N", spec.channels, *hw]))
        layers.append({"name": name, "tensor": f"{name}_wide", "channels": spec.channels, "hw": hw})
    nodes.append(helper.make_node("Identity", ["images"], ["boxes"]))
    outputs.append(helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", 3, *NETWORK_HW]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, *NETWORK_HW])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [images], outputs, weights), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 9
    told = {"input_name": "images", "input_hw": list(NETWORK_HW), "batch_size": None, "dtype": "float16", "detections": "boxes"}
    helper.set_model_props(model, {"roiseg": json.dumps({**told, "layers": layers})})
    onnx.save(model, path)
    return path


def inputs_of(folder: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, **export: object) -> SnapExportInputs:
    params = shared_section(kind)
    params = params.model_copy(update={"export": params.export.model_copy(update=export)})
    assert isinstance(params, SnapperParams)
    monkeypatch.chdir(folder)
    train, val = (snap_dataset(folder, params, split) for split in ("train", "val"))
    file = folder / "models/snapper" / BEST
    return SnapExportInputs(
        module=load_snapper(file, params.model, val.store.specs, NETWORK_HW),
        params=params,
        checkpoint=load_checkpoint(file),
        file=file,
        calibration=Calibration((0.7, -1.5, 0.3)),
        tolerance=params.confidence.tolerance,
        stored=stored_sections(),
        train=train,
        val=val,
        backbone=write_cut(tmp_path / "cut.onnx"),
        scales=val.store.scales,
    )


def paths_in(folder: Path) -> SnapExportPaths:
    return SnapExportPaths(folder / "out" / "snapper", folder / "out" / "snapper.json", folder / "out" / "times.json")


@pytest.mark.parametrize("kind", ["cached", "crop"])
def test_files_of_both_kinds(
    kind: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_of(shared_snapper(tmp_path_factory, kind), tmp_path, kind, monkeypatch, variants=("fp16", "int8"))
    paths = paths_in(tmp_path)
    figures = export_snapper_files(inputs, paths)
    assert json.loads(paths.figures.read_text()).keys() == figures.keys()
    assert figures["parity_max_abs"] <= inputs.params.export.tolerance
    assert figures["parity_edges"] > 0
    assert 0 < figures["mean_iou"] <= 1
    assert figures["parameters"] == sum(item.numel() for item in inputs.module.parameters())
    assert abs(figures["fp16_mean_iou_loss"]) < 0.02
    assert figures["fp16_size_ratio"] < 1  # a graph of few weights is mostly nodes
    told = json.loads((paths.out / "snapper.json").read_text())
    assert (told["kind"], told["buffer"], told["calibration"]["weights"]) == (kind, 1.35, [0.7, -1.5, 0.3])
    graph = onnx.load(paths.out / "snapper.onnx").graph
    assert not {"If", "Loop", "Scan"} & {node.op_type for node in graph.node}
    assert (paths.out / "backbone.onnx").exists() == (kind == "cached")
    for name in ("snapper.onnx", "snapper.fp16.onnx", "snapper.int8.onnx"):
        snapper = Snapper(paths.out / name, "cpu")
        snapper.set_image(np.zeros((50, 70, 3), dtype=np.uint8))
        assert len(snapper.snap([[10, 10, 40, 40], [0, 0, 70, 50]])) == 2
        assert snapper.snap([]) == []


def test_a_crop_model_sees_pixels_as_it_learnt_them(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file of scales names the image's, by which stored bytes are what the model knows."""
    inputs = replace(inputs_of(shared_snapper(tmp_path_factory, "crop"), tmp_path, "crop", monkeypatch), scales={})
    export_snapper_files(inputs, paths_in(tmp_path))
    decision, row = inputs.params.decision, int(inputs.val.rows[0])
    (found,) = snap_results(inputs.module, inputs.val, decision, torch.device("cpu"), Loading(1, 1, 1), [row])
    snapper = Snapper(tmp_path / "out/snapper", "cpu")
    snapper.set_image(np.ascontiguousarray(inputs.val.store.read(row, [IMAGE])[IMAGE][::-1].transpose(1, 2, 0)))
    image_hw = (int(found.image_hw[0, 0]), int(found.image_hw[0, 1]))
    boxes = snapper.snap(to_image(to_share(found.rough, image_hw), NETWORK_HW))
    proposed = to_share(np.stack([box.proposed_image for box in boxes]), NETWORK_HW)
    np.testing.assert_allclose(proposed, to_share(found.snapped, image_hw), atol=1e-3)


def test_the_backbone_holds_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_snapper_files(inputs_of(shared_snapper(tmp_path_factory), tmp_path, "cached", monkeypatch), paths_in(tmp_path))
    backbone = onnx.load(tmp_path / "out/snapper/backbone.onnx")
    assert [item.name for item in backbone.graph.output] == ["layer_34", "layer_3"]
    assert "Identity" not in {node.op_type for node in backbone.graph.node}


def test_nothing_is_written_where_something_is_wrong(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared_snapper(tmp_path_factory)
    strict = inputs_of(folder, tmp_path, "cached", monkeypatch, tolerance=1e-12)
    with pytest.raises(ParityError, match=r"differ from torch by .* expected at most 1e-12 \(snapper\.export\.tolerance\)"):
        export_snapper_files(strict, paths_in(tmp_path))
    object.__setattr__(strict, "tolerance", 0.5)
    with pytest.raises(
        CheckpointError, match=r"the calibration is for edges within 0\.5 of a window, but .* is 0\.05; run `dvc repro"
    ):
        export_snapper_files(strict, paths_in(tmp_path))
    assert not (tmp_path / "out" / "snapper").exists()
    assert not (tmp_path / "out" / "snapper.json").exists()


def test_axes_are_counted_from_the_front() -> None:
    axes = onnx.numpy_helper.from_array(np.array([-1]), "axes")
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"]), helper.make_node("ArgMax", ["x"], ["z"], axis=-1)]
    info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["R", 3])]
    outs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("z", TensorProto.INT64, None),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", info, outs, [axes]), opset_imports=[helper.make_opsetid("", 18)])
    count_axes_from_front(model)
    assert model.graph.node[0].input[1] == "axes_of_2"
    assert model.graph.node[1].attribute[0].i == 1
