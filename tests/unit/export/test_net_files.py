"""Tests of roiseg.export.net_files: figures that are true, and a folder that appears whole or not at all."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from net_factory import EXPORT, NETWORK_HW, TRAIN, link_project, narrow_encoders, stored_sections, unet_section
from store_factory import Project, shared_views

from roiseg.batches import spread
from roiseg.errors import CheckpointError, GraphError, ParityError
from roiseg.export import net_files
from roiseg.export.net_files import NetPaths, export_net_files
from roiseg.export.net_onnx import LOGIT_LIMIT, NET_FILE
from roiseg.export.onnx import ExportedHead
from roiseg.export.onnx_net import OnnxNet
from roiseg.extractor.session import Backbone
from roiseg.onnx_names import BACKBONE_FILE
from roiseg.train.checkpoint import BEST, load_checkpoint
from roiseg.types import IMAGE, TEACHER
from roiseg.unet.params import NetExportParams
from roiseg.unet.person_unet import PersonUnet
from roiseg.unet.train import MODELS, open_people, train_unet

PARAMS = unet_section(train={**TRAIN, "epochs": 1})
PATHS = NetPaths(MODELS, Path("onnx/unet"), Path("metrics/unet.json"), Path("logs/unet.json"))


def export_params(**changes: object) -> NetExportParams:
    return NetExportParams.parse({**EXPORT, **changes}, "unet.export")


@pytest.fixture(autouse=True, scope="module")
def narrow() -> Iterator[None]:
    with narrow_encoders():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PersonUnet, dict[str, float]]:
    """A folder with a trained net and all its files, the net, and its figures."""
    project, root = shared_views(tmp_path_factory), tmp_path_factory.mktemp("made")
    link_project(root, project)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        net = train_unet(PARAMS, stored_sections())
        figures = export_net_files(net, PARAMS.model, export_params(variants=["fp16", "int8"]), stored_sections(), PATHS)
    return root, net, figures


@pytest.fixture
def place(
    made: tuple[Path, PersonUnet, dict[str, float]],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    """A working folder with a trained net and no files of it."""
    project = shared_views(tmp_path_factory)
    link_project(tmp_path, project)
    (tmp_path / "models").symlink_to(made[0] / "models")
    monkeypatch.chdir(tmp_path)
    return project


@pytest.fixture
def same_file(made: tuple[Path, PersonUnet, dict[str, float]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The net's ONNX is copied from an earlier export, which takes most of the time."""

    def copied(net: object, opset: int, metadata: dict[str, Any], path: Path) -> ExportedHead:
        path.write_bytes((made[0] / PATHS.out / NET_FILE).read_bytes())
        return ExportedHead(onnx.load(path), metadata, 1)

    monkeypatch.setattr(net_files, "export_net", copied)


def test_figures(made: tuple[Path, PersonUnet, dict[str, float]]) -> None:
    root, net, figures = made
    assert json.loads((root / PATHS.figures).read_text()) == figures
    best = load_checkpoint(root / MODELS / BEST)
    assert {name: figures[name] for name in best.metrics} == {name: round(value, 6) for name, value in best.metrics.items()}
    file, folder = root / PATHS.out / NET_FILE, root / PATHS.out
    assert figures["parameters"] == sum(value.numel() for name, value in net.state_dict().items() if not _is_counted(name))
    assert 0 < figures["parity_max_abs"] < 1e-3
    assert figures["checkpoint_bytes"] == (root / MODELS / BEST).stat().st_size
    assert figures["onnx_bytes"] == file.stat().st_size
    for name in ("fp16", "int8"):
        size = (folder / f"person_net.{name}.onnx").stat().st_size
        assert figures[f"{name}_bytes"] == size
        assert figures[f"{name}_size_ratio"] == round(size / file.stat().st_size, 6)
        assert abs(figures[f"{name}_miou_2class_loss"]) < 0.5
    assert "size_ratio" not in figures, "it has no teacher"
    assert sorted(item.name for item in folder.iterdir()) == sorted(
        [NET_FILE, BACKBONE_FILE, "person_net.fp16.onnx", "person_net.int8.onnx"]
    )
    times = json.loads((root / PATHS.times).read_text())
    assert set(times) == {"ms_torch", "ms_onnx", "ms_fp16", "ms_int8"}
    assert all(value > 0 for value in times.values())


def _is_counted(name: str) -> bool:
    """Of a norm: what it has seen, not what it learns."""
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def test_gflops_are_those_of_its_convolutions(made: tuple[Path, PersonUnet, dict[str, float]]) -> None:
    """Twice the products of each, told from the shapes that go through; the resize is two products of matrices."""
    _, net, figures = made
    counted = [0]

    def count(module: torch.nn.Module, _: Any, output: torch.Tensor) -> None:  # noqa: ANN401
        assert isinstance(module, torch.nn.Conv2d)
        counted[0] += 2 * output[0].numel() * module.weight[0].numel()

    hooks = [item.register_forward_hook(count) for item in net.modules() if isinstance(item, torch.nn.Conv2d)]
    with torch.no_grad():
        net(torch.zeros(1, 3, *NETWORK_HW))
    for hook in hooks:
        hook.remove()
    (height, width), (rows, columns) = NETWORK_HW, net.input_hw
    resize = 2 * 3 * (rows * height * width + rows * width * columns)
    assert figures["gflops_per_image"] == pytest.approx((counted[0] + resize) / 1e9, rel=1e-3)


