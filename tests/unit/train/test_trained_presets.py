"""Every preset that may stand in `heads`, narrowed: trains, goes on where it was cut short, exports and agrees with torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import store_factory
from store_factory import Project, cache_params, extractor_params, make_project

from roiseg.export.export import ExportInputs, ExportPaths, export
from roiseg.export.params import ExportParams
from roiseg.heads import parse_model
from roiseg.params import HEAD_SECTIONS, PARAMS_FILE, load_section, overlay, preset_names, preset_path, read_yaml
from roiseg.train.checkpoint import by_epoch, load_checkpoint
from roiseg.train.log import Row
from roiseg.train.train import TrainPaths, TrainSections, train_head
from roiseg.trained import load_head

SHIPPED = Path(__file__).parents[3] / PARAMS_FILE
LAYERS = {
    **{"layer_34": (6, 8), "layer_3": (4, 4), "layer_22": (5, 8), "layer_5": (3, 8), "layer_19": (3, 4)},
    **{"layer_14": (5, 8), "layer_4": (4, 4), "layer_2": (3, 4)},
}
"""Layer -> channels and stride in the tiny detector; all that presets read."""

NARROW: Mapping[str, Any] = {
    **{f"{part}_channels": 8 for part in ("layer", "deep", "out")},
    **{f"{part}_channels": 4 for part in ("base", "target_base", "branch", "filter")},
    "mid_channels": 16,
    "channels": 8,
    "groups": 4,
    "context": 1,
    "mask_hw": [16, 12],
    "roi_hw": [8, 10],
}
GRIDS = {56: [16, 20], 42: [12, 15]}
"""Cells of a published ROI grid beside one of 28 -> those beside one of 8 x 10."""

HEADS = [name for name in preset_names() if set(read_yaml(preset_path(name))) <= HEAD_SECTIONS]
CHEAP: Mapping[str, Sequence[pytest.MarkDecorator]] = {
    "baseline": (),
    **dict.fromkeys(("rgb_enhanced_lightweight", "full", "positional"), (pytest.mark.thorough,)),
}
"""What the default run and CI train: most losses and parts that a preset may have; the other families are in the contract suite."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Stores of all layers and the image."""
    with pytest.MonkeyPatch.context() as patch:
        for name, (channels, stride) in LAYERS.items():
            number = name.removeprefix("layer_")
            patch.setitem(store_factory.TENSORS, name, f"/model.{number}/Concat_output_0")
            patch.setitem(store_factory.CHANNELS, name, channels)
            patch.setitem(store_factory.STRIDES, name, stride)
        yield make_project(tmp_path_factory.mktemp("layers") / "project", images=(4, 3), image=True)


def narrowed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Section `model` with few channels and cells; what it doesn't name is named, for its defaults are wide."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key == "layer_roi_hw":
            found[key] = {name: GRIDS[cells[0]] for name, cells in value.items()}
        elif isinstance(value, dict):
            found[key] = narrowed(value)
        else:
            found[key] = value if value is None else NARROW.get(key, value)
    return found


def sections_of(name: str) -> tuple[TrainSections, ExportParams]:
    """The sections of a preset over the shipped params, with a narrow model, two epochs and the tiny stores."""
    values = overlay(read_yaml(SHIPPED), read_yaml(preset_path(name)))
    asked = {"extractor": extractor_params(), "cache": cache_params(image=True)}
    model = narrowed(json.loads(parse_model(values["model"]).model_dump_json()))
    changes = {
        **{key: json.loads(section.model_dump_json()) for key, section in asked.items()},
        "train": {"epochs": 2, "device": "cpu"},
        "reader": {"load_threads": 1},
    }
    values = overlay(values, changes) | {"model": model, "extractor": changes["extractor"]}
    return TrainSections.load(values), load_section(ExportParams, "export", values)


@dataclass
class CutShort:
    """Ends a run after its first epoch; notes after how many it began."""

    cut: bool
    began: int = -1

    def begin(self, rows: Sequence[Row]) -> None:
        self.began = len(rows)

    def epoch(self, rows: Sequence[Row]) -> None:
        if self.cut and len(rows) == 1:
            raise KeyboardInterrupt

    def end(self) -> None:
        pass


@pytest.mark.parametrize("name", [pytest.param(name, marks=CHEAP.get(name, (pytest.mark.slow,))) for name in HEADS])
def test_a_preset_trains_resumes_and_exports(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    sections, exported = sections_of(name)
    out = Path("models/heads") / name
    paths = TrainPaths(project.statistics, project.rois, project.index, project.features, out, Path("metrics/train") / name)
    last = {}
    for way in ("unbroken", "cut"):
        (tmp_path / way).mkdir()
        monkeypatch.chdir(tmp_path / way)
        if way == "cut":
            with pytest.raises(KeyboardInterrupt):
                train_head(name, sections, paths, [CutShort(cut=True)])
        observer = CutShort(cut=False)
        row = train_head(name, sections, paths, [observer])
        assert (observer.began, row["epoch"]) == (1 if way == "cut" else 0, 2)
        last[way] = by_epoch(out / "checkpoints")[-1].read_bytes()
    assert last["cut"] == last["unbroken"]

    checkpoint = load_checkpoint(by_epoch(out / "checkpoints")[-1])
    assert checkpoint.params["model"] == json.loads(sections.head.model.model_dump_json()), "values, not what the preset says"
    val = sections.head.open_split("val", project.index, project.features)
    head, best = load_head(out, exported.checkpoint, sections.head, val)
    train = sections.head.open_split("train", project.index, project.features)
    inputs = ExportInputs(
        head=head,
        checkpoint=best,
        file=out / exported.checkpoint,
        sections=sections.head,
        train=train,
        val=val,
        pictures=project.index / "val/pictures",
        backbone=project.backbone,
        scales=project.scales,
    )
    figures = export(inputs, exported, ExportPaths(Path("onnx"), Path("export.json"), Path("times.json")))
    assert figures["parity_max_abs"] <= exported.tolerance
    assert figures["parameters"] == sum(item.numel() for item in head.parameters()) < 500_000


def test_every_preset_of_heads_is_here() -> None:
    assert set(CHEAP) < set(HEADS)
    assert set(preset_names()) - set(HEADS) >= {"real", "coco_yolov9e"}
