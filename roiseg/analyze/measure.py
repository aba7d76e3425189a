"""Pixel counts, overlaps and ROI sizes of one image, all in the image frame.

Nothing is decoded: outlines become run lengths by COCO's own rules, and intersections are taken between run lengths, so
the cost of a person follows the length of the outline and not the size of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from roiseg.classes import BACKGROUND, CLASS_NAMES, NON_TARGET, TARGET
from roiseg.coco import Json
from roiseg.geometry import Floats, clip_boxes, pad_boxes, xywh_to_xyxy
from roiseg.masks import compressed_rle
from roiseg.types import HW

Ints = NDArray[np.int64]
Runs = dict[str, Any]
"""A compressed COCO RLE, as pycocotools takes and gives it."""


@dataclass(frozen=True)
class ImageStats:
    """What one image adds to the statistics. P people, K overlapping pairs.

    Attributes:
        image_id: COCO's id.
        image_hw: size of the image in pixels.
        annotation_ids: (P,) COCO's ids of the people.
        foreground_pixels: pixels that belong to anybody.
        roi_pixels: (P, 3) pixels of each class in the ROI of each person; pixels shared by ROIs count in each of them.
        people_in_roi: (P,) people with at least one pixel in the ROI; the person it was drawn for always counts.
        roi_size: (P, 2) width and height of the padded and clipped box in pixels, before it is cut to whole pixels.
        pair_ious: (K,) IoU of the masks of each pair of people that share a pixel.
        neighbour_iou: (P,) largest IoU of a person's mask with that of another person.
    """

    image_id: int
    image_hw: HW
    annotation_ids: Ints
    foreground_pixels: int
    roi_pixels: Ints
    people_in_roi: Ints
    roi_size: Floats
    pair_ious: Floats
    neighbour_iou: Floats

    @property
    def pixels(self) -> int:
        """Number of pixels of the image."""
        return self.image_hw[0] * self.image_hw[1]

    @property
    def people(self) -> int:
        """Number of people in the image."""
        return len(self.people_in_roi)


def roi_windows(boxes_xywh: Floats, padding: float, image_hw: HW) -> Ints:
    """The whole pixels that belong to ROIs: edges cut towards zero, then clipped to the image.

    Args:
        boxes_xywh: (P, 4) COCO boxes, image frame.
        padding: share of the width and height added on each side.
        image_hw: size of the image.

    Returns:
        (P, 4) first column, first row, last column + 1, last row + 1. A box
        narrower than a pixel may give an empty window.
    """
    x, y, width, height = boxes_xywh.T
    # Written out as in the formulae behind the published numbers: x + (1 + p) w may differ from (x + w) + p w in its
    # last bit, and the cut turns that into a pixel.
    edges = [x - padding * width, y - padding * height, x + (1 + padding) * width, y + (1 + padding) * height]
    limit = np.array([*image_hw[::-1], *image_hw[::-1]], dtype=np.int64)
    return np.asarray(np.clip(np.trunc(np.stack(edges, axis=1)).astype(np.int64), 0, limit))


def measure_image(image: Json, people: Sequence[Json], padding: float) -> ImageStats:
    """Statistics of one image.

    Args:
        image: COCO image record.
        people: its annotations, checked by `roiseg.coco.load_people`.
        padding: share of the box's width and height added on each side of an ROI.
    """
    image_hw = (int(image["height"]), int(image["width"]))
    if not people:
        none, nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
        no_pixels, no_sizes = np.zeros((0, len(CLASS_NAMES)), dtype=np.int64), np.zeros((0, 2))
        return ImageStats(int(image["id"]), image_hw, none, 0, no_pixels, none, no_sizes, nothing, nothing)
    boxes_xywh = np.array([item["bbox"] for item in people], dtype=np.float64)
    masks = [_runs(item["segmentation"], image_hw) for item in people]
    windows = roi_windows(boxes_xywh, padding, image_hw)
    everybody = dict(coco_mask.merge(masks))
    inside, covered = _pixels_in_windows([*masks, everybody], windows, image_hw)

    sizes = windows[:, 2:] - windows[:, :2]
    own = inside.diagonal()
    roi_pixels = np.empty((len(people), len(CLASS_NAMES)), dtype=np.int64)
    roi_pixels[:, TARGET] = own
    roi_pixels[:, NON_TARGET] = covered - own
    roi_pixels[:, BACKGROUND] = sizes.prod(axis=1) - covered

    # A target without a pixel in its own ROI is still there: it is what the ROI was drawn for.
    others = np.count_nonzero(inside, axis=0) - (own > 0)
    boxes_image = clip_boxes(pad_boxes(xywh_to_xyxy(boxes_xywh), padding), image_hw)
    ious = _mask_ious(masks)
    pairs = ious[np.triu_indices(len(people), k=1)]
    return ImageStats(
        image_id=int(image["id"]),
        image_hw=image_hw,
        annotation_ids=np.array([item["id"] for item in people], dtype=np.int64),
        foreground_pixels=int(coco_mask.area(everybody)),
        roi_pixels=roi_pixels,
        people_in_roi=1 + others.astype(np.int64),
        roi_size=boxes_image[:, 2:] - boxes_image[:, :2],
        pair_ious=pairs[pairs > 0],
        neighbour_iou=ious.max(axis=1),
    )


def _runs(segmentation: Json | list[list[float]], image_hw: HW) -> Runs:
    if isinstance(segmentation, dict):
        return compressed_rle(segmentation)
    return dict(coco_mask.merge(coco_mask.frPyObjects(segmentation, *image_hw)))


def _pixels_in_windows(layers: list[Runs], windows: Ints, image_hw: HW) -> tuple[Ints, Ints]:
    """Pixels of every person in every window (P, P), and of the last layer, which is everybody (P,)."""
    windows_xywh = np.concatenate([windows[:, :2], windows[:, 2:] - windows[:, :2]], axis=1).astype(np.float64)
    rois = coco_mask.frPyObjects(windows_xywh, *image_hw)
    # Against a "crowd" pycocotools divides the intersection by the area of the first mask alone, so multiplying by that
    # area gives the intersection back, exact after rounding.
    shares = coco_mask.iou(layers, rois, [1] * len(rois))
    # One by one: `area` of a list of more than 255 masks overflows (pycocotools 2.0.11 counts them in a byte).
    areas = np.array([coco_mask.area(layer) for layer in layers], dtype=np.float64)
    pixels = np.rint(shares * areas[:, None]).astype(np.int64)
    return pixels[:-1], pixels[-1]


def _mask_ious(masks: list[Runs]) -> Floats:
    """IoU (P, P) of the masks of different people; 0 on the diagonal."""
    ious = np.zeros((len(masks), len(masks)))
    if len(masks) > 1:
        ious[:] = coco_mask.iou(masks, masks, [0] * len(masks))
        np.fill_diagonal(ious, 0)
    return ious