def test_the_backbone_opens_in_the_extractor(made: tuple[Path, PersonUnet, dict[str, float]]) -> None:
    root, net, _ = made
    backbone = Backbone(root / PATHS.out / BACKBONE_FILE, "cpu", "float32")
    assert [layer.name for layer in backbone.info.layers] == [TEACHER]
    image = torch.rand(1, 3, *NETWORK_HW, generator=torch.Generator().manual_seed(0))
    found = backbone(image.numpy())[TEACHER]
    with torch.no_grad():
        expected = net(image).clamp(-LOGIT_LIMIT, LOGIT_LIMIT).numpy()
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, rtol=2**-10, atol=1e-3)


@pytest.mark.usefixtures("same_file")
def test_a_student_is_held_against_its_teacher(made: tuple[Path, PersonUnet, dict[str, float]], place: Project) -> None:
    root, net, of_teacher = made
    paths = replace(PATHS, teacher=root / PATHS.out)
    figures = export_net_files(net, PARAMS.model, export_params(), stored_sections(), paths)
    assert figures["size_ratio"] == 1.0, "it is the same net"
    assert figures["parameters"] == of_teacher["parameters"]
    assert [item.name for item in PATHS.out.iterdir()] == [NET_FILE], "a student's logits aren't stored"
    times = json.loads(PATHS.times.read_text())
    assert times["speed_ratio"] == pytest.approx(times["ms_teacher_onnx"] / times["ms_onnx"], abs=1e-3)
    assert not [name for name in figures if name.startswith("ms_")], "times differ from run to run, and are no out"


@pytest.mark.usefixtures("same_file")
def test_ratio_is_that_of_parameters(
    made: tuple[Path, PersonUnet, dict[str, float]], place: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, net, of_teacher = made
    monkeypatch.setattr(net_files, "_said_parameters", lambda path: 4 * of_teacher["parameters"] if path.name == NET_FILE else 0)
    figures = export_net_files(net, PARAMS.model, export_params(), stored_sections(), replace(PATHS, teacher=root / PATHS.out))
    assert figures["size_ratio"] == 0.25


@pytest.mark.usefixtures("same_file")
@pytest.mark.parametrize("before", [False, True])
def test_a_file_that_disagrees_leaves_nothing(
    made: tuple[Path, PersonUnet, dict[str, float]], place: Project, before: bool
) -> None:
    """And takes nothing away."""
    net = copy.deepcopy(made[1])
    with torch.no_grad():
        net.net.segmentation_head[0].bias += 0.5
    if before:
        PATHS.out.mkdir(parents=True)
        (PATHS.out / NET_FILE).write_bytes(b"of an earlier run")
    with pytest.raises(ParityError, match=rf"{NET_FILE}: a probability differs from torch's by .*, expected at most 0.001; try"):
        export_net_files(net, PARAMS.model, export_params(), stored_sections(), PATHS)
    assert not PATHS.figures.exists()
    assert not PATHS.times.exists()
    left = sorted(item.name for item in Path("onnx").rglob("*")) if Path("onnx").exists() else []
    assert left == (["person_net.onnx", "unet"] if before else [])
    assert not before or (PATHS.out / NET_FILE).read_bytes() == b"of an earlier run"


def test_without_checkpoint_or_teacher(made: tuple[Path, PersonUnet, dict[str, float]], place: Project) -> None:
    _, net, _ = made
    with pytest.raises(CheckpointError, match=r"gone/best_model\.pth: no such checkpoint"):
        export_net_files(net, PARAMS.model, export_params(), stored_sections(), replace(PATHS, models=Path("gone")))
    with pytest.raises(GraphError, match=rf"gone/{NET_FILE}: no such file, to hold the net against; run `dvc repro unet`"):
        export_net_files(net, PARAMS.model, export_params(), stored_sections(), replace(PATHS, teacher=Path("gone")))
    assert not PATHS.out.exists()


@pytest.mark.slow
def test_two_exports_give_the_same_files(made: tuple[Path, PersonUnet, dict[str, float]], place: Project) -> None:
    root, net, figures = made
    again = export_net_files(net, PARAMS.model, export_params(variants=["fp16", "int8"]), stored_sections(), PATHS)
    assert again == figures
    for item in PATHS.out.iterdir():
        assert item.read_bytes() == (root / PATHS.out / item.name).read_bytes(), item.name


def test_the_file_is_that_of_the_net(made: tuple[Path, PersonUnet, dict[str, float]], place: Project) -> None:
    root, net, _ = made
    store = open_people(stored_sections(), "val", [IMAGE], PARAMS.model).store
    image = torch.from_numpy(store.read(0, [IMAGE])[IMAGE]).float()[None] / 255
    with torch.no_grad():
        torch.testing.assert_close(OnnxNet(root / PATHS.out / NET_FILE)(image), net(image), rtol=1e-3, atol=1e-4)


def test_rows_are_spread() -> None:
    assert spread([3, 4, 5, 6, 7], 3) == [3, 5, 7]
    assert spread([3, 4, 5], 9) == [3, 4, 5]
    assert spread([3, 4, 5], 1) == [3]
