"""Tests of roiseg.export.filter_onnx and `roiseg export-filter`: what the files hold, that they say what torch says, and faults."""

import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner, Result

from roiseg import cli
from roiseg.errors import ParityError, UnwritableError
from roiseg.export import filter_onnx
from roiseg.export.filter_onnx import export_filter, filter_graph, filter_parity
from roiseg.filters import DEFAULTS, FilterParams, Kind, build_filter
from roiseg.runtime import ORT_ERRORS

KINDS: tuple[Kind, ...] = get_args(Kind)
SIZES = [(1, 1, 1), (2, 1, 8), (1, 3, 2), (0, 4, 4), (1, 37, 52)]
"""(N, H, W)."""


def run_cli(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(cli.app, ["export-filter", *(str(item) for item in arguments)])
    assert result.exit_code == status, result.output
    return result


def plain(result: Result) -> str:
    """Output without colours and frames, on one line."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", result.output).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`{kind}.onnx` of two channels, as the command writes them, and `{kind}.txt` with what it said."""
    made = tmp_path_factory.mktemp("filters")
    for kind in KINDS:
        result = run_cli(kind, "--output", made / f"{kind}.onnx", "--channels", 2)
        (made / f"{kind}.txt").write_text(plain(result))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_file_holds(folder: Path, kind: Kind) -> None:
    path = folder / f"{kind}.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {(item.domain, item.version) for item in model.opset_import} == {("", 18)}
    assert not model.functions
    assert not {"If", "Loop", "Scan"} & {node.op_type for node in model.graph.node}
    for tensors, name in ((model.graph.input, "input"), (model.graph.output, "output")):
        assert [item.name for item in tensors] == [name]
        shape = tensors[0].type.tensor_type.shape.dim
        assert [dim.dim_value for dim in shape] == [0, 2, 0, 0]
    (metadata,) = (json.loads(item.value) for item in model.metadata_props if item.key == "roiseg")
    assert metadata == {
        "filter": {"kind": kind, **DEFAULTS[kind]},
        "channels": 2,
        "reach_px": {"fast": 4, "edge_preserving": 4, "binary_mask": 6, "morphological": 6}[kind],
        "maps": "float32 (N, C, H, W) in [0, 1]",
    }
    assert str(Path.cwd()).encode() not in path.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_files_compute_what_torch_does(folder: Path, kind: Kind) -> None:
    session = onnxruntime.InferenceSession(folder / f"{kind}.onnx", providers=["CPUExecutionProvider"])
    module = build_filter(FilterParams.parse({"kind": kind}, "filter"), channels=2)
    random = np.random.default_rng(5)
    for images, height, width in SIZES:
        maps = random.uniform(-0.2, 1.2, (images, 2, height, width)).astype(np.float32)
        (got,) = session.run(["output"], {"input": maps})
        np.testing.assert_allclose(got, module(torch.from_numpy(maps)).numpy(), rtol=0, atol=1e-5)


def test_a_tie_falls_on_the_same_side(folder: Path) -> None:
    for kind in ("binary_mask", "morphological"):
        session = onnxruntime.InferenceSession(folder / f"{kind}.onnx", providers=["CPUExecutionProvider"])
        for height, width in ((1, 1), (4, 7), (33, 40)):
            (got,) = session.run(["output"], {"input": np.full((1, 2, height, width), 0.5, dtype=np.float32)})
            assert not got.any()


def test_channels_are_fixed(folder: Path) -> None:
    session = onnxruntime.InferenceSession(folder / "fast.onnx", providers=["CPUExecutionProvider"])
    with pytest.raises(ORT_ERRORS, match="Got invalid dimensions for input: input"):
        session.run(["output"], {"input": np.zeros((1, 3, 8, 8), dtype=np.float32)})


def test_the_same_bytes_twice(folder: Path) -> None:
    graph = filter_graph(FilterParams.parse({"kind": "morphological"}, "filter"), channels=2, opset=18)
    assert graph.SerializeToString(deterministic=True) == (folder / "morphological.onnx").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("opset", range(18, 23))
@pytest.mark.parametrize("kind", KINDS)
def test_every_opset(kind: Kind, opset: int) -> None:
    params = FilterParams.parse({"kind": kind, "preset": "strong"}, "filter")
    graph = filter_graph(params, channels=1, opset=opset)
    assert [item.version for item in graph.opset_import] == [opset]
    assert filter_parity(build_filter(params, channels=1), graph) <= 1e-5


# --- faults ---


def test_a_disagreement_writes_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = onnx.load(folder / "fast.onnx")
    monkeypatch.setattr(filter_onnx, "filter_graph", lambda *_arguments, **_options: other)
    message = r"the filter's graph differs from torch by \S+ on maps of \(\d, 2, \d+, \d+\), expected at most 1e-05"
    for kind in ("edge_preserving", "binary_mask"):
        with pytest.raises(ParityError, match=message):
            export_filter(FilterParams.parse({"kind": kind}, "filter"), channels=2, opset=18, path=tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_a_small_disagreement_is_seen(folder: Path) -> None:
    module = build_filter(FilterParams.parse({"kind": "fast", "sigma_spatial": 1.001}, "filter"), channels=2)
    with pytest.raises(ParityError, match="differs from torch"):
        filter_parity(module, onnx.load(folder / "fast.onnx"))


def test_a_place_that_cannot_be_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = onnx.load(folder / "fast.onnx")
    monkeypatch.setattr(filter_onnx, "filter_graph", lambda *_arguments, **_options: made)
    with pytest.raises(UnwritableError, match=r"--output .*: can't be written \(Is a directory\); name a file"):
        export_filter(FilterParams.parse({"kind": "fast"}, "filter"), channels=2, opset=18, path=tmp_path)


def test_the_command_says_what_it_wrote(folder: Path) -> None:
    text = (folder / "binary_mask.txt").read_text()
    assert "binary_mask.onnx: binary_mask, kernel_size 7, sigma_spatial 1.5, threshold 0.5, iterations 2; looks 6 px far;" in text


def test_every_option_reaches_the_filter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[FilterParams] = []

    def export(params: FilterParams, *, channels: int, opset: int, path: Path) -> float:
        assert (channels, opset, path) == (3, 20, tmp_path / "f.onnx")
        seen.append(params)
        return 0.0

    monkeypatch.setattr(filter_onnx, "export_filter", export)
    values = {
        "fast": {"kernel_size": 7, "sigma_spatial": 2.5, "sigma_range": 0.2, "iterations": 4},
        "edge_preserving": {"radius": 5, "epsilon": 0.03},
        "morphological": {"kernel_size": 3, "sigma_spatial": 0.7, "morph_size": 5, "threshold": 0.4},
    }
    for kind, chosen in values.items():
        options = [text for key, value in chosen.items() for text in (f"--{key.replace('_', '-')}", value)]
        run_cli(kind, "--output", tmp_path / "f.onnx", "--channels", 3, "--opset", 20, *options)
        assert seen[-1].chosen() == chosen
    run_cli("fast", "--output", tmp_path / "f.onnx", "--channels", 3, "--opset", 20, "--preset", "strong")
    assert seen[-1].preset == "strong"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fast", "--kernel-size", 4), "export-filter.kernel_size: value is 4; value error, a kernel of 4 pixels has no middle"),
        (("fast", "--radius", 3), "the filter 'fast' has no radius; it has kernel_size, sigma_spatial, sigma_range, iterations"),
    ],
    ids=["even", "alien"],
)
def test_options_that_are_refused(tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    assert message in plain(run_cli(*arguments, "--output", tmp_path / "f.onnx", status=1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [("median",), ("fast", "--opset", 11), ("fast", "--channels", 0), ("fast", "--preset", "no")])
def test_usage_errors(tmp_path: Path, arguments: tuple[object, ...]) -> None:
    run_cli(*arguments, "--output", tmp_path / "f.onnx", status=2)
