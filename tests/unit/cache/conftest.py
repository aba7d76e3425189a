"""Stores of known values, in small shards."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx_factory import Recipe, make_recipe

from roiseg.cache import layout


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """Makes recipes of stores whose shards hold three images."""

    def make(codec: str = "lz4", dtype: str = "float16", name: str = "work") -> Recipe:
        monkeypatch.setattr(layout, "MIB", 3 * 4 * 8 * 16 * np.dtype(dtype).itemsize)
        return make_recipe(tmp_path / name, codec, dtype)

    return make
