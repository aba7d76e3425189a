"""Boxes of many images as text or JSON, and their masks as files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from roiseg.classes import Bools
from roiseg.errors import BoxError
from roiseg.evaluate.overlays import Person, draw_boxes, draw_masks, write_png
from roiseg.extractor.images import decode, read_bytes
from roiseg.files import write_bytes, write_json
from roiseg.geometry import Floats, cxcywh_to_xyxy, xywh_to_xyxy
from roiseg.masks import encode_mask
from roiseg.predict.given import BoxFormat
from roiseg.predict.predictor import Predictor

PERSON = "person"
"""Category whose boxes are taken from a COCO file that has it; from any other file all boxes are."""


def parse_boxes(text: str, images: Sequence[Path], box_format: BoxFormat) -> dict[Path, Floats]:
    """Boxes of every image, from what was typed or from a COCO file.

    Args:
        text: `x0,y0,x1,y1;...` in pixels of the image (one image only), or a JSON file: COCO annotations, or COCO results with
            `file_name`; COCO's `bbox` is always left, top, width, height.
        images: the images asked for.
        box_format: of typed boxes.

    Returns:
        Image -> (R, 4) xyxy, image frame.

    Raises:
        BoxError: can't be read, or has nothing for an image.
    """
    if text.endswith(".json"):
        return _boxes_from_json(Path(text), images)
    if len(images) != 1:
        raise BoxError(f"--boxes {text!r}: typed boxes go with one image, got {len(images)}; give a COCO JSON for several")
    try:
        rows = [[float(item) for item in part.split(",")] for part in text.split(";") if part.strip()]
        if any(len(row) != 4 for row in rows):
            raise ValueError("a box of other than four numbers")
        boxes = np.array(rows, dtype=np.float64).reshape(-1, 4)
    except ValueError as error:
        raise BoxError(
            f"--boxes {text!r}: expected four numbers a box, as in '10,20,110,220;30,40,90,200', or a .json file"
        ) from error
    return {images[0]: cxcywh_to_xyxy(boxes) if box_format == "cxcywh" else boxes}


def _boxes_from_json(path: Path, images: Sequence[Path]) -> dict[Path, Floats]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BoxError(f"--boxes {path}: no such file") from error
    except ValueError as error:
        raise BoxError(f"--boxes {path}: not valid JSON ({error})") from error
    if isinstance(data, dict):
        names = {item["id"]: item["file_name"] for item in data.get("images", ())}
        people = {item.get("id") for item in data.get("categories", ()) if item.get("name") == PERSON}
        chosen = [item for item in data.get("annotations", ()) if not people or item.get("category_id") in people]
        rows = [(names.get(item.get("image_id")), item.get("bbox")) for item in chosen if not item.get("iscrowd")]
    else:
        rows = [(item.get("file_name"), item.get("bbox")) for item in data]
    grouped: dict[str, list[list[float]]] = {}
    for name, bbox in rows:
        if isinstance(name, str) and isinstance(bbox, list) and len(bbox) == 4:
            grouped.setdefault(name, []).append(bbox)
    missing = [image.name for image in images if image.name not in grouped]
    if missing:
        raise BoxError(f"--boxes {path}: has no boxes for {', '.join(missing[:5])}; expected COCO annotations of these file names")
    return {image: xywh_to_xyxy(np.array(grouped[image.name], dtype=np.float64)) for image in images}


def predict_files(predictor: Predictor, boxes: Mapping[Path, Floats], out: Path) -> Path:
    """Masks of several images as PNGs, one COCO results file, and an overlay each.

    Args:
        predictor: backbone and head.
        boxes: image -> (R, 4) xyxy, image frame.
        out: folder; files of the same names are replaced.

    Returns:
        The COCO results: file_name, image_id (position), category_id, bbox, score, segmentation (RLE).

    Raises:
        BoxError, ImageReadError, MissingImageError: naming the image; those before it are written.
    """
    results: list[dict[str, Any]] = []
    for number, (image, image_boxes) in enumerate(boxes.items(), start=1):
        pixels = decode(read_bytes(image), str(image))
        (encoded,) = predictor.encode([pixels])
        people = predictor.masks(encoded, image_boxes, str(image))
        drawn = []
        for position, person in enumerate(people, start=1):
            _write_mask(out / "masks" / f"{image.stem}_{position:03d}.png", person.mask)
            x0, y0, x1, y1 = (round(float(item), 3) for item in person.box_image)
            results.append(
                {
                    "file_name": image.name,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [x0, y0, round(x1 - x0, 3), round(y1 - y0, 3)],
                    "score": round(person.score, 6),
                    "segmentation": encode_mask(person.mask),
                }
            )
            drawn.append(Person(person.mask, person.box_image, position))
        write_png(out / f"{image.stem}_overlay.png", draw_boxes(draw_masks(pixels, drawn), drawn))
        write_json(out / "predictions.json", results, indent=None)
    return out / "predictions.json"


def _write_mask(path: Path, mask: Bools) -> None:
    _, data = cv2.imencode(".png", mask.astype(np.uint8) * 255)
    write_bytes(path, data.tobytes())
