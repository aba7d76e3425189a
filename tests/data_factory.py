"""Tiny COCO data sets for tests: records in memory, and whole folders with images.

People are ellipses: polygons, compressed RLEs or uncompressed RLEs. Everything follows from the seed.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from roiseg.coco import DataParams, Subset
from roiseg.types import HW

Json = dict[str, Any]
Bools = NDArray[np.bool_]

PERSON_ID, DOG_ID = 1, 18
CATEGORIES: list[Json] = [{"id": DOG_ID, "name": "dog"}, {"id": PERSON_ID, "name": "person"}]


def ellipse(centre: tuple[float, float], radii: tuple[float, float], points: int = 24) -> list[float]:
    """Flat COCO polygon x, y, x, y, ... of an ellipse with `centre` (x, y) and `radii` (x, y) in pixels."""
    turn = np.arange(points) * 2 * np.pi / points
    outline = np.stack([centre[0] + radii[0] * np.cos(turn), centre[1] + radii[1] * np.sin(turn)], axis=1)
    return [round(float(value), 2) for value in outline.ravel()]


def rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    """Flat COCO polygon of a rectangle."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def polygon_mask(polygon: Sequence[float], image_hw: HW) -> Bools:
    """Mask (H, W) of a flat COCO polygon, as pycocotools draws it."""
    runs = coco_mask.merge(coco_mask.frPyObjects([list(polygon)], *image_hw))
    return np.asarray(coco_mask.decode(runs), dtype=bool)


def compressed(mask: Bools) -> Json:
    """COCO's compressed RLE of a mask (H, W), with text counts."""
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")}


def uncompressed(mask: Bools) -> Json:
    """COCO's uncompressed RLE of a mask (H, W): run lengths down the columns, the first of them of zeros."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def image_record(image_id: int, image_hw: HW = (48, 64), file_name: str | None = None) -> Json:
    """A COCO `images` entry."""
    name = f"{image_id:012d}.png" if file_name is None else file_name
    return {"id": image_id, "file_name": name, "height": image_hw[0], "width": image_hw[1]}


def person_record(
    annotation_id: int, image_id: int, polygon: Sequence[float] = (), *, category_id: int = PERSON_ID, **changes: object
) -> Json:
    """A COCO `annotations` entry with the box of its polygon; `changes` replace its values."""
    outline = list(polygon) or ellipse((30, 24), (10, 16))
    xs, ys = np.array(outline[::2]), np.array(outline[1::2])
    box = [float(xs.min()), float(ys.min()), float(xs.max() - xs.min()), float(ys.max() - ys.min())]
    area = abs(float(xs @ np.roll(ys, -1) - ys @ np.roll(xs, -1))) / 2
    record: Json = {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [round(value, 2) for value in box],
        "area": round(area, 2),
        "iscrowd": 0,
        "segmentation": [outline],
    }
    return record | changes


def coco(images: Sequence[Json], annotations: Sequence[Json], categories: Sequence[Json] = CATEGORIES) -> Json:
    """A COCO file as a value."""
    return {"images": list(images), "annotations": list(annotations), "categories": list(categories)}


def write_coco(path: Path, data: object) -> Path:
    """Write a COCO file as it is, faults and all, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def write_people(folder: Path, *annotations: Json, images: Sequence[Json] | None = None) -> Path:
    """Write `a.json` of these annotations, in image 5 unless `images` are given."""
    return write_coco(folder / "a.json", coco(images or [image_record(5)], annotations))


def make_coco(
    folder: Path,
    images: int = 6,
    seed: int = 0,
    *,
    sizes_hw: Sequence[HW] = (),
    people: tuple[int, int] = (1, 4),
    rle_share: float = 0.3,
    crowds: int = 0,
    empties: int = 0,
    name: str = "annotations.json",
) -> Path:
    """Draw a tiny COCO data set: the JSON `folder/name` and `folder/images/*.png`.

    Images have random shapes, and ids that are neither consecutive nor in the order of the file.

    Args:
        folder: where to write; made when missing.
        images: images with people and no crowd.
        seed: source of everything random.
        sizes_hw: sizes of the images, taken in turn; random sizes from 40 to 96 pixels a side when empty.
        people: fewest and most people of an image.
        rle_share: share of the people whose outline is an RLE, in turn compressed and not.
        crowds: further images with an `iscrowd` annotation beside a person.
        empties: further images without people (they show a dog).
        name: file name of the JSON.

    Returns:
        Path of the JSON.
    """
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    total = images + crowds + empties
    ids = (rng.permutation(total) * 7 + 11).tolist()
    records, annotations = [], []
    for place, image_id in enumerate(ids):
        random_hw = int(rng.integers(40, 97)), int(rng.integers(40, 97))
        image_hw = sizes_hw[place % len(sizes_hw)] if sizes_hw else random_hw
        record = image_record(image_id, image_hw)
        picture = rng.integers(0, 90, (*image_hw, 3), dtype=np.uint8)
        crowd, empty = images <= place < images + crowds, place >= images + crowds
        count = 1 if crowd or empty else int(rng.integers(people[0], people[1] + 1))
        for number in range(count):
            outline = _random_ellipse(rng, image_hw)
            cv2.fillPoly(picture, [np.array(outline).reshape(-1, 1, 2).astype(np.int32)], rng.integers(120, 256, 3).tolist())
            item = person_record(100 * image_id + number, image_id, outline, category_id=DOG_ID if empty else PERSON_ID)
            if rng.random() < rle_share:
                mask = polygon_mask(outline, image_hw)
                item["segmentation"] = uncompressed(mask) if number % 2 else compressed(mask)
            annotations.append(item)
        if crowd:
            mask = polygon_mask(_random_ellipse(rng, image_hw), image_hw)
            item = person_record(100 * image_id + 99, image_id, iscrowd=1, segmentation=uncompressed(mask))
            annotations.append(item)
        cv2.imwrite(str(folder / "images" / record["file_name"]), picture)
        records.append(record)
    return write_coco(folder / name, coco(records, annotations))


def _random_ellipse(rng: np.random.Generator, image_hw: HW) -> list[float]:
    """An upright ellipse that lies wholly in the image."""
    height, width = image_hw
    radii = float(rng.uniform(0.1, 0.25) * width), float(rng.uniform(0.2, 0.45) * height)
    centre = float(rng.uniform(radii[0], width - radii[0])), float(rng.uniform(radii[1], height - radii[1]))
    return ellipse(centre, radii)


def data_params(
    train: Path,
    val: Path,
    *,
    subset: Subset = "full",
    fixed_images: Sequence[str] = (),
    min_box_px: float = 8.0,
    bad_annotations: str = "error",
) -> DataParams:
    """Section `data` for two JSONs of `make_coco`, whose images lie in `images/` beside them."""
    splits = {
        name: {"images": str(path.parent / "images"), "annotations": str(path), "subset": subset}
        for name, path in (("train", train), ("val", val))
    }
    values = {
        **splits,
        "category": "person",
        "min_box_px": min_box_px,
        "bad_annotations": bad_annotations,
        "subset_seed": 7,
        "fixed_images": list(fixed_images),
    }
    return DataParams.parse(values, "data")
