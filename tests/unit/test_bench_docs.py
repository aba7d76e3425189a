"""Tests of what bench/ says of itself; tests/pipeline/test_bench.py runs it."""

import ast
from pathlib import Path

import pytest

from roiseg.sample.backbone import LAST_LAYER
from roiseg.sample.complexity import Counter, MapShape, count_gflops, count_parameters
from roiseg.sample.walker import Walker

BENCH = Path(__file__).parents[2] / "bench"


def test_the_full_size_detector_costs_what_is_said() -> None:
    said = ast.get_docstring(ast.parse((BENCH / "full_size.py").read_text())) or ""
    assert f"{count_parameters(1.0):,} parameters and {count_gflops(1.0):.1f} GFLOPs" in said
    counter = Counter()
    Walker(counter, 1.0).run(MapShape(3, 1), LAST_LAYER)
    costs = [
        (spec.kernel**2 * spec.inputs // spec.groups * spec.outputs, spec.outputs, (640 // stride) ** 2)
        for spec, stride in counter.convs
    ]
    parameters, gflops = sum(kernel + bias for kernel, bias, _ in costs), sum(2e-9 * kernel * cells for kernel, _, cells in costs)
    assert f"keeps {parameters:,} and {gflops:.1f}" in said


@pytest.mark.parametrize(
    "file", [path for path in sorted(BENCH.glob("*.py")) if "def main" in path.read_text()], ids=lambda p: p.stem
)
def test_every_bench_writes_json_and_says_how_it_is_run(file: Path) -> None:
    text = file.read_text()
    said = ast.get_docstring(ast.parse(text)) or ""
    assert f"python -m bench.{file.stem} " in said
    assert "[--json FILE]" in said
    assert 'add_argument("--json", type=Path)' in text
    assert "write_json(options.json" in text
