"""Tests of roiseg.export.parity: real ROIs are compared too, and each kind of disagreement is found and named."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_factory import Exported, shared_export
from onnx import numpy_helper
from torch import Tensor, nn

from roiseg.batches import Loading
from roiseg.errors import ParityError
from roiseg.evaluate.infer import Score, predictions
from roiseg.export import parity as parity_module
from roiseg.export.onnx_head import OnnxHead
from roiseg.export.parity import Parity, RealRois, parity
from roiseg.nn.outputs import HeadOutput
from roiseg.types import FeatureSpec

HW = (64, 96)
LOADING = Loading(images_per_batch=2, threads=1, ahead=1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return shared_export(tmp_path_factory)


def specs_of(exported: Exported) -> list[FeatureSpec]:
    val = exported.inputs.val
    return [val.store.specs[name] for name in val.layers]


def compare(exported: Exported, head: nn.Module, path: Path, real: RealRois | None = None, tolerance: float = 1e-3) -> Parity:
    return parity(head, specs_of(exported), HW, path, tolerance, real)


class Changed(nn.Module):
    """A head, with a change to what it says."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> HeadOutput:
        output: HeadOutput = self.head(features, boxes)
        return output._replace(mask_logits=self.changed(output.mask_logits))

    def changed(self, logits: Tensor) -> Tensor:
        raise NotImplementedError


class Halved(Changed):
    def changed(self, logits: Tensor) -> Tensor:
        return logits[:, :, ::2]


class NotANumber(Changed):
    def changed(self, logits: Tensor) -> Tensor:
        return logits * float("nan")


class Swapped(Changed):
    """Background and non-target, one for the other."""

    def changed(self, logits: Tensor) -> Tensor:
        return logits.flip(1)


def test_real_rois_are_those_of_the_store(exported: Exported) -> None:
    val = exported.inputs.val
    rows = val.rows.tolist()
    found = list(RealRois(val, rows, Loading(1, 1, 1)).inputs())
    assert [len(boxes) for _, boxes, _ in found] == val.index.rois_per_image[val.rows].tolist()
    assert [len(labels) for _, _, labels in found] == [len(boxes) for _, boxes, _ in found]
    (features, boxes, _) = next(iter(RealRois(val, rows[1:2], LOADING).inputs()))
    np.testing.assert_allclose(boxes.numpy(), found[1][1].numpy())
    for name in val.layers:
        np.testing.assert_array_equal(features[name][0].numpy(), val.store.read(rows[1], [name])[name].astype(np.float32))


def test_an_honest_file_agrees_on_real_rois(exported: Exported) -> None:
    val = exported.inputs.val
    real = RealRois(val, val.rows.tolist(), LOADING)
    found = compare(exported, exported.inputs.head, exported.folder / "head.onnx", real, 1e-4)
    assert 0 < found.max_abs < 1e-4
    assert found.miou_difference < 1e-4


def test_what_only_real_rois_show_is_found(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of random sizes nothing is left: a head that is wrong on real ROIs must fail on those."""
    monkeypatch.setattr(parity_module, "SIZES", ())
    val = exported.inputs.val
    real = RealRois(val, val.rows.tolist(), LOADING)
    with pytest.raises(ParityError, match=r"masks differs from torch by .* on 2 real images and \d+ ROIs"):
        compare(exported, Swapped(exported.inputs.head), exported.folder / "head.onnx", real)
    assert compare(exported, Swapped(exported.inputs.head), exported.folder / "head.onnx") == Parity(0.0, 0.0)


def test_another_miou_is_found(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """By as much as evaluation says, where values are let pass."""
    val = exported.inputs.val
    wrong = Swapped(exported.inputs.head)
    expected = []
    for head in (wrong, OnnxHead(exported.folder / "head.onnx")):
        score = Score.empty()
        for prediction in predictions(head, val, torch.device("cpu"), LOADING):
            score.add(prediction)
        expected.append(score.figures()["miou_fg_roi"])
    real = RealRois(val, val.rows.tolist(), LOADING)
    monkeypatch.setattr(parity_module, "_difference", lambda *_: 0.0)
    with pytest.raises(ParityError, match=rf"miou_fg_roi is {expected[1]:.4f} and torch's {expected[0]:.4f} on the same ROIs"):
        compare(exported, wrong, exported.folder / "head.onnx", real)
    found = compare(exported, wrong, exported.folder / "head.onnx", real, 1.0)
    assert found.miou_difference == pytest.approx(abs(expected[0] - expected[1]), abs=1e-9)


def test_tampered_weights_are_found(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported.folder / "head.onnx")
    weight = max(model.graph.initializer, key=lambda item: int(np.prod(item.dims)))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(0.05), weight.name))
    onnx.save(model, tmp_path / "head.onnx")
    with pytest.raises(
        ParityError, match=r"head\.onnx: masks differs from torch by .* expected at most 0\.001 \(export\.tolerance\)"
    ):
        compare(exported, exported.inputs.head, tmp_path / "head.onnx")


def test_another_mask_size_is_found(exported: Exported) -> None:
    with pytest.raises(ParityError, match=r"masks is \(1, 3, 12, 10\) for 1 ROIs, expected \(1, 3, 6, 10\)"):
        compare(exported, Halved(exported.inputs.head), exported.folder / "head.onnx")


def test_not_a_number_is_a_difference(exported: Exported) -> None:
    with pytest.raises(ParityError, match="differs from torch by nan on 1 images and 1 ROIs"):
        compare(exported, NotANumber(exported.inputs.head), exported.folder / "head.onnx")


def test_a_file_that_fails_on_some_count_is_named(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported.folder / "head.onnx")
    last = next(node for node in model.graph.node if "masks" in node.output)
    last.output[0] = "before"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3, 0, 0], dtype=np.int64), "like"))
    model.graph.node.append(onnx.helper.make_node("Reshape", ["before", "like"], ["masks"]))
    onnx.save(model, tmp_path / "head.onnx")
    with pytest.raises(
        ParityError, match=r"(?s)head\.onnx: onnxruntime fails on 3 images and 7 ROIs, expected .* try another export"
    ):
        compare(exported, exported.inputs.head, tmp_path / "head.onnx")
