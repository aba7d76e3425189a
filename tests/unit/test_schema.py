"""Tests of roiseg.schema: the shipped params pass and explain themselves; every preset fits; faults come all at once."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from preset_order import below, reads_images
from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from roiseg import params
from roiseg.errors import ParamsError
from roiseg.heads import FAMILIES
from roiseg.params import HEAD_SECTIONS, PARAMS_FILE, overlay, preset_names, preset_path, read_yaml
from roiseg.schema import SECTIONS, check_params

SHIPPED = Path(__file__).parents[2] / PARAMS_FILE


@pytest.fixture
def values() -> dict[str, Any]:
    return copy.deepcopy(read_yaml(SHIPPED))


def change(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """`values` with another value at a dotted path."""
    *parents, key = path.split(".")
    place = values
    for parent in parents:
        place = place[parent]
    place[key] = value
    return values


def leaves(node: CommentedMap, where: str = "") -> Iterator[tuple[str, int]]:
    """Dotted path and line of every value that isn't a mapping of its own params; names of layers are the user's."""
    for key, value in node.items():
        path = f"{where}{key}"
        if isinstance(value, CommentedMap) and path != "extractor.layers":
            yield from leaves(value, f"{path}.")
        else:
            yield path, node.lc.key(key)[0]


def test_shipped_params_pass(values: dict[str, Any]) -> None:
    check_params(values)


def test_every_leaf_has_a_comment() -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    found = list(leaves(YAML().load(SHIPPED.read_text(encoding="utf-8"))))
    assert len(found) > 60
    bare = [path for path, line in found if not lines[line - 1].strip().startswith("#") and " # " not in lines[line]]
    assert bare == []


def test_every_section_has_a_comment() -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    document = YAML().load(SHIPPED.read_text(encoding="utf-8"))
    assert [key for key in document if not lines[document.lc.key(key)[0] - 1].startswith("#")] == []


def test_shipped_params_hold_every_key_of_the_schema(values: dict[str, Any]) -> None:
    """Sections have no defaults, so that the file is the whole truth; of `model` it holds the keys of one family."""
    assert set(values) == {*SECTIONS, "heads", "model", "rgb"}

    def defaults(cls: type[BaseModel]) -> list[str]:
        return [f"{cls.__name__}.{name}" for name, field in cls.model_fields.items() if not field.is_required()]

    classes = [*SECTIONS.values(), *(FAMILIES[name][0] for name in (values["model"]["head"], "roi_crop"))]
    assert [name for cls in classes for name in defaults(cls)] == []


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_fits_the_shipped_params(values: dict[str, Any], name: str) -> None:
    for base in below(name):
        values = overlay(values, read_yaml(preset_path(base)))
    over = read_yaml(preset_path(name))
    change(values, "cache.image", reads_images(overlay(values, over)))
    check_params(overlay(values, over))
    if set(over) <= HEAD_SECTIONS:
        check_params(values | {"heads": ["default", name]})


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_changes_something_and_says_what_it_is(values: dict[str, Any], name: str) -> None:
    text = preset_path(name).read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert name == "default" or overlay(values, read_yaml(preset_path(name))) != values


def test_shipped_presets_are_there() -> None:
    assert {"default", "real", "coco_yolov9e"} <= set(preset_names())


# --- faults ---


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.epochs", 0, r"train\.epochs: value is 0"),
        ("train.epochs", "20", r"train\.epochs: value is '20'"),
        ("train.epochs", 2.0, r"train\.epochs: value is 2\.0"),
        ("train.ephocs", 3, r"train\.ephocs: unknown key; did you mean 'epochs'"),
        ("loss.boundary_weight", 0.5, r"loss\.boundary_weight: value is 0\.5"),
        ("loss.class_weights.mode", "logs", r"loss\.class_weights\.mode: value is 'logs'"),
        ("data.train.subset", "50", r"data\.train\.subset: value is '50'"),
        ("extractor.layers", {}, r"extractor\.layers: value is \{\}"),
        ("extractor.layers", {"Layer": "/a"}, r"extractor\.layers\.Layer"),
        ("extractor.layers", {"a": "/x", "b": "/x"}, r"extractor: .*two layers name the same tensor"),
        ("cache.dtype", "float32", r"cache\.dtype: value is 'float32'"),
        ("export.opset", 17, r"export\.opset: value is 17"),
        ("export.opset", 21, r"export\.opset: value is 21"),
        ("model.groups", 7, r"layer_channels 32 isn't a multiple of groups 7"),
        ("model.head", "roi_cropp", r"model\.head: value is 'roi_cropp'; did you mean 'roi_crop'"),
        ("model", None, r"model\.head: value is None"),
        ("lose", {}, r"lose: unknown section; did you mean 'loss'"),
        ("heads", [], r"heads: value is \(\)"),
        ("heads", "default", r"heads: value is 'default'"),
        ("heads", ["defalt"], r"'defalt'.*did you mean 'default'"),
    ],
)
def test_a_fault_is_named(values: dict[str, Any], path: str, value: object, message: str) -> None:
    with pytest.raises(ParamsError, match=message) as caught:
        check_params(change(values, path, value))
    assert str(caught.value).startswith("1 fault in the params:")


def test_all_faults_come_at_once(values: dict[str, Any]) -> None:
    change(values, "train.lr", -1.0)
    change(values, "model.blocks", 0)
    change(values, "datasets", {})
    change(values, "heads", ["nobody"])
    del values["export"]
    with pytest.raises(ParamsError) as caught:
        check_params(values)
    text = str(caught.value)
    assert text.startswith("5 faults in the params:")
    for part in ("train.lr", "model.blocks", "datasets: unknown section", "'nobody'", "export: the section is missing"):
        assert part in text


def test_a_preset_of_data_is_no_head(values: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=r"heads: preset 'real' sets .*data.*expected only .*`roiseg preset apply real`"):
        check_params(change(values, "heads", ["real"]))


@pytest.mark.parametrize("key", ["non_target_gamma", "balance"])
def test_statistics_and_sampler_use_one_padding(
    values: dict[str, Any], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of params.yaml, and of a preset that pads its own ROIs, which analyze doesn't measure."""
    wanted = {"non_target_gamma": 1.0, "balance": "crowdedness"}[key]
    change(values, "analyze.padding", 0.1)
    check_params(values)
    with pytest.raises(ParamsError, match=r"padding of 0\.1 \(analyze\.padding; .*drawn with dataset\.roi_padding 0, expected one"):
        check_params(change(values, f"sampler.{key}", wanted))
    check_params(change(values, "dataset.roi_padding", 0.1))
    check_params(change(values, "analyze.padding", None))
    (tmp_path / "wide.yaml").write_text("dataset: {roi_padding: 0.25}\n")
    monkeypatch.setattr(params, "preset_path", lambda *_: tmp_path / "wide.yaml")
    with pytest.raises(
        ParamsError, match=r"padding of 0\.1 .*drawn with dataset\.roi_padding 0\.25, .*set analyze\.padding to null"
    ):
        check_params(change(values, "heads", ["wide"]))
    check_params(change(values, f"sampler.{key}", {"non_target_gamma": 0.0, "balance": "none"}[key]))


