"""Presets of the head on pixels and of distillation: each a few keys, and published names are made by laying some over others."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from roiseg.errors import ParamsError
from roiseg.heads import build_head, parse_model
from roiseg.params import PARAMS_FILE, overlay, preset_names, preset_path, read_yaml
from roiseg.preset import apply_preset
from roiseg.rgb import rgb_values
from roiseg.schema import check_params
from roiseg.train.train import TrainSections
from roiseg.types import FeatureSpec

SHIPPED = Path(__file__).parents[2] / PARAMS_FILE
SPECS = {"image": FeatureSpec("image", 3, (1.0, 1.0)), "teacher": FeatureSpec("teacher", 1, (1.0, 1.0))}

ALONE = "rgb_hierarchical_unet_v2"
FULL = "rgb_hierarchical_unet_v2_fullimage_pretrained_peopleseg"
DISTILLED = "rgb_unet_yolo_feature_distillation_b0_from_b3"
SECOND = {"unet", "distill", "rgb"}
OF_SECOND = [name for name in preset_names() if set(read_yaml(preset_path(name))) <= SECOND]
SIZES = [name for name in OF_SECOND if name.startswith("rgb_r") and name[5].isdigit()]
BRANCHES = 184_769 + 591_106 - 1
"""Contour and distance; see test_parameter_counts for the one."""


def leaves(values: Mapping[str, Any]) -> Iterator[Any]:
    for item in values.values():
        if isinstance(item, Mapping):
            yield from leaves(item)
        else:
            yield item


def laid(*names: str) -> dict[str, Any]:
    values = read_yaml(SHIPPED)
    for name in names:
        values = overlay(values, read_yaml(preset_path(name)))
    check_params(values)
    return values


def size(*names: str) -> int:
    with torch.device("meta"):
        head = build_head(parse_model(laid(*names)["rgb"]["model"]), SPECS)
    return sum(item.numel() for item in head.parameters())


@pytest.mark.parametrize("name", OF_SECOND)
def test_a_preset_has_few_keys(name: str) -> None:
    assert len(list(leaves(read_yaml(preset_path(name))))) <= (30 if name in (ALONE, FULL, DISTILLED) else 12)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([ALONE], 21_557_976 - 4_194),
        ([ALONE, f"{ALONE}_attention"], 21_557_976),
        ([FULL], 13_744_363 - 1),
        *[([FULL, f"{FULL}_from_{net}"], 13_744_363 - 1) for net in ("b0", "b1", "b7")],
        *[([FULL, f"{FULL}_from_{net}_enhanced"], 15_396_839 - 1) for net in ("b0", "b1")],
        ([FULL, f"{FULL}_from_b7_enhanced"], 62_961_371 - 1),
        ([FULL, f"{FULL}_from_b1", "rgb_r80x60m160x120"], 13_744_363 - 1),
        ([ALONE, "rgb_contour", "rgb_distance"], 21_557_976 - 4_194 + BRANCHES),
        ([FULL, "rgb_refined"], 13_744_363 - 1 + 1_025_923 + 10_372),
    ],
)
def test_published_sizes(names: list[str], expected: int) -> None:
    """Without the U-net (spec 10.2, 10.3)."""
    assert size(*names) == expected


@pytest.mark.parametrize("net", ["b0", "b1", "b7"])
def test_the_published_nets(net: str) -> None:
    for suffix in ("", "_enhanced"):
        unet = laid(FULL, f"{FULL}_from_{net}{suffix}")["unet"]
        assert unet["model"]["encoder"] == f"timm-efficientnet-{net}"
        assert f"best_model_{net}_0." in unet["model"]["checkpoint"]
        assert unet["model"]["mean"] == [0.485, 0.456, 0.406]
        assert unet["train"] is None
        assert unet["augment"] == "heavy"


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("base", [ALONE, FULL])
def test_sizes_are_what_their_names_say(name: str, base: str) -> None:
    model = laid(base, name)["rgb"]["model"]
    roi, mask = (
        [int(side) for side in part.split("x")] * (1 if "x" in part else 2) for part in name.removeprefix("rgb_r").split("m")
    )
    assert (model["inputs"]["roi_hw"], model["mask_hw"]) == (roi, mask)


def test_every_size_of_the_seed_is_there() -> None:
    assert {name.removeprefix("rgb_") for name in SIZES} >= {
        *("r32x24m64x48", "r64x48m64x48", "r64x48m128x96", "r80x60m160x120", "r96x72m192x144", "r96x72m96x72"),
        *("r112x84m224x168", "r112x84m112x84", "r128x96m256x192"),
        *("r64m64", "r64m112", "r80m112", "r80m160", "r96m112", "r96m160", "r96m192"),
        *("r112m112", "r112m160", "r112m192", "r112m224"),
    }


def test_all_refinements_go_together() -> None:
    parts = ["rgb_contour", "rgb_distance", "rgb_boundary_aware", "rgb_active_contour", "rgb_refined", "rgb_guided", "rgb_swish"]
    rgb = laid(FULL, *parts)["rgb"]
    assert rgb["train"]["lr"] == 1e-5
    assert rgb["model"]["refine"] == {"upsampling": "progressive", "boundary": True}
    assert rgb["model"]["guided"] is True
    assert set(rgb["loss"]) >= {"boundary_ce", "active_contour", "auxiliary", "hierarchical"}
    assert type(parse_model(rgb["model"]).blocks).__name__ == "BatchStyle"  # type: ignore[attr-defined]
    assert laid(ALONE, f"{ALONE}_multiscale", f"{ALONE}_attention")["rgb"]["model"]["inputs"]["further_roi_hw"] == [
        [56, 56],
        [42, 42],
    ]


@pytest.mark.parametrize(
    ("suffix", "teacher", "student", "start", "unfreeze"),
    [
        ("b0_from_b3_temp", "b3", "b0", 4.0, None),
        ("b0_from_b3_temp_prog", "b3", "b0", 4.0, 5),
        *[(f"{net}_from_b3_temp_prog", "b3", net, 4.0, 5) for net in ("b1", "b3", "b7")],
        *[(f"{net}_from_b7_temp_prog", "b7", net, 4.0, 3 if net == "b7" else 5) for net in ("b0", "b1", "b6", "b7")],
    ],
)
def test_pairs_of_teacher_and_student(suffix: str, teacher: str, student: str, start: float, unfreeze: int | None) -> None:
    values = laid(DISTILLED, f"{DISTILLED.removesuffix('b0_from_b3')}{suffix}")
    assert values["unet"]["model"]["encoder"] == f"timm-efficientnet-{teacher}"
    assert values["unet"]["model"]["mean"] == ([0.5] * 3 if teacher == "b3" else [0.485, 0.456, 0.406])
    distill = values["distill"]
    assert distill["model"]["encoder"] == f"timm-efficientnet-{student}"
    assert distill["model"]["mean"] == [0.485, 0.456, 0.406], "each net keeps its own normalisation"
    assert distill["temperature"] == {"start": start, "end": 1.0, "curve": "cosine"}
    assert distill["unfreeze"] == (unfreeze and {"start": unfreeze, "every": 3, "lr_scale": 0.3})
    assert {name: distill["loss"][name] for name in ("kl", "mse", "bce", "dice", "feature")} == {
        **{"kl": 1.0, "mse": 0.5, "bce": 0.5, "dice": 1.0, "feature": 0.5}
    }


def test_finetuning() -> None:
    unet = laid("finetune_b7")["unet"]
    assert (unet["train"]["lr"], unet["train"]["weight_decay"], unet["train"]["images_per_batch"]) == (5e-5, 5e-5, 16)
    assert (unet["loss"]["bce"], unet["loss"]["dice"]) == (0.5, 0.5)


def test_applied_one_after_the_other_they_are_the_overlay(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_bytes(SHIPPED.read_bytes())
    names = [FULL, f"{FULL}_from_b1_enhanced", "rgb_r80x60m160x120", "rgb_active_contour"]
    for name in names:
        apply_preset(name, file)
    assert read_yaml(file) == laid(*names)


def test_messages_of_training_name_the_section() -> None:
    values = rgb_values(laid(FULL))
    assert TrainSections.load(values, "rgb.train").train.key("lr") == "rgb.train.lr"
    with pytest.raises(ParamsError, match=r"^rgb\.train\.lr: value is -1"):
        TrainSections.load({**values, "train": {**values["train"], "lr": -1.0}}, "rgb.train")
