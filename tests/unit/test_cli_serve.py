"""Tests of roiseg.cli_serve: limits reach the service, and what is missing is named before it listens."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from snap_service_factory import FakeSnapper
from typer.testing import CliRunner

from roiseg import snap
from roiseg.cli import app
from roiseg.errors import GraphError, RoisegError
from roiseg.snap import service

RUNNER = CliRunner()


class Server:
    """Notes what it was made with, and doesn't listen."""

    made: tuple[Any, ...] = ()

    def __init__(self, *args: object) -> None:
        Server.made = args

    def run(self) -> None:
        """Nobody calls."""


@pytest.fixture
def snapper(monkeypatch: pytest.MonkeyPatch) -> FakeSnapper:
    made = FakeSnapper()
    monkeypatch.setattr(snap, "Snapper", lambda *_: made)
    monkeypatch.setattr(service, "make_server", Server)
    return made


def test_options_become_limits(snapper: FakeSnapper, tmp_path: Path) -> None:
    options = [
        "--max-body",
        "2",
        "--max-held",
        "8",
        "--max-megapixels",
        "3",
        "--max-boxes",
        "4",
        "--max-queue",
        "5",
        "--timeout",
        "6",
    ]
    result = RUNNER.invoke(app, ["serve", "--port", "8123", "--images", str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    assert "http://127.0.0.1:8123" in result.output
    _, host, port, limits = Server.made
    assert (host, port) == ("127.0.0.1", 8123)
    assert (limits.body_bytes, limits.held_bytes, limits.pixels) == (2 << 20, 8 << 20, 3_000_000)
    assert (limits.boxes, limits.queue, limits.timeout_s) == (4, 5, 6)
    assert snapper.count == 1


def test_more_pixels_than_are_read_cannot_be_allowed(snapper: FakeSnapper) -> None:
    result = RUNNER.invoke(app, ["serve", "--max-megapixels", "300"])
    assert result.exit_code == 2
    assert "178" in result.output + result.stderr


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    result = RUNNER.invoke(app, ["serve"])
    assert result.exit_code == 1
    assert "PackageError: roiseg serve needs uvicorn, which isn't installed; run `uv sync --extra serve`" in result.stderr


def test_missing_folder_is_named(snapper: FakeSnapper, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["serve", "--images", str(tmp_path / "absent")])
    assert result.exit_code == 1
    assert "no such folder of images" in result.stderr


def test_backbone_that_fails_ends_the_command(snapper: FakeSnapper) -> None:
    snapper.fault = GraphError("no backbone.onnx")
    assert isinstance(snapper.fault, RoisegError)
    result = RUNNER.invoke(app, ["serve"])
    assert result.exit_code == 1
    assert "GraphError: no backbone.onnx" in result.stderr
