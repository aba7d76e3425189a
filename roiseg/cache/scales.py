"""Per-channel int8 scales as a file."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roiseg.files import write_bytes


def save_scales(path: Path, scales: Mapping[str, NDArray[np.float32]]) -> None:
    """An `.npz` with stable bytes: fixed dates, no compression."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, values in scales.items():
            item = io.BytesIO()
            np.lib.format.write_array(item, values, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), item.getvalue())
    write_bytes(path, buffer.getvalue())


def load_scales(path: Path) -> dict[str, NDArray[np.float32]]:
    """Layer -> (C,) float32, as `calibrate` wrote them; empty for float16."""
    with np.load(path, allow_pickle=False) as file:
        return {name: np.asarray(file[name], dtype=np.float32) for name in file.files}
