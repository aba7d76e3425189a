"""Tests of roiseg.export.onnx_head: a file answers as its head does, and other files are refused."""

from pathlib import Path

import onnx
import pytest
import torch
from export_factory import Exported, real_cases, shared_export
from onnx import TensorProto, helper

from roiseg.batches import Loading
from roiseg.errors import GraphError
from roiseg.evaluate.infer import Score, predictions
from roiseg.export.onnx_head import OnnxHead


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return shared_export(tmp_path_factory)


def test_answers_as_the_head_does(exported: Exported) -> None:
    val = exported.inputs.val
    found = OnnxHead(exported.folder / "head.onnx")
    assert sorted(found.layers) == sorted(val.layers)
    for *maps, boxes in real_cases(val, 3):
        features = dict(zip(val.layers, maps, strict=True)) | {"further": torch.zeros(1)}
        with torch.no_grad():
            expected = exported.inputs.head(features, boxes).mask_logits.log_softmax(dim=1)
        torch.testing.assert_close(found(features, boxes).mask_logits, expected, atol=1e-4, rtol=1e-4)


def test_scores_as_the_head_does(exported: Exported) -> None:
    figures = []
    for head in (exported.inputs.head, OnnxHead(exported.folder / "head.onnx")):
        score = Score.empty()
        for prediction in predictions(head, exported.inputs.val, torch.device("cpu"), Loading(2, 1, 1)):
            score.add(prediction)
        figures.append(score.figures())
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)


def test_a_missing_layer_is_named(exported: Exported) -> None:
    with pytest.raises(GraphError, match=r"features lack layer_34, which the file takes; give them beside layer_3$"):
        OnnxHead(exported.folder / "head.onnx")({"layer_3": torch.zeros(1, 4, 16, 24)}, torch.zeros(0, 5))


def test_another_graph_is_refused(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("images", "logits")]
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["logits"])], "other", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "other.onnx")
    with pytest.raises(GraphError, match=r"other\.onnx: takes images and gives logits, expected features_LAYER of each layer"):
        OnnxHead(tmp_path / "other.onnx")
