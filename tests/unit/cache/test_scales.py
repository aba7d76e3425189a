"""Tests of roiseg.cache.scales: stable bytes."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from roiseg.cache import scales
from roiseg.cache.scales import load_scales, save_scales

SCALES = {"layer_34": np.array([0.5, 2, 1 / 127], dtype=np.float32), "layer_3": np.array([3.5], dtype=np.float32)}


def test_round_trip(tmp_path: Path) -> None:
    save_scales(tmp_path / "a" / "s.npz", SCALES)
    found = load_scales(tmp_path / "a" / "s.npz")
    assert list(found) == list(SCALES)
    for name, values in SCALES.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], values)


def test_none(tmp_path: Path) -> None:
    save_scales(tmp_path / "s.npz", {})
    assert load_scales(tmp_path / "s.npz") == {}


def test_the_bytes_hold_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`numpy.savez` would write the time of day, and DVC would see another file at every run."""
    save_scales(tmp_path / "a.npz", SCALES)
    monkeypatch.setattr(scales.zipfile.time, "time", lambda: 1e9)  # type: ignore[attr-defined]
    save_scales(tmp_path / "b.npz", SCALES)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    digest = hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()
    assert digest == "7d8b0e24a9eb5960c0798c70fc92b84a218bb2412435d85fcd0db4ad0c489dd2"
