"""From an image and boxes to full-size masks, by onnxruntime alone.

Symbols: R people in an image, (H, W) its size.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from roiseg.errors import BoxError, GraphError
from roiseg.evaluate.overlays import Person, draw_boxes, draw_masks, write_png
from roiseg.evaluate.pictures import target_mask
from roiseg.export.export import BACKBONE_FILE, HEAD_FILE
from roiseg.export.onnx import BOXES, METADATA_KEY, OUTPUT, feature_input
from roiseg.extractor.images import Pixels, as_input, decode, network_image, read_bytes
from roiseg.extractor.params import ExtractorParams, Provider
from roiseg.extractor.session import Backbone, make_session
from roiseg.files import write_bytes, write_json
from roiseg.geometry import Floats, Resize, check_boxes, clip_boxes, cxcywh_to_xyxy, roi_boxes, xywh_to_xyxy
from roiseg.masks import Bools, encode_mask
from roiseg.types import IMAGE

BoxFormat = Literal["xyxy", "cxcywh"]

PERSON = "person"
"""Category whose boxes are taken from a COCO file that has it; from any other file all boxes are."""


@dataclass(frozen=True)
class PersonMask:
    """One person found.

    Attributes:
        mask: (H, W).
        box_image: (4,) xyxy as given, clipped to the image.
        score: mean target probability where the target wins, in [0, 1].
    """

    mask: Bools
    box_image: Floats
    score: float


class Predictor:
    """The backbone and a head, as `export` wrote them."""

    def __init__(self, folder: Path, provider: Provider = "auto") -> None:
        """Open `head.onnx` and `backbone.onnx` in a folder.

        Args:
            folder: such as `models/onnx/default`.
            provider: where to run.

        Raises:
            GraphError: not an exported head.
            ProviderError: the provider isn't there.
        """
        path = folder / HEAD_FILE
        if not path.is_file():
            raise GraphError(f"{path}: no exported head there; run `dvc repro export`, or `dvc pull {folder}`")
        found = [item.value for item in onnx.load(path, load_external_data=False).metadata_props if item.key == METADATA_KEY]
        if not found:
            raise GraphError(f"{path}: has no {METADATA_KEY!r} metadata, expected a head that roiseg exported")
        self.metadata: dict[str, Any] = json.loads(found[0])
        rule = self.metadata["input"]
        self._backbone = Backbone(folder / BACKBONE_FILE, provider, "float32")
        self._head, _ = make_session(path, provider, "float32")
        self._input = _InputRule(tuple(rule["hw"]), rule["resize"], rule["color"], float(rule["pixel_max"]))
        self._scales = {name: np.array(values, dtype=np.float32) for name, values in self.metadata["scales"].items()}

    def __call__(self, pixels: Pixels, boxes_image: Floats, what: str = "image") -> list[PersonMask]:
        """Masks of the people in these boxes.

        Args:
            pixels: (H, W, 3) uint8, BGR.
            boxes_image: (R, 4) xyxy, image frame.
            what: what to call the image in messages.

        Raises:
            BoxError: a box is empty or outside the image.
        """
        image_hw = (pixels.shape[0], pixels.shape[1])
        check_boxes(boxes_image, image_hw, what)
        if not len(boxes_image):
            return []
        clipped = clip_boxes(boxes_image, image_hw)
        resize = Resize(image_hw, self._input.hw, self._input.resize)
        rois = roi_boxes(resize.boxes_to_unit(clipped), float(self.metadata["roi_padding"]))
        outputs = self._maps(pixels)
        feeds: dict[str, NDArray[np.float32]] = {}
        for name in self.metadata["layers"]:
            values = outputs[name][:1].astype(np.float32)
            feeds[feature_input(name)] = values * self._scales[name].reshape(1, -1, 1, 1) if name in self._scales else values
        feeds[BOXES] = np.concatenate([np.zeros((len(rois), 1)), rois], axis=1).astype(np.float32)
        (masks,) = self._head.run([OUTPUT], feeds)
        rois_image = resize.boxes_to_image(rois)
        people = []
        for probabilities, roi, box in zip(masks, rois_image, clipped, strict=True):
            mask, score = target_mask(torch.from_numpy(probabilities), roi, image_hw)
            people.append(PersonMask(mask, box, score))
        return people

    def _maps(self, pixels: Pixels) -> dict[str, NDArray[Any]]:
        """What the head may ask for, of one image or more of the same: the detector's layers, and the image itself."""
        params = self._input.params()
        image = network_image(pixels, params)
        batch = np.repeat(as_input(image, params)[None], self._backbone.info.batch_size or 1, axis=0)
        return self._backbone(batch) | {IMAGE: (image if params.color == "rgb" else image[::-1])[None]}


@dataclass(frozen=True)
class _InputRule:
    hw: tuple[int, int]
    resize: Literal["stretch", "letterbox"]
    color: Literal["rgb", "bgr"]
    pixel_max: float

    def params(self) -> ExtractorParams:
        """The rule in the shape that `network_image` takes."""
        rule = {"input_hw": self.hw, "resize": self.resize, "color": self.color, "pixel_max": self.pixel_max}
        rest = {"batch_size": 1, "provider": "auto", "precision": "float32", "detections": None}
        return ExtractorParams.parse({"onnx": BACKBONE_FILE, "layers": {"layer": "-"}, **rule, **rest}, "the exported input rule")


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
        people = predictor(pixels, image_boxes, str(image))
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
