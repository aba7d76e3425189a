"""Tests of roiseg.export: what the files say, what they don't, the same bytes twice, and a disagreement that is caught."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from store_factory import CHANNELS, TENSORS, Exported, Project, run_export, shared_export, shared_project
from torch import nn

from roiseg.errors import ParityError, ProviderError
from roiseg.export import export as export_module
from roiseg.export import timing
from roiseg.export.export import ExportInputs, ExportParams, ExportPaths, export, head_metadata
from roiseg.export.onnx import ExportedHead
from roiseg.export.timing import measure
from roiseg.extractor.session import Backbone
from roiseg.files import sha256_file
from roiseg.onnx_names import METADATA_KEY
from roiseg.train.checkpoint import BEST
from roiseg.types import FeatureSpec


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return shared_export(tmp_path_factory)


def specs_of(exported: Exported) -> list[FeatureSpec]:
    val = exported.inputs.val
    return [val.store.specs[name] for name in val.layers]


def paths_in(folder: Path) -> ExportPaths:
    return ExportPaths(folder / "head", folder / "figures.json", folder / "logs" / "times.json")


def test_folder_and_figures(exported: Exported) -> None:
    assert {path.name for path in exported.folder.iterdir()} == {"head.onnx", "backbone.onnx", "head.json"}
    figures = json.loads(exported.figures.read_text())
    assert set(figures) == {
        "parity_max_abs",
        "parity_miou_difference",
        "parameters",
        "gflops_per_roi",
        "gflops_per_image",
        "peak_mib_1_roi",
        "peak_mib_3_rois",
        "peak_mib_10_rois",
        "checkpoint_bytes",
        "onnx_bytes",
        "onnx_nodes",
    }
    assert 0 <= figures["parity_max_abs"] < 1e-4
    assert figures["parameters"] == sum(item.numel() for item in exported.inputs.head.parameters())
    assert 0 < figures["gflops_per_roi"] < figures["gflops_per_image"]
    assert 0 < figures["peak_mib_1_roi"] < figures["peak_mib_3_rois"] < figures["peak_mib_10_rois"]
    assert figures["checkpoint_bytes"] == exported.inputs.file.stat().st_size
    assert figures["onnx_bytes"] == (exported.folder / "head.onnx").stat().st_size
    assert figures["onnx_nodes"] == len(onnx.load(exported.folder / "head.onnx").graph.node)


def test_times_of_both_engines_are_in_the_log(exported: Exported) -> None:
    times = json.loads(exported.times.read_text())
    for engine in ("torch", "onnxruntime"):
        found = times[engine]["cpu"]
        assert list(found) == ["ms_1_roi", "ms_3_rois", "ms_10_rois"]
        assert all(value > 0 for value in found.values())
    assert times["versions"]["torch"] == torch.__version__
    assert times["process_peak_mib"] > 50, "torch alone takes more"


def test_a_file_that_onnxruntime_refuses_has_no_times(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise ProviderError("onnxruntime can't make a session on 'cpu'")

    monkeypatch.setattr(timing, "make_session", refused)
    found = measure(exported.inputs.head, specs_of(exported), (64, 96), exported.folder / "head.onnx")
    assert found["onnxruntime"]["cpu"] is None
    assert found["torch"]["cpu"]["ms_10_rois"] > 0
    assert "head.onnx: no times of onnxruntime on cpu: onnxruntime can't make a session on 'cpu'" in caplog.text


def test_metadata(exported: Exported) -> None:
    model = onnx.load(exported.folder / "head.onnx")
    found = {item.key: json.loads(item.value) for item in model.metadata_props}
    assert set(found) == {METADATA_KEY}
    metadata = found[METADATA_KEY]
    assert metadata == json.loads((exported.folder / "head.json").read_text())
    assert metadata["classes"] == ["background", "target", "non_target"]
    assert metadata["layers"] == {
        "layer_34": {"channels": 6, "stride_hw": [8.0, 8.0]},
        "layer_3": {"channels": 4, "stride_hw": [4.0, 4.0]},
    }
    assert metadata["tensors"] == TENSORS
    assert metadata["input"] == {"hw": [64, 96], "resize": "stretch", "color": "rgb", "pixel_max": 1.0}
    assert (metadata["dtype"], metadata["scales"]) == ("float16", {})
    assert (metadata["mask_hw"], metadata["roi_padding"]) == ([12, 10], 0.0)
    assert (metadata["epoch"], metadata["miou_fg_roi"]) == (3, 0.5)
    assert metadata["params"]["model"]["head"] == "roi_crop"
    assert metadata["backbone_sha256"] == sha256_file(exported.project.backbone)
    assert "x0, y0, x1, y1" in metadata["boxes"]


def test_files_name_no_place_of_this_machine(exported: Exported) -> None:
    for path in exported.folder.iterdir():
        data = path.read_bytes()
        for trace in (b"/home", b"/root", b"/usr", b"/tmp", b".py", b"Traceback", str(exported.project.root).encode()):
            assert trace not in data, (path.name, trace)
        assert not re.search(rb"site-packages|stack_trace|namespace", data), path.name


def test_backbone_is_the_cut_one(exported: Exported) -> None:
    image = np.random.default_rng(0).random((1, 3, 64, 96), dtype=np.float32)
    first, second = (
        Backbone(path, "cpu", "float32")(image) for path in (exported.project.backbone, exported.folder / "backbone.onnx")
    )
    assert first.keys() == second.keys() == CHANNELS.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_two_exports_have_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    again = run_export(exported.project, tmp_path)
    for name in ("head.onnx", "backbone.onnx", "head.json"):
        assert (again.folder / name).read_bytes() == (exported.folder / name).read_bytes(), name
    assert again.figures.read_bytes() == exported.figures.read_bytes()


# --- failure ---


def test_a_failed_export_writes_nothing(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_exporter(head: nn.Module, *arguments: object) -> ExportedHead:
        path = arguments[-1]
        assert isinstance(path, Path)
        path.write_bytes((exported.folder / "head.onnx").read_bytes())
        return ExportedHead(onnx.load(path), {}, 0)

    monkeypatch.setattr(export_module, "export_head", without_exporter)
    with pytest.raises(ParityError):
        export(exported.inputs, ExportParams(checkpoint=BEST, opset=18, tolerance=1e-12), paths_in(tmp_path))
    assert not (tmp_path / "head").exists()
    assert not (tmp_path / "figures.json").exists()
    assert not (tmp_path / "logs").exists()


def test_int8_scales_are_in_the_files(
    exported: Exported, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's graph is the float16 one: what differs is the metadata and the backbone."""
    project: Project = shared_project(tmp_path_factory, "int8")
    given = exported.inputs
    inputs = ExportInputs(given.head, given.checkpoint, given.file, project.open("val"), project.backbone, project.scales)
    metadata = head_metadata(inputs)
    assert metadata["dtype"] == "int8"
    for name, scales in project.scales.items():
        np.testing.assert_allclose(metadata["scales"][name], scales, rtol=1e-6)
    head_file = (exported.folder / "head.onnx").read_bytes()

    def without_exporter(head: nn.Module, *arguments: object) -> ExportedHead:
        Path(str(arguments[-1])).write_bytes(head_file)
        return ExportedHead(onnx.load_from_string(head_file), {}, 0)

    monkeypatch.setattr(export_module, "export_head", without_exporter)
    export(inputs, ExportParams(checkpoint=BEST, opset=18, tolerance=1e-3), paths_in(tmp_path))
    image = np.random.default_rng(0).random((1, 3, 64, 96), dtype=np.float32)
    first = Backbone(project.backbone, "cpu", "float32", project.scales)(image)
    second = Backbone(tmp_path / "head" / "backbone.onnx", "cpu", "float32")(image)
    assert all(np.array_equal(first[name], second[name]) for name in CHANNELS)
