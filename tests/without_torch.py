"""Run as a script: masks by what a machine without the training side has; every other import is refused.

Usage: without_torch.py FOLDER IMAGE BOXES OUT PROVIDER. FOLDER is an exported head, IMAGE a picture, BOXES a JSON of (R, 4) xyxy in
pixels, OUT an .npz for `masks` and `scores`.
"""

import importlib.abc
import json
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roiseg.types import Provider

ALLOWED = {"numpy", "cv2", "onnxruntime", "roiseg"}


class Refused(importlib.abc.MetaPathFinder):
    """Finds nothing but the standard library and what is allowed: the rest isn't installed, as far as imports can tell."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """None lets others look."""
        if fullname.partition(".")[0] in ALLOWED | sys.stdlib_module_names:
            return None
        raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def main(folder: str, image: str, boxes: str, out: str, provider: "Provider") -> None:
    """See the module."""
    sys.meta_path.insert(0, Refused())
    import cv2
    import numpy as np

    from roiseg.predict import Predictor

    predictor = Predictor(Path(folder), provider)
    predictor.set_image(np.asarray(cv2.imread(image), dtype=np.uint8))
    people = predictor.predict(json.loads(Path(boxes).read_text()))
    np.savez(out, masks=[person.mask for person in people], scores=[person.score for person in people])


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]  # the caller gives a provider
