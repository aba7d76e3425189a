"""Tests of roiseg.export: what the folder and the figures hold, the same bytes twice, and a disagreement that is caught."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_factory import Exported, export_params, run_export, shared_export
from store_factory import CHANNELS, shared_project

from roiseg.errors import ParamsError, ParityError, ProviderError
from roiseg.evaluate.complexity import examples
from roiseg.evaluate.pictures import load_fixed
from roiseg.export import onnx as onnx_module
from roiseg.export import timing
from roiseg.export.export import ExportPaths, export
from roiseg.export.params import LATEST_OPSET
from roiseg.export.timing import measure
from roiseg.export.variants import variant_figures
from roiseg.extractor.session import Backbone
from roiseg.onnx_names import METADATA_KEY
from roiseg.predict import Predictor
from roiseg.types import FeatureSpec

COSTS = {
    "parameters",
    "gflops_per_roi",
    "gflops_per_image",
    "peak_mib_1_roi",
    "peak_mib_3_rois",
    "peak_mib_10_rois",
    "checkpoint_bytes",
    "onnx_bytes",
    "onnx_nodes",
    "onnx_nodes_before_simplification",
}
PARITY = {"parity_max_abs", "parity_miou_difference"}
VARIANT = ("bytes", "size_ratio", "miou_fg_roi", "miou_fg_roi_loss")
PLAIN = {"head.onnx", "backbone.onnx", "head.json"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return shared_export(tmp_path_factory)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Every file that there is, of an int8 cache, with other values than the shared export's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_module, "simplify", None)
        return run_export(
            shared_project(tmp_path_factory, "int8"),
            tmp_path_factory.mktemp("whole"),
            opset=LATEST_OPSET,
            images=2,
            include_aux=True,
            simplify=False,
            variants=["fp16", "int8"],
            calibration_images=3,
            end_to_end=["boxes"],
            preprocess=False,
            filter={"kind": "morphological", "preset": "light"},
        )


def specs_of(exported: Exported) -> list[FeatureSpec]:
    val = exported.inputs.val
    return [val.store.specs[name] for name in val.layers]


def paths_in(folder: Path) -> ExportPaths:
    return ExportPaths(folder / "head", folder / "figures.json", folder / "logs" / "times.json")


def test_folder_and_figures(exported: Exported) -> None:
    assert {path.name for path in exported.folder.iterdir()} == PLAIN
    figures = json.loads(exported.figures.read_text())
    assert set(figures) == COSTS | PARITY
    assert 0 <= figures["parity_max_abs"] < 1e-4
    assert figures["parameters"] == sum(item.numel() for item in exported.inputs.head.parameters())
    assert 0 < figures["gflops_per_roi"] < figures["gflops_per_image"]
    assert 0 < figures["peak_mib_1_roi"] < figures["peak_mib_3_rois"] < figures["peak_mib_10_rois"]
    assert figures["checkpoint_bytes"] == exported.inputs.file.stat().st_size
    assert figures["onnx_bytes"] == (exported.folder / "head.onnx").stat().st_size
    assert figures["onnx_nodes"] == len(onnx.load(exported.folder / "head.onnx").graph.node)
    assert figures["onnx_nodes"] <= figures["onnx_nodes_before_simplification"]


def test_every_file_and_its_figures(whole: Exported) -> None:
    assert {path.name for path in whole.folder.iterdir()} == PLAIN | {
        "head.aux.onnx",
        "head.fp16.onnx",
        "head.int8.onnx",
        "end_to_end.onnx",
        "filter.onnx",
    }
    figures = json.loads(whole.figures.read_text())
    variants = {f"{name}_{figure}" for name in ("fp16", "int8") for figure in VARIANT}
    assert set(figures) == COSTS | PARITY | variants | {"end_to_end_differing_share"}
    for name in ("fp16", "int8"):
        assert figures[f"{name}_bytes"] == (whole.folder / f"head.{name}.onnx").stat().st_size
        assert figures[f"{name}_size_ratio"] == pytest.approx(figures[f"{name}_bytes"] / figures["onnx_bytes"], abs=1e-6)
    assert figures["end_to_end_differing_share"] <= 1e-4
    times = json.loads(whole.times.read_text())
    assert {"onnxruntime_fp16", "onnxruntime_int8"} <= set(times)


def test_params_reach_the_files(whole: Exported) -> None:
    """Simplification can't have run: the fixture took it away."""
    models = {path.name: onnx.load(path) for path in whole.folder.glob("*.onnx") if path.name != "backbone.onnx"}
    opsets = {name: [item.version for item in model.opset_import if not item.domain] for name, model in models.items()}
    assert opsets == {name: [LATEST_OPSET] for name in models}
    assert [item.name for item in models["end_to_end.onnx"].graph.input] == ["network_images", "boxes"]
    (told,) = [json.loads(item.value) for item in models["head.int8.onnx"].metadata_props]
    assert told["calibration"]["passes"] == 3, "an image is a pass"
    val, head, figures = whole.inputs.val, whole.folder / "head.onnx", json.loads(whole.figures.read_text())
    files, everybody = {"int8": whole.folder / "head.int8.onnx"}, val.rows.tolist()
    spread = [everybody[0], everybody[-1]]
    two, all_rows = (variant_figures(head, files, val, rows)["int8_miou_fg_roi"] for rows in (spread, everybody))
    assert figures["int8_miou_fg_roi"] == pytest.approx(two, abs=1e-6)
    assert two != pytest.approx(all_rows, abs=1e-6)


