"""Tests of roiseg.unet.person_weights: files of several makers, and those that don't fit."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import segmentation_models_pytorch as smp
import torch
from person_unet_factory import HERE, INPUT_HW, make_unet, unet_params
from safetensors.torch import save_file
from torch import Tensor

from roiseg.errors import CheckpointError
from roiseg.unet.person_unet import PersonUnet, build_person_unet
from roiseg.unet.person_weights import guess_encoder

Weights = dict[str, Tensor]
SMALL: dict[str, Any] = {"decoder_channels": [8, 8, 4, 4, 4]}
"""Of nets whose files aren't large; the encoder stays a B0."""


@pytest.fixture(scope="module")
def source() -> PersonUnet:
    """The net that files are of."""
    return make_unet(seed=7, **SMALL)


def build(**changes: object) -> PersonUnet:
    torch.manual_seed(0)
    return build_person_unet(unet_params(**(SMALL | changes)), INPUT_HW, where=HERE)


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(item, second[name]) for name, item in first.items())


def prefixed(weights: Weights, prefix: str) -> Weights:
    return {prefix + name: item for name, item in weights.items()}


WRAPPED: dict[str, Callable[[Weights], Any]] = {
    "plain": lambda weights: weights,
    "state_dict": lambda weights: {"epoch": 3, "state_dict": prefixed(weights, "model.")},
    "model_state_dict": lambda weights: {"model_state_dict": prefixed(weights, "module."), "optimizer": {"lr": 0.1}},
    "model": lambda weights: {"epoch": 1, "model": prefixed(weights, "net."), "live": {}, "best": 0.87},
    "twice": lambda weights: {"model": {"state_dict": prefixed(weights, "module.model.")}},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_checkpoints_of_a_whole_net(source: PersonUnet, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "best_model_b0_0.8741.pth"
    torch.save(WRAPPED[kind](source.net.state_dict()), path)
    found = build(checkpoint=str(path), encoder_weights="nowhere.pth")
    assert same(source.state_dict(), found.state_dict())


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("whole", [True, False])
def test_weights_of_the_encoder(source: PersonUnet, tmp_path: Path, kind: str, whole: bool) -> None:
    path = tmp_path / "encoder.pth"
    torch.save(WRAPPED[kind]((source.net if whole else source.net.encoder).state_dict()), path)
    found, fresh = build(encoder_weights=str(path)), build()
    assert same(source.net.encoder.state_dict(), found.net.encoder.state_dict())
    assert same(fresh.net.decoder.state_dict(), found.net.decoder.state_dict())


def test_a_frozen_encoder_may_have_weights(source: PersonUnet, tmp_path: Path) -> None:
    path = tmp_path / "encoder.pth"
    torch.save(source.net.encoder.state_dict(), path)
    found = build(encoder_weights=str(path), freeze_encoder=True)
    assert not any(item.requires_grad for item in found.net.encoder.parameters())


def test_an_encoder_s_file_as_others_write_it(source: PersonUnet, tmp_path: Path) -> None:
    """ImageNet's classifier in it, no counts of norms, nothing behind the last map: as timm and the hub do."""
    weights = {
        name: item.contiguous()
        for name, item in source.net.encoder.state_dict().items()
        if not name.startswith(("conv_head", "bn2")) and not name.endswith("num_batches_tracked")
    }
    path = tmp_path / "model.safetensors"
    save_file(weights | {"classifier.weight": torch.zeros(5, 4), "classifier.bias": torch.zeros(5)}, path)
    assert same(weights, build(encoder_weights=str(path)).net.encoder.state_dict())


def test_a_missing_file() -> None:
    with pytest.raises(CheckpointError, match=r"^nowhere\.pth \(unet\.model\.checkpoint\): no such file; fetch it"):
        build(checkpoint="nowhere.pth")
    with pytest.raises(CheckpointError, match=r"^nowhere\.pth \(unet\.model\.encoder_weights\): no such file; fetch it"):
        build(encoder_weights="nowhere.pth")


@pytest.mark.parametrize("name", ["torn.pth", "torn.safetensors"])
@pytest.mark.parametrize("kept", [0, 3, 1000])
def test_a_torn_file(source: PersonUnet, tmp_path: Path, name: str, kept: int) -> None:
    whole, torn = tmp_path / "whole.pth", tmp_path / name
    torch.save(source.net.segmentation_head.state_dict(), whole)
    torn.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(
        CheckpointError, match=r"\(unet\.model\.checkpoint\): can't be read as weights \(torn, .*\); fetch it again"
    ):
        build(checkpoint=str(torn))


class Code:
    """Something that a file may not hold."""


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "code.pth"
    torch.save({"state_dict": {}, "settings": Code()}, path)
    with pytest.raises(CheckpointError, match=r"with more in it than tensors and plain values\); .*save its state dict alone"):
        build(checkpoint=str(path))


@pytest.mark.parametrize(
    ("data", "held"),
    [({"epoch": 3, "best": 0.8}, "a dict of epoch, best"), ([1, 2], "a list"), ({"model": {}}, "a dict"), ({}, "a dict")],
)
def test_a_file_without_weights(tmp_path: Path, data: object, held: str) -> None:
    path = tmp_path / "other.pth"
    torch.save(data, path)
    with pytest.raises(CheckpointError, match=rf"other\.pth \(unet\.model\.checkpoint\): holds no weights but {held}, expected"):
        build(checkpoint=str(path))


def test_two_nets_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "two.pth"
    torch.save({"model.encoder.bn1.bias": torch.zeros(32), "net.encoder.bn1.bias": torch.zeros(32)}, path)
    with pytest.raises(CheckpointError, match=r"holds encoder\.bn1\.bias twice, under other prefixes"):
        build(checkpoint=str(path))


def other_encoder(name: str) -> Weights:
    """Zeros in the shapes of another encoder."""
    with torch.device("meta"):
        shapes = make_unet(encoder=name, **SMALL).net.encoder.state_dict()
    return {key: torch.zeros(item.shape, dtype=item.dtype) for key, item in shapes.items()}


def test_weights_of_another_encoder(tmp_path: Path) -> None:
    path = tmp_path / "2020-09-23a.pth"
    torch.save(other_encoder("timm-efficientnet-b3"), path)
    message = (
        r"2020-09-23a\.pth \(unet\.model\.encoder_weights\): isn't of this net, whose encoder is timm-efficientnet-b0: "
        r"conv_stem\.weight is \[40, 3, 3, 3\] there and \[32, 3, 3, 3\] here; .*; and \d+ more\. "
        r"The file seems to be of timm-efficientnet-b3: set unet\.model\.encoder to it, or name a file of timm-efficientnet-b0"
    )
    with pytest.raises(CheckpointError, match=message):
        build(encoder_weights=str(path))


def test_a_deeper_encoder_of_the_same_widths(tmp_path: Path) -> None:
    path = tmp_path / "b1.pth"
    torch.save(prefixed(other_encoder("timm-efficientnet-b1"), "encoder."), path)
    message = r"holds blocks\.0\.1\.conv_dw\.weight \[16, 1, 3, 3\], which is unknown here; .*seems to be of timm-efficientnet-b1"
    with pytest.raises(CheckpointError, match=message):
        build(encoder_weights=str(path))


def test_an_encoder_s_file_is_no_checkpoint(source: PersonUnet, tmp_path: Path) -> None:
    path = tmp_path / "encoder.pth"
    torch.save(source.net.encoder.state_dict(), path)
    message = r"lacks encoder\.conv_stem\.weight \[32, 3, 3, 3\].*holds an encoder alone: name it in unet\.model\.encoder_weights"
    with pytest.raises(CheckpointError, match=message):
        build(checkpoint=str(path))


def test_another_decoder(source: PersonUnet, tmp_path: Path) -> None:
    path = tmp_path / "narrow.pth"
    torch.save(source.state_dict(), path)
    message = r"decoder\.blocks\.0\.conv1\.0\.weight is \[8, .*\] there and \[16, .*\] here.*set unet\.model\.decoder_channels to"
    with pytest.raises(CheckpointError, match=message):
        build(checkpoint=str(path), decoder_channels=[16, 8, 4, 4, 4])


def test_weights_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save({"layer1.weight": torch.zeros(2, 3)}, path)
    message = r"and \d+ more\. Name a file of a segmentation-models-pytorch U-net with timm-efficientnet-b0 and one class"
    with pytest.raises(CheckpointError, match=message):
        build(checkpoint=str(path))


@pytest.mark.parametrize("number", range(8))
def test_shapes_tell_the_encoder(number: int) -> None:
    name = f"timm-efficientnet-b{number}"
    with torch.device("meta"):
        net = build_person_unet(unet_params(encoder=name, **SMALL), INPUT_HW, where=HERE).net
    assert guess_encoder(net.state_dict()) == guess_encoder(net.encoder.state_dict()) == name
    assert guess_encoder(net.decoder.state_dict()) is None


def test_imagenet_s_weights_come_from_the_hub(source: PersonUnet, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def hub(name: str, *, weights: str) -> object:
        asked.append((name, weights))
        return source.net.encoder

    # smp.Unet itself takes the function from another module, so that only this fetch is replaced.
    monkeypatch.setattr(smp.encoders, "get_encoder", hub)
    found = build(encoder_weights="imagenet")
    assert asked == [("timm-efficientnet-b0", "imagenet")]
    assert same(source.net.encoder.state_dict(), found.net.encoder.state_dict())


def test_imagenet_s_weights_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, *, weights: str) -> NoReturn:
        raise FileNotFoundError(f"no route to {weights} of\n{name}")

    monkeypatch.setattr(smp.encoders, "get_encoder", offline)
    message = (
        r"unet\.model\.encoder_weights is 'imagenet', but the weights of timm-efficientnet-b0 can't be fetched from "
        r"https://huggingface\.co/smp-hub/timm-efficientnet-b0\.imagenet \(no route to imagenet of timm-efficientnet-b0\); "
        r"without a network, fetch model\.safetensors of that page elsewhere and give its PATH, or set it to 'none'"
    )
    with pytest.raises(CheckpointError, match=message):
        build(encoder_weights="imagenet")
