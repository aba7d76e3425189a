"""Tests of roiseg.params: every fault, at once, with its path, its value and the remedy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from roiseg import params
from roiseg.errors import ParamsError
from roiseg.params import (
    Section,
    get_dotted,
    load_params,
    load_section,
    load_sections,
    nearest,
    overlay,
    preset_names,
    preset_path,
    read_yaml,
)


class Rate(Section):
    """A section within a section."""

    start: float = Field(gt=0)
    schedule: Literal["cosine", "step"]


class Train(Section):
    """A section with every kind of value."""

    epochs: int = Field(ge=1)
    rate: Rate
    sizes: tuple[int, ...]
    layers: dict[str, Rate]
    extra: Rate | None
    amp: bool


class Loss(Section):
    """A second section."""

    boundary_weight: float = Field(ge=0)


def good() -> dict[str, Any]:
    rate = {"start": 0.1, "schedule": "cosine"}
    layers = {"layer_3": dict(rate)}
    train = {"epochs": 3, "rate": rate, "sizes": [28, 56], "layers": layers, "extra": None, "amp": False}
    return {"train": train, "loss": {"boundary_weight": 2.0}}


def changed(path: str, value: object) -> dict[str, Any]:
    values = good()
    *parents, last = path.split(".")
    place = values
    for name in parents:
        place = place[name]
    place[last] = value
    return values


def without(path: str) -> dict[str, Any]:
    values = good()
    *parents, last = path.split(".")
    place = values
    for name in parents:
        place = place[name]
    del place[last]
    return values


WANTED: dict[str, type[Section]] = {"train": Train, "loss": Loss}


def test_good_values_are_read() -> None:
    sections = load_sections(good(), WANTED)
    train = sections["train"]
    assert isinstance(train, Train)
    assert train.rate.start == 0.1
    assert train.sizes == (28, 56)
    assert load_section(Loss, "loss", good()).boundary_weight == 2.0


def test_whole_number_is_a_good_float() -> None:
    assert load_section(Loss, "loss", {"loss": {"boundary_weight": 3}}).boundary_weight == 3.0


def test_sections_cannot_be_changed() -> None:
    section = load_section(Loss, "loss", good())
    with pytest.raises(ValidationError, match="frozen"):
        section.boundary_weight = 5.0  # type: ignore[misc]


FAULTS = {
    "mistyped key": (
        changed("loss.boundary_wieght", 1.0),
        r"loss\.boundary_wieght: unknown key; did you mean 'boundary_weight'\?",
    ),
    "mistyped nested key": (
        changed("train.rate.shedule", 1),
        r"train\.rate\.shedule: unknown key; did you mean 'schedule'\?",
    ),
    "mistyped key in a mapping of sections": (
        changed("train.layers.layer_3.strat", 1),
        r"train\.layers\.layer_3\.strat: unknown key; did you mean 'start'\?",
    ),
    "mistyped key in an optional section": (
        changed("train.extra", {"start": 1.0, "schedule": "step", "stat": 1}),
        r"train\.extra\.stat: unknown key; did you mean 'start'\?",
    ),
    "unknown key with nothing near": (
        changed("train.rate.qqq", 1),
        r"train\.rate\.qqq: unknown key; known: schedule, start",
    ),
    "text for a number": (
        changed("train.epochs", "ten"),
        r"train\.epochs: value is 'ten'; input should be a valid integer",
    ),
    "digits in quotes for a number": (changed("train.epochs", "10"), r"train\.epochs: value is '10'; .*valid integer"),
    "float for a whole number": (changed("train.epochs", 2.0), r"train\.epochs: value is 2\.0; .*valid integer"),
    "yes for a number": (changed("train.epochs", True), r"train\.epochs: value is True; .*valid integer"),
    "number for yes or no": (changed("train.amp", 1), r"train\.amp: value is 1; .*valid boolean"),
    "out of range": (changed("train.epochs", 0), r"train\.epochs: value is 0; .*greater than or equal to 1"),
    "nested out of range": (changed("train.rate.start", -0.5), r"train\.rate\.start: value is -0\.5; .*greater than 0"),
    "unknown choice": (
        changed("train.rate.schedule", "cos"),
        r"train\.rate\.schedule: value is 'cos'; .*'cosine' or 'step'",
    ),
    "wrong item of a list": (changed("train.sizes", [28, "x"]), r"train\.sizes\.1: value is 'x'; .*valid integer"),
    "number for a list": (changed("train.sizes", 28), r"train\.sizes: value is 28; .*valid tuple"),
    "missing key": (without("train.epochs"), r"train\.epochs: missing; add it \(the shipped params\.yaml"),
    "nested missing key": (without("train.rate.start"), r"train\.rate\.start: missing; add it"),
    "empty section": (changed("loss", None), r"loss: value is None; input should be a valid dictionary"),
    "key that is no text": (
        changed("loss", {"boundary_weight": 1.0, 3: 1}),
        r"loss\.3: value is 3; keys should be strings",
    ),
    "missing section": (without("loss"), r"loss: the section is missing; known: train"),
    "mistyped section": ({"train": good()["train"], "los": {}}, r"loss: the section is missing; did you mean 'los'\?"),
}


@pytest.mark.parametrize(("values", "message"), FAULTS.values(), ids=FAULTS)
def test_fault_names_path_value_and_remedy(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message) as caught:
        load_sections(values, WANTED)
    assert str(caught.value).startswith("1 fault in the params:")


def test_all_faults_are_told_at_once() -> None:
    values = changed("train.epochs", "ten")
    values["train"]["epoch"] = 1
    values["train"]["rate"]["start"] = 0
    del values["train"]["amp"]
    del values["loss"]
    with pytest.raises(ParamsError, match=r"\A5 faults in the params:\n") as caught:
        load_sections(values, WANTED)
    lines = [line.strip().split(":")[0] for line in str(caught.value).splitlines()[1:]]
    assert sorted(lines) == ["loss", "train.amp", "train.epoch", "train.epochs", "train.rate.start"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("boundary_wieght", "did you mean 'boundary_weight'?"),
        ("qqq", "known: boundary_weight, epochs"),
        ("epochs", "did you mean 'epochs'?"),
    ],
)
def test_nearest(name: str, expected: str) -> None:
    assert nearest(name, ["epochs", "boundary_weight"]) == expected


def test_nearest_of_nothing() -> None:
    assert nearest("a", []) == "nothing is known here"


def test_read_yaml_reads_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("a: 1e-4\nb: on\nc: {d: [1, null]}\n")
    assert read_yaml(path) == {"a": 1e-4, "b": "on", "c": {"d": [1, None]}}


def test_read_yaml_of_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "p.yaml") == {}


BROKEN = {
    "open bracket": (b"train: [1", r"p\.yaml: not valid YAML.*line 1"),
    "tab": (b"train:\t- 1\n\tx", r"p\.yaml: not valid YAML"),
    "key twice": (b"epochs: 1\nepochs: 2\n", r"p\.yaml: not valid YAML.*duplicate key \"epochs\""),
    "not UTF-8": (b"\xff\xfe\x00", r"p\.yaml: not valid YAML.*0xff"),
    "a list": (b"- 1\n", r"p\.yaml: holds a list, expected a mapping of sections"),
    "a number": (b"5\n", r"p\.yaml: holds a int, expected a mapping of sections"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
def test_read_yaml_of_a_broken_file(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(data)
    with pytest.raises(ParamsError, match=f"(?s){message}"):
        read_yaml(path)


def test_read_yaml_of_no_file(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"absent\.yaml: no such file; run from the root of the repository"):
        read_yaml(tmp_path / "absent.yaml")


OVERLAYS = {
    "nothing": ({"a": 1}, {}, {"a": 1}),
    "a value": ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
    "a nested value": ({"a": {"x": 1, "y": {"z": 2}}}, {"a": {"y": {"z": 5}}}, {"a": {"x": 1, "y": {"z": 5}}}),
    "a list is replaced whole": ({"a": [1, 2, 3]}, {"a": [4]}, {"a": [4]}),
    "a mapping over a value": ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
    "a value over a mapping": ({"a": {"b": 2}}, {"a": None}, {"a": None}),
    "a new key": ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
    "a mapping that replaces": ({"a": {"x": 1}}, {"a": {"_replace": True, "y": 2}}, {"a": {"y": 2}}),
}


@pytest.mark.parametrize(("base", "over", "expected"), OVERLAYS.values(), ids=OVERLAYS)
def test_overlay(base: dict[str, Any], over: dict[str, Any], expected: dict[str, Any]) -> None:
    before = repr(base)
    assert overlay(base, over) == expected
    assert repr(base) == before, "the base is not written to"


def test_get_dotted() -> None:
    assert get_dotted(good(), "train.rate.start") == 0.1
    assert get_dotted(good(), "loss") == {"boundary_weight": 2.0}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("train.rate.strat", r"params\.yaml: train\.rate\.strat is missing; did you mean 'start'\?"),
        ("tran.rate", r"params\.yaml: tran is missing; did you mean 'train'\?"),
        ("loss.boundary_weight.x", r"params\.yaml: loss\.boundary_weight\.x is missing; nothing is known here"),
    ],
)
def test_get_dotted_names_the_missing_part(path: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        get_dotted(good(), path)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A params.yaml and a preset folder of the test's own; call it to add a preset."""
    (tmp_path / "params.yaml").write_text("train: {epochs: 3}\nloss: {boundary_weight: 2.0}\ndata: {seed: 1}\n")
    (tmp_path / "presets").mkdir()
    monkeypatch.setattr(params, "PARAMS_FILE", tmp_path / "params.yaml")
    monkeypatch.setattr(params, "PRESET_DIR", tmp_path / "presets")

    def add(name: str, text: str) -> None:
        (tmp_path / "presets" / f"{name}.yaml").write_text(text)

    add("default", "")
    return add


