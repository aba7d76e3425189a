"""Small U-nets of people, and images for them."""

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from roiseg.network_input import Pixels
from roiseg.params import NOTHING_KEPT
from roiseg.types import HW
from roiseg.unet.person_unet import PersonUnet, build_person_unet
from roiseg.unet.person_unet_params import UnetModelParams

HERE = "unet.model"
INPUT_HW = (32, 64)


def unet_params(**changes: object) -> UnetModelParams:
    """Sub-section `unet.model` for a B0 of fresh weights; `changes` replace its values."""
    values: dict[str, object] = {
        "encoder": "timm-efficientnet-b0",
        "encoder_weights": "none",
        "checkpoint": NOTHING_KEPT,
        "freeze_encoder": False,
        "input_hw": INPUT_HW,
        "decoder_channels": [256, 128, 64, 32, 16],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    return UnetModelParams.parse(values | changes, HERE)


def make_unet(image_hw: HW = INPUT_HW, seed: int = 0, **changes: Any) -> PersonUnet:  # noqa: ANN401 - values of a section
    """A U-net of fresh weights."""
    torch.manual_seed(seed)
    return build_person_unet(unet_params(**changes), image_hw, where=HERE, unfrozen_later=True)


def settled_unet(image_hw: HW = INPUT_HW, **changes: Any) -> PersonUnet:  # noqa: ANN401 - values of a section
    """A U-net in eval mode whose norms have seen images, so that its logits aren't all alike."""
    unet = make_unet(image_hw, **changes).train()
    with torch.no_grad():
        for seed in range(3):
            unet(torch.from_numpy(random_images(4, image_hw, seed)) / 255)
    return unet.eval()


def random_images(count: int, image_hw: HW = INPUT_HW, seed: int = 0) -> Pixels:
    """(N, 3, H, W) uint8 RGB; each has a colour of its own below the noise."""
    random = np.random.default_rng(seed)
    colours = random.integers(0, 156, (count, 3, 1, 1))
    return (colours + random.integers(0, 100, (count, 3, *image_hw))).astype(np.uint8)


def bare_net(scale: float, image_hw: HW) -> onnx.ModelProto:
    """An ONNX with the interface of a net's: the red channel times a number."""
    node = [helper.make_node("Gather", ["images", "red"], ["one"], axis=1), helper.make_node("Mul", ["one", "scale"], ["logits"])]
    constants = [
        helper.make_tensor("red", TensorProto.INT64, [1], [0]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
    ]
    given, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["images", channels, *image_hw])
        for name, channels in (("images", 3), ("logits", 1))
    )
    graph = helper.make_graph(node, "net", [given], [made], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
