"""Tests of roiseg.preset: what is written, what stays, and the same as arguments."""

import copy
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from preset_order import below, reads_images

from roiseg import params, preset
from roiseg.errors import ParamsError
from roiseg.params import PARAMS_FILE, overlay, preset_names, preset_path, read_yaml
from roiseg.preset import apply_preset, as_args, parse_overrides, with_overrides
from roiseg.schema import check_params

SHIPPED = Path(__file__).parents[2] / PARAMS_FILE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    copied = tmp_path / "params.yaml"
    copied.write_bytes(SHIPPED.read_bytes())
    return copied


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A preset of the user's, `mine`."""
    path = tmp_path / "mine.yaml"
    monkeypatch.setattr(preset, "preset_path", lambda name: params.preset_path(name, tmp_path))
    return path


def comments(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip().startswith("#")]


def differing(first: Any, second: Any, where: str = "") -> Iterator[str]:  # noqa: ANN401
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in {**first, **second}:
            yield from differing(first.get(key, ...), second.get(key, ...), f"{where}.{key}" if where else key)
    elif first != second:
        yield where


@pytest.mark.parametrize("name", preset_names())
def test_applied_file_is_the_overlay_and_passes(file: Path, name: str) -> None:
    for base in below(name):
        apply_preset(base, file)
    before = read_yaml(file)
    changed = apply_preset(name, file)
    after = read_yaml(file)
    assert after == overlay(before, read_yaml(preset_path(name)))
    check_params({**after, "cache": after["cache"] | {"image": reads_images(after)}})
    assert sorted(changed) == sorted(differing(before, after))


def test_the_default_preset_changes_no_byte(file: Path) -> None:
    assert apply_preset("default", file) == []
    assert file.read_bytes() == SHIPPED.read_bytes()


def test_comments_and_order_stay(file: Path, own: Path) -> None:
    own.write_text("train:\n  epochs: 3\n  min_lr: 0.000002\nmodel:\n  layers: [layer_3]\ndata:\n  category: cat\n")
    assert apply_preset("mine", file) == ["train.epochs", "train.min_lr", "model.layers", "data.category"]
    assert comments(file) == comments(SHIPPED)
    assert list(read_yaml(file)) == list(read_yaml(SHIPPED))
    text = file.read_text(encoding="utf-8")
    assert "layers: [layer_3]" in text, "a list stays on its line"
    old, new = SHIPPED.read_text(encoding="utf-8").splitlines(), text.splitlines()
    assert len(old) == len(new)
    assert sum(before != after for before, after in zip(old, new, strict=True)) == 4


def test_applied_twice_is_applied_once(file: Path) -> None:
    apply_preset("real", file)
    once = file.read_bytes()
    assert apply_preset("real", file) == []
    assert file.read_bytes() == once


def test_a_replaced_mapping_loses_its_other_keys(file: Path, own: Path) -> None:
    own.write_text("extractor:\n  layers:\n    _replace: true\n    layer_7: /seven\n")
    changed = apply_preset("mine", file)
    assert read_yaml(file)["extractor"]["layers"] == {"layer_7": "/seven"}
    assert sorted(changed) == [
        "extractor.layers.layer_19",
        "extractor.layers.layer_22",
        "extractor.layers.layer_3",
        "extractor.layers.layer_34",
        "extractor.layers.layer_5",
        "extractor.layers.layer_7",
    ]


def test_a_mapping_in_place_of_null_keeps_no_mark(file: Path, own: Path) -> None:
    own.write_text("extractor:\n  detections:\n    _replace: true\n    output: boxes\n    person_class: 0\n    min_score: 0.5\n")
    expected = overlay(read_yaml(file), read_yaml(own))
    assert as_args("mine", file) == ["-S", "extractor.detections={output:boxes,person_class:0,min_score:0.5}"]
    apply_preset("mine", file)
    assert read_yaml(file) == expected
    assert "_replace" not in file.read_text()


def test_a_null_is_written_where_there_was_no_key(file: Path, own: Path) -> None:
    own.write_text("model:\n  cascade: null\n")
    assert as_args("mine", file) == ["-S", "+model.cascade=null"]
    assert apply_preset("mine", file) == ["model.cascade"]
    assert read_yaml(file)["model"]["cascade"] is None
    assert "cascade" in read_yaml(file)["model"]