def test_load_params_lays_the_preset_over_the_file(shipped: Callable[[str, str], None]) -> None:
    shipped("plain", "loss: {boundary_weight: 0.0}\n")
    assert load_params("plain") == {"train": {"epochs": 3}, "loss": {"boundary_weight": 0.0}, "data": {"seed": 1}}
    assert load_params() == {"train": {"epochs": 3}, "loss": {"boundary_weight": 2.0}, "data": {"seed": 1}}


def test_load_section_reads_the_params_file(shipped: Callable[[str, str], None]) -> None:
    del shipped
    assert load_section(Loss, "loss").boundary_weight == 2.0


def test_load_params_with_an_unknown_preset(shipped: Callable[[str, str], None]) -> None:
    shipped("multiscale", "")
    with pytest.raises(ParamsError, match=r"preset 'multscale': no file multscale\.yaml; did you mean 'multiscale'\?"):
        load_params("multscale")


def test_load_params_with_a_preset_of_alien_sections(shipped: Callable[[str, str], None]) -> None:
    shipped("big", "data: {seed: 2}\nloss: {boundary_weight: 1.0}\ncache: {}\n")
    message = r"preset 'big' sets cache, data, expected only dataset, .*`roiseg preset apply big`"
    with pytest.raises(ParamsError, match=message):
        load_params("big")


def test_preset_names_are_sorted_yaml_files(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "notes.txt"):
        (tmp_path / name).touch()
    assert preset_names(tmp_path) == ["a", "b"]
    assert preset_path("b", tmp_path) == tmp_path / "b.yaml"
    assert preset_names(tmp_path / "absent") == []
    with pytest.raises(ParamsError, match=r"preset 'c': no file c\.yaml; known: a, b"):
        preset_path("c", tmp_path)