def test_the_image_is_a_layer_where_it_is_stored(values: dict[str, Any]) -> None:
    change(values, "model.layers", ["layer_34", "image"])
    check_params(values)
    change(values, "cache.image", False)
    with pytest.raises(ParamsError, match=r"model\.layers: 'image' is there and cache\.image is false; set cache\.image to true"):
        check_params(values)


@pytest.mark.parametrize("name", ["rgb_enhanced_lightweight", "rgb_enhanced_multi_layer"])
def test_a_preset_that_reads_the_image_says_what_it_needs(values: dict[str, Any], name: str) -> None:
    change(values, "cache.image", False)
    remedy = r"'image' is there and cache\.image is false; set cache\.image to true and run `dvc repro extract`"
    with pytest.raises(ParamsError, match=rf"heads: preset '{name}': model\.layers: {remedy}"):
        check_params(change(values, "heads", ["default", name]))
    assert "`cache.image: true`" in preset_path(name).read_text(encoding="utf-8").splitlines()[1]


def test_layers_that_arent_extracted(values: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=r"model\.layers: 'layer_35' isn't in extractor\.layers; did you mean 'layer_"):
        check_params(change(values, "model.layers", ["layer_35"]))


# --- a model and a loss that don't fit ---

HIERARCHICAL = {"bg": 2.0, "fg": 1.0, "target": 1.5, "consistency": 0.1, "dynamic": False, "clamp": [0.5, 3.0], "ema": 0.9}


def test_a_loss_that_reads_what_the_head_lacks(values: dict[str, Any]) -> None:
    change(values, "loss.hierarchical", HIERARCHICAL)
    with pytest.raises(
        ParamsError, match=r"1 fault .*\n  loss\.hierarchical: reads .*bg_fg.*model\.head 'roi_unet' gives none; set loss\.hier"
    ):
        check_params(values)
    check_params(change(values, "heads", ["hierarchical_segmentation"]))


def test_a_preset_whose_branch_nothing_teaches(values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = read_yaml(preset_path("multiscale"))["model"]
    branches = {"foreground": None, "contour": {"channels": 8}, "distance": None, "embedding": None, "correct_by_foreground": False}
    path = tmp_path / "idle.yaml"
    YAML().dump({"model": model | {"auxiliary": branches}}, path)
    monkeypatch.setattr(params, "preset_path", lambda *_: path)
    with pytest.raises(
        ParamsError, match=r"model\.auxiliary\.contour: gives the outputs contour, but no term of the loss reads them"
    ):
        check_params(change(values, "heads", ["idle"]))
    check_params(change(values, "loss.auxiliary.contour", {"weight": 0.1, "width": 1.0}))


def test_a_phase_whose_loss_and_model_dont_fit(values: dict[str, Any]) -> None:
    phase = {"name": "early", "until": 3, "model": {}, "loss": {"hierarchical": HIERARCHICAL}}
    with pytest.raises(ParamsError, match=r"train\.phases, early: loss\.hierarchical: reads the outputs .*'roi_unet' gives none"):
        check_params(change(values, "train.phases", [phase]))


def test_checking_the_params_is_quick() -> None:
    """What takes seconds to import belongs to those who use it; each stage that needs torch anyway checks the params first."""
    heavy = ("torchvision", "torch._dynamo", "segmentation_models_pytorch", "timm", "matplotlib", "lightning_fabric", "onnxslim")
    program = f"import sys, roiseg.schema; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
