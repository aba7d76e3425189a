"""Annotations: the things of a scene as COCO writes them.

Only what is seen is annotated: a pixel belongs to whatever is in front. `bbox` and `area` are those of the
segmentation as it is written, so that they agree with the masks that readers decode.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from roiseg.sample.distractor import CATEGORIES
from roiseg.sample.render import Bools, owned, window_of
from roiseg.sample.scene import Scene

RLE_SHARE = 0.2
"""Share of the instances that are written as RLE."""
MAX_HOLE = 0.06
"""A polygon can't have holes; a mask whose holes exceed this share of it is written as RLE."""
MIN_AREA = 4.0
"""Area below which something has no annotation, in pixels."""


def _polygons(mask: Bools) -> list[list[float]]:
    """Outlines of all parts of a mask, as flat x, y lists in image pixels.

    Contours are traced at four times the size, along pixel edges rather than through pixel centres.
    """
    large = np.pad(mask.astype(np.uint8).repeat(4, 0).repeat(4, 1), 4)
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for contour in contours:
        simple = cv2.approxPolyDP(contour, 1.6, True).reshape(-1, 2)
        if len(simple) < 3 or cv2.contourArea(simple) < 16 * 2:
            continue
        points = np.clip((simple - 3.5) / 4, 0, np.array(mask.shape[::-1]))
        polygons.append([round(float(value), 2) for value in points.reshape(-1)])
    # OpenCV finds contours from the bottom up.
    return sorted(polygons)


def _window(mask: Bools) -> tuple[int, int, int, int] | None:
    """Rows and columns that hold the mask, as top, bottom, left, right; None if it's empty."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1) if len(rows) else None


def _local_polygons(mask: Bools) -> list[list[float]]:
    """`_polygons`, at the cost of the mask's box rather than of the picture."""
    window = _window(mask)
    if window is None:
        return []
    top, bottom, left, right = window
    offset = (left, top)
    local = _polygons(mask[top:bottom, left:right])
    return [[round(value + offset[index % 2], 2) for index, value in enumerate(flat)] for flat in local]


def _hole_share(mask: Bools) -> float:
    """Area of the holes in a mask over its own area."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    area = max(int(mask.sum()), 1)
    return (int(filled.sum()) - area) / area


def _counts(mask: Bools) -> list[int]:
    """Lengths of the runs of 0 and 1 down the columns, starting with a run of 0."""
    flat = np.concatenate([[0], mask.astype(np.int8).reshape(-1, order="F")])
    edges = np.flatnonzero(np.diff(flat)) if flat.any() else np.array([], np.int64)
    return [int(value) for value in np.diff(np.concatenate([[0], edges, [mask.size]]))]


def encode_rle(mask: Bools, *, compressed: bool) -> dict[str, Any]:
    """A mask as COCO run lengths.

    Args:
        mask: (H, W) bool.
        compressed: The string form of pycocotools rather than a list of counts.

    Returns:
        A dict with `size` [H, W] and `counts`.
    """
    size = [int(side) for side in mask.shape]
    if not compressed:
        return {"counts": _counts(mask), "size": size}
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"counts": encoded["counts"].decode("ascii"), "size": size}


def decode(segmentation: list[list[float]] | dict[str, Any], size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The mask that readers of a segmentation see.

    Args:
        segmentation: Polygons or RLE.
        size_hw: Height and width of the picture.

    Returns:
        (H, W) uint8, 0 or 1.
    """
    if isinstance(segmentation, list):
        encoded = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size_hw))
    elif isinstance(segmentation["counts"], list):
        encoded = coco_mask.frPyObjects(segmentation, *size_hw)
    else:
        encoded = segmentation
    return np.asarray(coco_mask.decode(encoded), np.uint8)


def _box(segmentation: list[list[float]] | dict[str, Any], decoded: npt.NDArray[np.uint8]) -> list[float]:
    """COCO box, [x, y, width, height] in image pixels: of the vertices for polygons, of the mask for RLE."""
    if isinstance(segmentation, list):
        points = np.concatenate([np.reshape(flat, (-1, 2)) for flat in segmentation])
        low, high = points.min(0), points.max(0)
        return [round(float(value), 2) for value in (*low, *(high - low))]
    window = _window(decoded.astype(np.bool_))
    if window is None:
        return [0.0, 0.0, 0.0, 0.0]
    top, bottom, left, right = window
    return [float(left), float(top), float(right - left), float(bottom - top)]


def _annotation(mask: Bools, category: str, rng: np.random.Generator, *, crowd: bool) -> dict[str, Any] | None:
    """One annotation without its ids, or None where nothing is left to annotate."""
    draw, compressed = rng.random(), bool(rng.random() < 0.5)
    segmentation: list[list[float]] | dict[str, Any]
    if crowd:
        segmentation = encode_rle(mask, compressed=False)
    elif draw < RLE_SHARE or _hole_share(mask) > MAX_HOLE:
        segmentation = encode_rle(mask, compressed=compressed)
    else:
        segmentation = _local_polygons(mask) or encode_rle(mask, compressed=compressed)
    decoded = decode(segmentation, (mask.shape[0], mask.shape[1]))
    area = float(decoded.sum())
    if area < MIN_AREA:
        return None
    return {
        "area": area,
        "bbox": _box(segmentation, decoded),
        "category_id": CATEGORIES[category],
        "iscrowd": int(crowd),
        "segmentation": segmentation,
    }


def annotate(scene: Scene, rng: np.random.Generator) -> list[dict[str, Any]]:
    """All annotations of a scene, without ids.

    Args:
        scene: The scene.
        rng: Source of randomness, for the choice between polygons and RLE.

    Returns:
        COCO annotations, from back to front, the crowd (if any) last.
    """
    found = []
    crowd = np.zeros((scene.image.shape[0], scene.image.shape[1]), np.bool_)
    for index, thing in enumerate(scene.things):
        window = window_of(thing.bounds(), (scene.image.shape[0], scene.image.shape[1]))
        if window is None:
            continue
        mask = owned(scene.owners, index, window)
        if thing.crowd:
            crowd |= mask
        elif mask.any():
            found.append(_annotation(mask, thing.category, rng, crowd=False))
    if crowd.any():
        found.append(_annotation(crowd, "person", rng, crowd=True))
    return [annotation for annotation in found if annotation is not None]
