"""Tests of roiseg.export.net_onnx: a net's file for anybody, and as the backbone of extraction."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx_factory import extractor_params
from person_unet_factory import INPUT_HW, bare_net, random_images, settled_unet, unet_params
from torch import nn

from roiseg.errors import GraphError, ParityError
from roiseg.export.metadata import Learnt
from roiseg.export.net_onnx import LOGIT_LIMIT, LOGITS, NET_FILE, as_backbone, export_net, net_metadata
from roiseg.export.onnx_net import OnnxNet, net_parity, net_variants
from roiseg.extractor.params import ExtractorParams
from roiseg.extractor.session import Backbone
from roiseg.files import write_bytes
from roiseg.network_input import InputRule, Pixels, as_input
from roiseg.onnx_names import METADATA_KEY, PERSON_LOGITS
from roiseg.unet.person_unet import PersonUnet

IMAGE_HW = (48, 64)
"""Not the net's own size, so that the file resizes."""

OPSET = 18


def rule_of(**changes: object) -> ExtractorParams:
    return extractor_params(input_hw=list(IMAGE_HW), **changes)


@pytest.fixture(scope="module")
def unet() -> PersonUnet:
    return settled_unet(IMAGE_HW)


@pytest.fixture(scope="module")
def file(unet: PersonUnet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The net's ONNX."""
    path = tmp_path_factory.mktemp("net") / NET_FILE
    learnt = Learnt({"unet": {"loss": 1}}, 3, {"miou_2class": 0.5}, "ab", "cd")
    export_net(unet, OPSET, net_metadata(unet_params(), rule_of(color="bgr").input_rule(), learnt), path)
    return path


@pytest.fixture(scope="module")
def model(file: Path) -> onnx.ModelProto:
    return onnx.load(file)


def in_torch(unet: nn.Module, images: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    with torch.no_grad():
        found: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = unet(torch.from_numpy(images) / 255).numpy()
    return found


def test_the_file_says_what_torch_says(unet: PersonUnet, file: Path) -> None:
    batches: Iterator[Pixels] = iter([random_images(2, IMAGE_HW, seed=8), random_images(5, IMAGE_HW, seed=9)])
    found = net_parity(unet, file, batches, tolerance=1e-4)
    assert 0 <= found.max_abs <= found.max_abs_logit < 1e-3
    assert next(batches, None) is None
    assert np.ptp(in_torch(unet, random_images(2, IMAGE_HW))) > 0.1, "or it would say little"


def test_another_net_is_told_apart(file: Path) -> None:
    other = settled_unet(IMAGE_HW, seed=1)
    with pytest.raises(ParityError, match=rf"{NET_FILE}: a probability differs from torch's by .* on 1 random images, expected at"):
        net_parity(other, file, [], tolerance=1e-4)


def test_another_shape_is_told(file: Path) -> None:
    with pytest.raises(ParityError, match=r"logits is \[1, 1, 32, 64\], expected \[1, 3, 48, 64\]; export it again"):
        net_parity(nn.Identity(), file, [], tolerance=1.0)


def test_interface(model: onnx.ModelProto) -> None:
    metadata = json.loads(next(item.value for item in model.metadata_props if item.key == METADATA_KEY))
    assert metadata["inputs"] == {"images": {"dtype": "float32", "shape": ["images", 3, 48, 64]}}
    assert metadata["outputs"] == {LOGITS: {"dtype": "float32", "shape": ["images", 1, 32, 64]}}
    assert metadata["opset"] == OPSET
    assert metadata["net"] == {
        "encoder": "timm-efficientnet-b0",
        "decoder_channels": [256, 128, 64, 32, 16],
        "input_hw": [32, 64],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    assert InputRule.from_plain(metadata["input"]) == InputRule(IMAGE_HW, "stretch", "rgb", 1.0)
    assert metadata["metrics"] == {"miou_2class": 0.5}
    assert metadata["fingerprints"] == {"checkpoint_sha256": "ab", "store_sha256": "cd"}


def test_nothing_in_the_graph_depends_on_the_count_of_images(model: onnx.ModelProto) -> None:
    """For onnxruntime would compute it beside the GPU, where a backbone may not run."""
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Resize"] == 5
    assert not {"Shape", "Range", "Expand"} & set(kinds)
    assert all(len(node.input) == 3 for node in model.graph.node if node.op_type == "Resize")


@pytest.mark.parametrize(("color", "pixel_max"), [("rgb", 1.0), ("bgr", 255.0)])
def test_extraction_s_session_runs_it(
    unet: PersonUnet, model: onnx.ModelProto, tmp_path: Path, color: str, pixel_max: float
) -> None:
    params, path = rule_of(color=color, pixel_max=pixel_max), tmp_path / "backbone.onnx"
    write_bytes(path, as_backbone(model, "teacher", params).SerializeToString(deterministic=True))
    backbone = Backbone(path, "cpu", "float32")
    (layer,) = backbone.info.layers
    assert (layer.name, layer.tensor, layer.channels, layer.hw) == ("teacher", PERSON_LOGITS, 1, INPUT_HW)
    assert (backbone.info.input_hw, backbone.info.batch_size, backbone.info.detections) == (IMAGE_HW, None, None)
    for count in (1, 3):
        images = random_images(count, IMAGE_HW, seed=count)
        given = images if color == "rgb" else images[:, ::-1]
        found = backbone(as_input(given, params.input_rule()))["teacher"]
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, in_torch(unet, images), rtol=2**-11, atol=1e-4)


def test_colours_and_range_matter(model: onnx.ModelProto, tmp_path: Path) -> None:
    """So that the test above could fail."""
    images, found = random_images(1, IMAGE_HW), []
    for place, changes in enumerate(({"color": "rgb", "pixel_max": 1.0}, {"color": "bgr", "pixel_max": 1.0})):
        path = tmp_path / f"{place}.onnx"
        write_bytes(path, as_backbone(model, "teacher", rule_of(**changes)).SerializeToString(deterministic=True))
        found.append(Backbone(path, "cpu", "float32")(as_input(images, rule_of(pixel_max=1.0).input_rule()))["teacher"])
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_no_logit_is_too_large_for_the_store(tmp_path: Path) -> None:
    params, path = rule_of(pixel_max=1.0), tmp_path / "backbone.onnx"
    write_bytes(path, as_backbone(bare_net(1e30, IMAGE_HW), "teacher", params).SerializeToString(deterministic=True))
    images = np.zeros((2, 3, *IMAGE_HW), dtype=np.float32)
    images[0], images[1] = 1.0, -1.0
    found = Backbone(path, "cpu", "float32")(images)["teacher"]
    assert found.reshape(2, -1).min(axis=1).tolist() == [LOGIT_LIMIT, -LOGIT_LIMIT]


def test_images_of_another_size_are_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(GraphError, match=r"takes images of \[48, 64\], but those of the store are \[64, 64\] .*train and export"):
        as_backbone(model, "teacher", extractor_params(input_hw=[64, 64]))


def test_another_graph_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    other.graph.output[0].name = "masks"
    with pytest.raises(GraphError, match=r"takes images and gives masks, expected images and logits; take the file that"):
        as_backbone(other, "teacher", rule_of())
    path = tmp_path / "backbone.onnx"
    write_bytes(path, as_backbone(model, "teacher", rule_of()).SerializeToString())
    with pytest.raises(
        GraphError, match=r"gives teacher, expected images and logits; take a person_net\.onnx that roiseg exported"
    ):
        OnnxNet(path)


def test_smaller_files_say_nearly_the_same(unet: PersonUnet, file: Path) -> None:
    files = net_variants(file, ["fp16", "int8"], [random_images(2, IMAGE_HW, seed=seed) for seed in range(2)])
    images = random_images(2, IMAGE_HW, seed=8)
    expected = torch.from_numpy(in_torch(unet, images)).sigmoid()
    limits = {"fp16": (0.01, 0.55), "int8": (0.25, 0.35)}
    for name, path in files.items():
        allowed, ratio = limits[name]
        assert path.stat().st_size < ratio * file.stat().st_size
        assert (OnnxNet(path)(torch.from_numpy(images) / 255).sigmoid() - expected).abs().max() < allowed


def test_one_file_gives_one_backbone(model: onnx.ModelProto) -> None:
    backbones = [as_backbone(model, "teacher", rule_of()).SerializeToString(deterministic=True) for _ in range(2)]
    assert backbones[0] == backbones[1]
