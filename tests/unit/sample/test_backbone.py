"""The sample backbone: names, shapes, cost, and torch = ONNX."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from roiseg.sample import backbone
from roiseg.sample.backbone import make_lessons, train_backbone
from roiseg.sample.complexity import count_gflops, count_parameters, feature_shapes, list_convs
from roiseg.sample.dataset import draw_picture
from roiseg.sample.network import Network
from roiseg.sample.onnx_graph import IR_VERSION, OPSET, build_onnx, write_onnx
from roiseg.sample.params import SampleParams
from roiseg.sample.topology import FEATURE_STRIDES, FEATURES
from roiseg.sample.weights import initial_weights

WIDTH = 0.0625


def _network() -> Network:
    """An untrained network whose batch norms have seen something."""
    torch.manual_seed(0)
    network = Network(WIDTH, initial_weights(list_convs(WIDTH), np.random.default_rng(0)))
    with torch.no_grad():
        network(torch.rand(2, 3, 64, 96))
    return network.eval()


def test_full_width_is_yolov9_e() -> None:
    shapes = {number: feature_shapes(1.0)[number] for number in FEATURES}
    assert {number: shape.channels for number, shape in shapes.items()} == {3: 256, 5: 512, 19: 256, 22: 512, 34: 1024}
    assert {number: shape.stride for number, shape in shapes.items()} == FEATURE_STRIDES
    # The authors print 57.3 M parameters and 189.0 GFLOPs for the converted network.
    assert count_gflops(1.0) == pytest.approx(189.0, abs=0.5)
    assert count_parameters(1.0) / 1e6 == pytest.approx(57.3, abs=0.3)


def test_gflops_follow_the_area() -> None:
    assert count_gflops(WIDTH, (320, 640)) == pytest.approx(count_gflops(WIDTH) / 2)


def test_torch_and_onnx_agree_on_all_features() -> None:
    network = _network()
    model = build_onnx(WIDTH, network.folded())
    for name in FEATURES.values():
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch, height, width in ((1, 64, 96), (2, 96, 64)):
        image = torch.rand(batch, 3, height, width)
        with torch.no_grad():
            features, raw = network(image)
        outputs = session.run([*FEATURES.values(), "output0"], {"images": image.numpy()})
        for (number, name), found in zip(FEATURES.items(), outputs[:-1], strict=True):
            stride = FEATURE_STRIDES[number]
            assert found.shape == (batch, feature_shapes(WIDTH)[number].channels, height // stride, width // stride)
            np.testing.assert_allclose(found, features[number].numpy(), rtol=1e-4, atol=1e-4, err_msg=name)
        cells = sum((height // stride) * (width // stride) for stride in (8, 16, 32))
        assert outputs[-1].shape == (batch, 144, cells)
        np.testing.assert_allclose(outputs[-1], raw.numpy(), atol=1e-4 * float(raw.abs().max() + 1))


def test_graph_is_as_a_real_file(tmp_path: Path) -> None:
    weights = initial_weights(list_convs(WIDTH), np.random.default_rng(1))
    for name in ("first.onnx", "second.onnx"):
        write_onnx(build_onnx(WIDTH, weights), tmp_path / name)
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()
    model = onnx.load(tmp_path / "first.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.output] == ["output0"]
    assert set(FEATURES.values()) <= {output for node in model.graph.node for output in node.output}
    assert model.opset_import[0].version == OPSET
    assert model.ir_version == IR_VERSION <= 10


def test_no_steps_keeps_initial_weights() -> None:
    weights = train_backbone([], WIDTH, 0, np.random.default_rng(5), lambda: None)
    expected = initial_weights(list_convs(WIDTH), np.random.default_rng(5))
    assert weights.keys() == expected.keys()
    assert all(np.array_equal(weights[name][0], expected[name][0]) for name in weights)


def test_training_is_deterministic_and_restores_settings(small_params: SampleParams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "BATCHES", ((2, 64),))
    monkeypatch.setattr(backbone, "NORM_BATCHES", 1)
    threads = torch.get_num_threads()
    lessons = make_lessons(draw_picture(small_params, "backbone", 3)[0])
    runs = [train_backbone(lessons, WIDTH, 1, np.random.default_rng(0), lambda: None) for _ in range(2)]
    for name in runs[0]:
        assert np.array_equal(runs[0][name][0], runs[1][name][0]), name
        assert np.array_equal(runs[0][name][1], runs[1][name][1]), name
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
