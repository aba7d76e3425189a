"""Presets of Snapper: each a few keys, laid over each other; what the published ones are made of."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from preset_order import below

from roiseg.params import PARAMS_FILE, overlay, preset_names, preset_path, read_yaml
from roiseg.preset import apply_preset
from roiseg.schema import check_params
from roiseg.snapper.build import build_snapper
from roiseg.snapper.checks import snap_training
from roiseg.snapper.params import CropModelParams, SnapperParams
from roiseg.types import FeatureSpec

SHIPPED = Path(__file__).parents[2] / PARAMS_FILE
OF_SNAPPER = [name for name in preset_names() if name.startswith("snapper_")]
BASES = {"snapper_crop", "snapper_crop_small", "snapper_original"}
DECODER = 2048 * 512 * 3 + 512 + 512 + 1
"""Parameters of a published one, 3,146,753."""


def leaves(values: Mapping[str, Any]) -> Iterator[Any]:
    for item in values.values():
        if isinstance(item, Mapping):
            yield from leaves(item)
        else:
            yield item


def laid(*names: str) -> SnapperParams:
    values = read_yaml(SHIPPED)
    for name in names:
        values = overlay(values, read_yaml(preset_path(name)))
    check_params(values)
    return SnapperParams.parse(values["snapper"], "snapper")


def test_every_preset_is_of_snapper_alone_and_small() -> None:
    assert len(OF_SNAPPER) == 21
    for name in OF_SNAPPER:
        values = read_yaml(preset_path(name))
        assert set(values) == {"snapper"}, name
        assert len(list(leaves(values))) <= (25 if name in BASES else 8), name


@pytest.mark.parametrize("name", [name for name in OF_SNAPPER if not below(name)])
def test_a_preset_goes_over_the_shipped_params(name: str) -> None:
    assert laid(name) != laid()


@pytest.mark.parametrize("base", sorted(BASES))
@pytest.mark.parametrize("name", [name for name in OF_SNAPPER if name not in BASES])
def test_a_preset_goes_over_a_base(base: str, name: str) -> None:
    params = laid(base, name)
    snap_training(params.train)
    assert isinstance(params.model, CropModelParams)


@pytest.mark.parametrize(
    ("names", "decoders"),
    [
        (["snapper_original"], 4 * DECODER),
        (["snapper_original", "snapper_concat"], 4 * (3072 * 512 * 3 + 512 + 512 + 1)),
        (["snapper_original", "snapper_per_scale"], 4 * DECODER + 4 * (1024 * 512 * 3 + 512 + 512 + 1)),
        (["snapper_original", "snapper_deeper_decoders"], 4 * (2048 * 512 * 3 + 512 + 512 * 128 * 3 + 128 + 128 + 1)),
    ],
)
def test_the_published_models_have_their_size(names: list[str], decoders: int) -> None:
    """A ResNet-50 without its classifier has 23,508,032 parameters."""
    model = laid(*names).model
    with torch.device("meta"):
        built = build_snapper(model, {"image": FeatureSpec("image", 3, (1.0, 1.0))}, (640, 640), weights=False)
    assert sum(item.numel() for item in built.parameters()) == 23_508_032 + decoders


def test_the_published_one_is_what_was_published() -> None:
    params = laid("snapper_original")
    training = snap_training(params.train)
    assert (params.data.buffer, params.loss.form, params.loss.target, params.decision.rule) == (
        (1.1, 1.1),
        "bce",
        "onehot",
        "argmax",
    )
    assert (training.optimizer, training.lr, training.epochs, training.weight_decay) == ("adam", 1e-4, 5, 0.0)
    longer = snap_training(laid("snapper_original", "snapper_original_long").train)
    assert (longer.lr, longer.epochs, longer.warmup_epochs, longer.min_lr) == (2e-4, 50, 5.0, 1e-6)


def test_a_preset_is_written_into_a_params_file(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_bytes(SHIPPED.read_bytes())
    apply_preset("snapper_crop", file)
    apply_preset("snapper_fpn_a", file)
    model = SnapperParams.parse(read_yaml(file)["snapper"], "snapper").model
    assert isinstance(model, CropModelParams)
    assert (model.scales, model.stride) == ("fpn_a", 8)
