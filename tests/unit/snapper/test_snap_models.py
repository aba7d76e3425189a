"""Tests of the two models: shapes, gradients and parameter counts of every option, positions that are kept, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from snap_factory import CROP, NETWORK_HW, SPECS, crop_section, fresh_snapper, snap_inputs, snapper_section
from torch import nn

from roiseg.errors import CheckpointError, ParamsError, StoreMismatchError
from roiseg.params import overlay
from roiseg.snapper import weights as weights_module
from roiseg.snapper.build import build_snapper
from roiseg.snapper.checks import check_model, levels_of
from roiseg.snapper.crop_model import CropSnapper
from roiseg.snapper.decoders import EdgeDecoder, EdgeDecoders, pool_means, pool_means_and_peaks, position_weights
from roiseg.snapper.params import CachedModelParams, CropModelParams, SnapModelParams, SnapperParams

VARIANTS: list[dict[str, Any]] = [
    {"scales": scales, "stride": stride, "upsample": upsample}
    for scales, strides in (("single", (4, 8, 16, 32)), *((name, (4, 16)) for name in ("concat", "per_scale", "fpn_a", "fpn_b")))
    for stride in strides
    for upsample in ("linear", "learned")
]


def names(change: dict[str, Any]) -> str:
    return "-".join(map(str, change.values()))


def check_forward(model: SnapModelParams, positions: int) -> None:
    """Shapes, finite gradients everywhere, and an answer for no box."""
    module = fresh_snapper(model)
    features, windows = snap_inputs(model)
    logits = module(features, windows)
    assert logits.shape == (3, 4, positions)
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    for name, weight in module.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().sum() > 0 or "bias" in name, name
    module.eval()
    with torch.no_grad():
        whole = module(features, windows)
        torch.testing.assert_close(module(features, windows[1:2]), whole[1:2], atol=1e-4, rtol=1e-4)
        assert module(features, windows[:0]).shape == (0, 4, positions)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"layers": ["layer_3"]},
        {"convolutions": 3, "dropout": 0.5},
        {"roi_hw": [30, 8], "positions": 16},
        {"decoder_channels": [8, 4]},
    ],
    ids=str,
)
def test_cached_model(change: dict[str, Any]) -> None:
    model = snapper_section(model=change).model
    check_forward(model, model.positions)


@pytest.mark.parametrize("change", VARIANTS, ids=names)
def test_crop_model(change: dict[str, Any]) -> None:
    check_forward(crop_section(**change).model, 64)


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50"])
def test_other_backbones(backbone: str) -> None:
    check_forward(crop_section(backbone=backbone, scales="concat", stride=16, decoder_channels=[4]).model, 64)


def test_a_published_decoder_has_as_many_parameters() -> None:
    """Conv1d 2048 -> 512 of 3 cells, ReLU, Conv1d 512 -> 1 (spec 21.6)."""
    assert sum(weight.numel() for weight in EdgeDecoder(2048, [512]).parameters()) == 3_146_753
    model = crop_section(backbone="resnet50", crop_px=224, positions=224, stride=32, decoder_channels=[512]).model
    with torch.device("meta"):
        module = build_snapper(model, SPECS, NETWORK_HW)
    assert isinstance(module, CropSnapper)
    assert sum(weight.numel() for weight in module.neck.parameters()) == 4 * 3_146_753
    without_classifier = sum(weight.numel() for name, weight in module.trunk.named_parameters())
    assert without_classifier == 25_557_032 - 2048 * 1000 - 1000


@pytest.mark.parametrize(("scales", "stride", "channels"), [("concat", 16, 3072), ("single", 16, 1024), ("fpn_b", 8, 256)])
def test_channels_that_decoders_see(scales: str, stride: int, channels: int) -> None:
    model = crop_section(backbone="resnet50", scales=scales, stride=stride).model
    with torch.device("meta"):
        module = build_snapper(model, SPECS, NETWORK_HW)
    seen = {item.hidden[0].in_channels for item in module.modules() if isinstance(item, EdgeDecoder)}
    assert seen == {channels}


# --- from cells to positions ---


def test_position_weights_by_hand() -> None:
    """Two cells, centres at a quarter and three quarters; five positions."""
    expected = torch.tensor([[1.0, 1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 1.0, 1.0]])
    torch.testing.assert_close(position_weights(2, 5), expected)
    assert position_weights(1, 4).tolist() == [[1.0] * 4]
    torch.testing.assert_close(position_weights(7, 224).sum(dim=0), torch.ones(224))
    centres = (torch.arange(28) + 0.5) / 28
    places = torch.arange(100) / 99
    inner = (places > centres[0]) & (places < centres[-1])
    torch.testing.assert_close((centres @ position_weights(28, 100))[inner], places[inner])


@pytest.mark.parametrize("stride", [1, 2, 3, 8])
def test_learned_upsampling_tells_so_many_logits_for_each_cell(stride: int) -> None:
    assert EdgeDecoder(3, [4], stride)(torch.zeros(2, 3, 7)).shape == (2, 7 * stride)


def test_pooling_keeps_position_on_its_own_axis() -> None:
    x = torch.zeros(1, 1, 3, 5)
    x[0, 0, 2, 1] = 15.0
    rows, columns = pool_means(x)
    assert rows.tolist() == [[[0.0, 0.0, 3.0]]]
    assert columns.tolist() == [[[0.0, 5.0, 0.0, 0.0, 0.0]]]
    rows, columns = pool_means_and_peaks(x)
    assert rows[0, :, 2].tolist() == [3.0, 15.0]
    assert columns[0, :, 1].tolist() == [5.0, 15.0]


def test_each_edge_is_told_along_its_own_axis() -> None:
    torch.manual_seed(0)
    decoders = EdgeDecoders(1, [16], (6, 8), 20)
    rows, columns = torch.rand(1, 1, 6), torch.rand(1, 1, 8)
    before = decoders(rows, columns)
    along, across = decoders(rows + torch.rand(1, 1, 6), columns), decoders(rows, columns + torch.rand(1, 1, 8))
    assert [bool(torch.equal(before[0, edge], along[0, edge])) for edge in range(4)] == [True, False, True, False]
    assert [bool(torch.equal(before[0, edge], across[0, edge])) for edge in range(4)] == [False, True, False, True]


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"stride": 32, "scales": "fpn_a"},
            "stride is 32 and snapper.model.scales 'fpn_a'.*but one scale; expected stride 16, 8 or 4",
        ),
        ({"upsample": "learned", "positions": 16, "stride": 4}, "'learned', but 16 cells already stand for 16 positions"),
    ],
)
def test_crop_keys_that_do_not_go_together(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        check_model(crop_section(**change).model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 3}, "groups is 3 and snapper.model.mid_channels 8, expected a divisor"),
        ({"layers": ["layer_3", "layer_3"]}, r"layers is \['layer_3', 'layer_3'\], expected each layer once"),
    ],
)
def test_cached_keys_that_do_not_go_together(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        check_model(snapper_section(model=change).model)


@pytest.mark.parametrize("section", [snapper_section(), crop_section()], ids=["cached", "crop"])
def test_maps_of_another_size(section: SnapperParams) -> None:
    module = fresh_snapper(section.model)
    features, windows = snap_inputs(section.model)
    smaller = {name: values[..., 1:] for name, values in features.items()}
    with pytest.raises(StoreMismatchError, match=r"the Snapper was built for maps of \[\d+, \d+, \d+\] and is given"):
        module(smaller, windows)


def test_levels() -> None:
    assert levels_of(CropModelParams.parse({**CROP, "stride": 32}, "m")) == [5]
    assert levels_of(CropModelParams.parse({**CROP, "stride": 8, "scales": "fpn_b"}, "m")) == [3, 4, 5]
    assert isinstance(snapper_section().model, CachedModelParams)


# --- weights ---


def net(name: str = "resnet18", seed: int = 5) -> nn.Module:
    torch.manual_seed(seed)
    made: nn.Module = getattr(torchvision.models, name)(weights=None)
    return made


@pytest.mark.parametrize("wrap", [lambda item: item, lambda item: {"state_dict": item}], ids=["bare", "wrapped"])
@pytest.mark.parametrize("classifier", [True, False])
def test_weights_of_a_file(tmp_path: Path, wrap: Callable[[object], object], classifier: bool) -> None:
    state = {name: item for name, item in net().state_dict().items() if classifier or not name.startswith("fc.")}
    torch.save(wrap(state), tmp_path / "r.pth")
    module = fresh_snapper(crop_section(weights=str(tmp_path / "r.pth"), stride=32).model)
    assert isinstance(module, CropSnapper)
    for name, weight in module.trunk.state_dict().items():
        assert weight.equal(state[name]), name


def test_weights_of_another_resnet(tmp_path: Path) -> None:
    torch.save(net("resnet34").state_dict(), tmp_path / "r.pth")
    with pytest.raises(
        CheckpointError, match=r"isn't of resnet18: .*The file seems to be of resnet34: set snapper.model.backbone to it"
    ):
        fresh_snapper(crop_section(weights=str(tmp_path / "r.pth")).model)


def test_weights_of_other_widths(tmp_path: Path) -> None:
    state = net().state_dict()
    state["conv1.weight"] = torch.zeros(64, 4, 7, 7)
    torch.save(state, tmp_path / "r.pth")
    message = r"conv1.weight is \[64, 4, 7, 7\] there and \[64, 3, 7, 7\] here.* Name a file of torchvision's resnet18"
    with pytest.raises(CheckpointError, match=message):
        fresh_snapper(crop_section(weights=str(tmp_path / "r.pth")).model)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"r.pth \(snapper.model.weights\): no such file"):
        fresh_snapper(crop_section(weights=str(tmp_path / "r.pth")).model)


def test_imagenet_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refuse)
    with pytest.raises(CheckpointError, match=r"weights of resnet18 can't be fetched from https://.*no route.*give its PATH"):
        fresh_snapper(crop_section(weights="imagenet").model)


def test_imagenet_weights_are_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    state = net().state_dict()
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *_, **__: state)
    module = fresh_snapper(crop_section(weights="imagenet", stride=32).model)
    assert isinstance(module, CropSnapper)
    assert module.trunk.state_dict()["conv1.weight"].equal(state["conv1.weight"])
    assert weights_module.guess_resnet(state) == "resnet18"
    assert weights_module.guess_resnet({}) is None
    assert overlay(CROP, {})["weights"] == "none"
