"""ONNX files that come from anywhere: damaged, or with weights in places that are none of theirs."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

SECRET = np.arange(4 * 3 * 4 * 4, dtype=np.float32).reshape(4, 3, 4, 4)
"""What lies outside the folder."""

PLACES = {
    "above": "../secret.bin",
    "absolute": "{outside}",
    "symbolic link": "symbolic.bin",
    "linked folder": "linked/secret.bin",
    "missing": "missing.bin",
    "short": "short.bin",
    "unnamed": "",
}
"""What it is -> where an initializer says that its values lie, in a folder that `fill` filled."""


def fill(folder: Path) -> Path:
    """Make a folder for models, beside a file that no model has a right to.

    Returns:
        The folder.
    """
    models, secret = folder / "models", folder / "secret.bin"
    models.mkdir()
    secret.write_bytes(SECRET.tobytes())
    (models / "symbolic.bin").symlink_to(secret)
    (models / "linked").symlink_to(folder)
    (models / "short.bin").write_bytes(SECRET.tobytes()[:64])
    return models


def keep_outside(path: Path, name: str, place: str) -> Path:
    """Make an ONNX's initializer lie in another file.

    Args:
        path: the ONNX, which is overwritten; beside `fill`'s files.
        name: of a (4, 3, 4, 4) float32 initializer.
        place: what the ONNX says of where it is; `{outside}` becomes the absolute path of the file outside.

    Returns:
        `path`.
    """
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.data_location = TensorProto.EXTERNAL
            place = place.format(outside=path.parent.parent / "secret.bin")
            for key, value in (("location", place), ("offset", "0"), ("length", str(SECRET.nbytes))):
                tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path
