"""Prediction where neither torch nor any other part of the training side is installed."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pytest
from export_factory import Exported, shared_export
from numpy.typing import NDArray

from roiseg.predict import Predictor

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "without_torch.py"
PIXELS = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
BOXES = [[5.0, 6.0, 40.0, 45.0], [30.0, 2.0, 69.5, 49.0], [0.0, 0.0, 20.0, 20.0]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return shared_export(tmp_path_factory)


def in_a_process(python: str, exported: Exported, folder: Path, provider: str) -> tuple[NDArray[np.bool_], list[float]]:
    """Masks (R, H, W) and scores by a process of its own, which can import nothing further."""
    image, boxes, out = folder / "image.png", folder / "boxes.json", folder / "out.npz"
    cv2.imwrite(str(image), PIXELS)
    boxes.write_text(json.dumps(BOXES))
    command = [python, str(SCRIPT), str(exported.folder), str(image), str(boxes), str(out), provider]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        return found["masks"], found["scores"].tolist()


def here(exported: Exported) -> tuple[NDArray[np.bool_], list[float]]:
    """The same in this process, where all of torch is loaded."""
    assert "torch" in sys.modules
    predictor = Predictor(exported.folder, "cpu")
    predictor.set_image(PIXELS)
    people = predictor.predict(BOXES)
    return np.stack([person.mask for person in people]), [person.score for person in people]


def test_only_numpy_opencv_and_onnxruntime_are_imported(exported: Exported, tmp_path: Path) -> None:
    found, scores = in_a_process(sys.executable, exported, tmp_path, "cpu")
    expected, expected_scores = here(exported)
    np.testing.assert_array_equal(found, expected)
    assert found.any()
    assert scores == expected_scores


@pytest.mark.slow
def test_a_fresh_environment_of_three_packages(exported: Exported, tmp_path: Path) -> None:
    """onnxruntime of the processor, which isn't the one that is installed here."""
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    packages = [f"{name}=={version(name)}" for name in ("numpy", "opencv-python-headless")]
    subprocess.run(["uv", "pip", "install", "-q", "--python", python, "onnxruntime", *packages], check=True)
    found, scores = in_a_process(python, exported, tmp_path, "auto")
    expected, expected_scores = here(exported)
    assert (found != expected).mean() < 1e-3
    assert scores == pytest.approx(expected_scores, abs=1e-4)