def test_the_folder_is_all_that_prediction_needs(whole: Exported) -> None:
    predictor = Predictor(whole.folder / "head.int8.onnx", "cpu", filter_file=whole.folder / "filter.onnx")
    (picture, *_) = load_fixed(whole.inputs.pictures, whole.inputs.val)
    predictor.set_image(np.ascontiguousarray(picture.pixels))
    (person,) = predictor.predict([[0.1, 0.1, 0.9, 0.9]], frame="unit")
    assert person.mask.shape == picture.pixels.shape[:2]


def test_metadata_lies_in_the_file_and_beside_it(whole: Exported) -> None:
    found = {item.key: json.loads(item.value) for item in onnx.load(whole.folder / "head.onnx").metadata_props}
    assert found == {METADATA_KEY: json.loads((whole.folder / "head.json").read_text())}
    assert found[METADATA_KEY]["dtype"] == "int8"
    assert found[METADATA_KEY]["auxiliary_included_in_export"] is False
    for name, scales in whole.project.scales.items():
        np.testing.assert_allclose(found[METADATA_KEY]["scales"][name], scales, rtol=1e-6)


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
    def refused(*_: object, **__: object) -> None:
        raise ProviderError("onnxruntime can't make a session on 'cpu'")

    monkeypatch.setattr(timing, "make_session", refused)
    found = measure(exported.inputs.head, specs_of(exported), examples(specs_of(exported), (64, 96)), exported.folder / "head.onnx")
    assert found["onnxruntime"]["cpu"] is None
    assert found["torch"]["cpu"]["ms_10_rois"] > 0
    assert "head.onnx: no times of onnxruntime on cpu: onnxruntime can't make a session on 'cpu'" in caplog.text


def test_files_name_no_place_of_this_machine(whole: Exported) -> None:
    for path in whole.folder.iterdir():
        data = path.read_bytes()
        for trace in (b"/home", b"/root", b"/usr", b"/tmp", b".py", b"Traceback", str(whole.project.root).encode()):
            assert trace not in data, (path.name, trace)
        assert not re.search(rb"site-packages|stack_trace|namespace", data), path.name


def test_backbone_is_the_cut_one_with_its_scales(whole: Exported) -> None:
    image = np.random.default_rng(0).random((1, 3, 64, 96), dtype=np.float32)
    first = Backbone(whole.project.backbone, "cpu", "float32", whole.project.scales)(image)
    second = Backbone(whole.folder / "backbone.onnx", "cpu", "float32")(image)
    assert first.keys() == second.keys() == CHANNELS.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_two_exports_have_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    again = run_export(exported.project, tmp_path)
    for name in ("head.onnx", "backbone.onnx", "head.json"):
        assert (again.folder / name).read_bytes() == (exported.folder / name).read_bytes(), name
    assert again.figures.read_bytes() == exported.figures.read_bytes()


# --- failure ---


def test_a_failed_export_writes_nothing(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"head\.onnx: masks differs from torch by .* expected at most 1e-12"):
        export(exported.inputs, export_params(tolerance=1e-12), paths_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_detectors_boxes_need_a_detector_that_gives_them(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"export\.end_to_end: 'detector' is there and extractor\.detections is null; name the"):
        export(exported.inputs, export_params(end_to_end=["boxes", "detector"]), paths_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_name_twice() -> None:
    with pytest.raises(ParamsError, match=r"export\.variants: .*fp16 is named twice, expected each name at most once"):
        export_params(variants=["fp16", "int8", "fp16"])


def test_a_whole_image_file_that_says_something_else_is_found(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The single steps pad the ROIs, the file was made without: people have other outlines."""
    inputs = replace(exported.inputs, val=exported.project.open("val"))
    true_init = Predictor.__init__

    def padded(self: Predictor, *arguments: object, **named: object) -> None:
        true_init(self, *arguments, **named)  # type: ignore[arg-type]
        self._told = replace(self._told, roi_padding=0.3)

    monkeypatch.setattr(Predictor, "__init__", padded)
    with pytest.raises(ParityError, match=r"end_to_end\.onnx: .* of the pixels of \d+ images differ from the single steps"):
        export(inputs, export_params(end_to_end=["boxes"]), paths_in(tmp_path))
    assert list(tmp_path.iterdir()) == []
