"""Tests of roiseg.predict.files: boxes as text and JSON, and masks as files."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from store_factory import Exported, shared_export

from roiseg.errors import BoxError, ImageReadError, MissingImageError
from roiseg.geometry import Floats
from roiseg.predict import Predictor
from roiseg.predict.files import parse_boxes, predict_files
from roiseg.predict.given import BoxFormat

PICTURE = Path("picture.png")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return shared_export(tmp_path_factory)


@pytest.fixture(scope="module")
def predictor(exported: Exported) -> Predictor:
    return Predictor(exported.folder, "cpu")


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def val_images(exported: Exported) -> list[Path]:
    return [exported.project.image("val", str(item["file_name"])) for item in exported.project.people("val").images]


# --- boxes as text ---


def test_typed_boxes_of_both_formats_are_equal() -> None:
    corners = parse_boxes("10,20,110,220; 30,40,90,200;", [PICTURE], "xyxy")
    centres = parse_boxes("60,120,100,200;60,120,60,160", [PICTURE], "cxcywh")
    np.testing.assert_array_equal(corners[PICTURE], [[10, 20, 110, 220], [30, 40, 90, 200]])
    np.testing.assert_array_equal(corners[PICTURE], centres[PICTURE])


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2;3,4", "1,2,3,4,5,6,7,8", "1 2 3 4", "1,2,3,4;5"])
def test_malformed_text(text: str) -> None:
    with pytest.raises(BoxError, match="expected four numbers a box, as in"):
        parse_boxes(text, [PICTURE], "xyxy")


def test_typed_boxes_for_several_images() -> None:
    with pytest.raises(BoxError, match=r"typed boxes go with one image, got 2; give a COCO JSON"):
        parse_boxes("1,2,3,4", [PICTURE, Path("b.png")], "xyxy")


# --- boxes as JSON ---


def write(path: Path, value: object) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def test_coco_annotations(tmp_path: Path) -> None:
    data = {
        "images": [{"id": 4, "file_name": "b.png"}, {"id": 9, "file_name": "a.png"}],
        "annotations": [
            {"image_id": 9, "bbox": [1, 2, 10, 20]},
            {"image_id": 4, "bbox": [0, 0, 5, 5]},
            {"image_id": 9, "bbox": [3, 3, 4, 4], "iscrowd": 1},
            {"image_id": 9, "bbox": [5, 6, 7, 8], "iscrowd": 0},
        ],
    }
    text = write(tmp_path / "boxes.json", data)
    formats: tuple[BoxFormat, ...] = ("xyxy", "cxcywh")
    for box_format in formats:
        found = parse_boxes(text, [Path("x/a.png"), Path("b.png")], box_format)
        np.testing.assert_array_equal(found[Path("x/a.png")], [[1, 2, 11, 22], [5, 6, 12, 14]])
        np.testing.assert_array_equal(found[Path("b.png")], [[0, 0, 5, 5]])


def test_coco_results_with_file_names(tmp_path: Path) -> None:
    text = write(tmp_path / "boxes.json", [{"file_name": "a.png", "bbox": [1, 2, 3, 4]}, {"bbox": [0, 0, 1, 1]}])
    np.testing.assert_array_equal(parse_boxes(text, [Path("a.png")], "xyxy")[Path("a.png")], [[1, 2, 4, 6]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [], "annotations": []}', r"boxes\.json: has no boxes for picture\.png; expected COCO annotations"),
        ("[]", r"has no boxes for picture\.png"),
        ('{"images": [', r"boxes\.json: not valid JSON"),
        (None, r"boxes\.json: no such file"),
    ],
)
def test_json_that_doesnt_help(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(BoxError, match=message):
        parse_boxes(str(tmp_path / "boxes.json"), [PICTURE], "xyxy")


# --- files ---


def test_predict_files(exported: Exported, predictor: Predictor, tmp_path: Path) -> None:
    images = val_images(exported)[:2]
    boxes = parse_boxes(str(exported.project.annotations("val")), images, "xyxy")
    counts = [len(item) for item in boxes.values()]
    path = predict_files(predictor, boxes, tmp_path)
    results: list[dict[str, Any]] = json.loads(path.read_text())
    assert [result["file_name"] for result in results] == [
        image.name for image, count in zip(images, counts, strict=True) for _ in range(count)
    ]
    masks = sorted((tmp_path / "masks").iterdir())
    assert len(masks) == len(results) == sum(counts)
    for image, image_boxes in boxes.items():
        pixels = np.asarray(cv2.imread(str(image)))
        overlay = np.asarray(cv2.imread(str(tmp_path / f"{image.stem}_overlay.png")))
        assert overlay.shape == pixels.shape
        assert (overlay != pixels).any()
        mine = [result for result in results if result["file_name"] == image.name]
        for number, (result, box) in enumerate(zip(mine, image_boxes.tolist(), strict=True), start=1):
            drawn = np.asarray(cv2.imread(str(tmp_path / "masks" / f"{image.stem}_{number:03d}.png"), cv2.IMREAD_UNCHANGED))
            assert set(np.unique(drawn)) <= {0, 255}
            np.testing.assert_array_equal(coco_mask.decode(result["segmentation"]), drawn // 255)
            x, y, width, height = result["bbox"]
            assert [x, y, x + width, y + height] == pytest.approx(box, abs=0.01)


def test_predictions_are_coco_results(exported: Exported, predictor: Predictor, tmp_path: Path) -> None:
    images = val_images(exported)
    path = predict_files(predictor, parse_boxes(str(exported.project.annotations("val")), images, "xyxy"), tmp_path)
    truth = COCO()
    truth.dataset = {
        "images": [dict(item, id=number) for number, item in enumerate(exported.project.people("val").images, start=1)],
        "annotations": [],
        "categories": [{"id": 1, "name": "person"}],
        "info": {},
    }
    truth.createIndex()
    loaded = truth.loadRes(str(path))
    assert len(loaded.anns) == len(json.loads(path.read_text()))
    assert any(loaded.annToMask(item).any() for item in loaded.anns.values())


def test_predict_files_again_gives_the_same_bytes(exported: Exported, predictor: Predictor, tmp_path: Path) -> None:
    image = val_images(exported)[0]
    boxes: dict[Path, Floats] = {image: np.array([[4.0, 4.0, 30.0, 36.0]])}
    for name in ("first", "second"):
        predict_files(predictor, boxes, tmp_path / name)
    for path in (tmp_path / "first").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "second" / path.relative_to(tmp_path / "first")).read_bytes()


def test_missing_and_broken_images(predictor: Predictor, tmp_path: Path) -> None:
    box: Floats = np.array([[1.0, 1.0, 9.0, 9.0]])
    with pytest.raises(MissingImageError, match=r"gone\.png"):
        predict_files(predictor, {tmp_path / "gone.png": box}, tmp_path)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ImageReadError, match=r"text\.png"):
        predict_files(predictor, {tmp_path / "text.png": box}, tmp_path)


def test_boxes_of_other_categories_are_left_out(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 3, "name": "person"}, {"id": 4, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]},
            {"image_id": 1, "category_id": 4, "bbox": [5, 6, 7, 8]},
            {"image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
    }
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(content))
    found = parse_boxes(str(file), [Path("a.jpg")], "xyxy")
    assert found[Path("a.jpg")].tolist() == [[1, 2, 4, 6]]