@pytest.mark.parametrize("function", [apply_preset, as_args])
def test_unknown_preset(file: Path, function: Any) -> None:  # noqa: ANN401
    with pytest.raises(ParamsError, match=r"'rael'.*did you mean 'real'"):
        function("rael", file)
    assert file.read_bytes() == SHIPPED.read_bytes()


@pytest.mark.parametrize("function", [apply_preset, as_args])
def test_no_params_file(tmp_path: Path, function: Any) -> None:  # noqa: ANN401
    with pytest.raises(ParamsError, match=r"params\.yaml: no such file"):
        function("real", tmp_path / "params.yaml")


# --- as arguments ---


def test_arguments_set_add_and_remove(file: Path, own: Path) -> None:
    own.write_text(
        "train:\n  epochs: 3\n  lr: 0.003\nmodel:\n  _replace: true\n  head: roi_crop\n  layers: [layer_3]\n  blocks: 2\n"
        "loss:\n  class_weights:\n    mode: manual\n    values: [0.5, 1.0, 2.0]\n"
    )
    found = as_args("mine", file)
    assert found[::2] == ["-S"] * (len(found) // 2)
    assert set(found[1::2]) == {
        "train.epochs=3",
        *(f"~model.{key}" for key in ("roi_hw", "mask_hw", "sampling_ratio", "context", "dropout", "groups")),
        *(f"~model.{key}_channels" for key in ("layer", "mid", "deep", "out")),
        "model.head=roi_crop",
        "model.layers=[layer_3]",
        "+model.blocks=2",
        "loss.class_weights.mode=manual",
        "loss.class_weights.values=[0.5,1.0,2.0]",
    }
    assert as_args("mine", file) == shlex.split(shlex.join(found))


def test_the_default_preset_needs_no_arguments(file: Path) -> None:
    assert as_args("default", file) == []


@pytest.mark.parametrize("name", [item for item in preset_names() if item != "default"])
def test_hydra_reads_the_arguments_as_the_overlay(file: Path, name: str) -> None:
    """DVC gives `-S` to Hydra's parser of overrides, and its values to the params file."""
    parser = pytest.importorskip("hydra.core.override_parser.overrides_parser")
    values = copy.deepcopy(read_yaml(file))
    expected = overlay(values, read_yaml(preset_path(name)))
    for override in parser.OverridesParser.create().parse_overrides(as_args(name, file)[1::2]):
        *parents, key = override.key_or_group.split(".")
        place = values
        for parent in parents:
            place = place[parent]
        assert (key in place) != override.is_add(), override.input_line
        if override.is_delete():
            del place[key]
        else:
            place[key] = override.value()
    assert values == expected


# --- changes spelled for a command ---


def test_overrides_are_read_and_laid_over() -> None:
    values = {"a": {"b": 1, "c": [1, 2], "gone": 0}, "d": {"e": None}}
    texts = ["a.b=2.5", "a.c=[3,x]", "+a.new={k:null,t:true}", "~a.gone", "d.e='one two'", "a.new.k=7"]
    assert with_overrides(values, parse_overrides(texts)) == {
        "a": {"b": 2.5, "c": [3, "x"], "new": {"k": 7, "t": True}},
        "d": {"e": "one two"},
    }
    assert values == {"a": {"b": 1, "c": [1, 2], "gone": 0}, "d": {"e": None}}, "as it was"


def test_every_preset_can_be_spelled_for_a_command(file: Path) -> None:
    values = read_yaml(file)
    for name in preset_names():
        texts = as_args(name, file)[1::2]
        assert with_overrides(values, parse_overrides(texts)) == overlay(values, read_yaml(preset_path(name))), name


def test_module_is_light() -> None:
    """`roiseg --help` and `roiseg preset` must not wait for torch."""
    code = "import sys, roiseg.cli, roiseg.preset; print(sorted({'torch', 'onnxruntime', 'cv2'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SHIPPED.parent)
    assert found.stdout.strip() == "[]"
