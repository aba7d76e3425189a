"""The few ROIs of a split that are shown, and what a picture of each needs.

Symbols: R ROIs, n chosen ones, (h, w) cells of the mask.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from roiseg.classes import NON_TARGET, TARGET, Labels
from roiseg.dataset import RoiDataset
from roiseg.evaluate.class_maps import ClassMaps
from roiseg.evaluate.confusion import ious
from roiseg.evaluate.overlays import Picture
from roiseg.evaluate.strata import CROWDEDNESS, SIZES, strata
from roiseg.evaluate.table import RoiTable
from roiseg.geometry import Floats, roi_boxes
from roiseg.previews import Previews

EXTREMES = 16
"""Worst, and best, ROIs of the split."""

PER_CELL = 12
"""ROIs of each size and crowdedness: half are the worst, half stand for the rest."""

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """Rows of a `RoiTable` that are shown.

    Attributes:
        worst: those with the lowest target IoU, the lowest first.
        best: those with the highest, the highest first.
        gallery: of each size and crowdedness, ascending.
    """

    worst: Positions
    best: Positions
    gallery: Positions

    @property
    def positions(self) -> Positions:
        """All of them once, ascending."""
        return np.unique(np.concatenate([self.worst, self.best, self.gallery]))


def choose_cases(table: RoiTable) -> Choice:
    """Which ROIs are shown: however many there are, at most `2 * EXTREMES` and `PER_CELL` of each size and crowdedness.

    ROIs are ranked by target IoU, those of one IoU by annotation id; one without any target, annotated or predicted, has no IoU
    and isn't shown.
    """
    found = ious(table.confusions)[:, TARGET]
    ranked = np.lexsort((table.annotation_ids, found))[: int((~np.isnan(found)).sum())].astype(np.int64)
    best_first = np.lexsort((table.annotation_ids, -found))[: len(ranked)].astype(np.int64)
    labels = strata(table)
    gallery = [
        _spread(ranked[(labels["size"][ranked] == size) & (labels["crowdedness"][ranked] == crowd)])
        for size in SIZES
        for crowd in CROWDEDNESS
    ]
    return Choice(ranked[:EXTREMES], best_first[:EXTREMES], np.sort(np.concatenate(gallery)))


def _spread(ranked: Positions) -> Positions:
    """Of ROIs from worst to best: the worst, and as many that lie evenly among the others, the best included."""
    worst = PER_CELL // 2
    if len(ranked) <= PER_CELL:
        return ranked
    rest = np.linspace(worst, len(ranked) - 1, PER_CELL - worst).round().astype(np.int64)
    return np.concatenate([ranked[:worst], ranked[rest]])


@dataclass(frozen=True)
class RoiCase:
    """An ROI as it is shown.

    Attributes:
        image_id: COCO's.
        annotation_id: COCO's.
        file_name: of the image.
        box_image: (4,) xyxy of the person, image frame.
        size: stratum, see `roiseg.evaluate.strata`.
        crowdedness: stratum.
        truncated: whether the box ends at the border of the image.
        iou_target: in [0, 1].
        iou_nontarget: in [0, 1]; NaN where nobody else is annotated or predicted.
        score: confidence of the mask in [0, 1].
        crop: (H, W, 3) uint8 BGR, the ROI cut from the preview of its image.
        labels: (h, w) uint8 of 0, 1, 2: annotated.
        predicted: (h, w) uint8 of 0, 1, 2.
    """

    image_id: int
    annotation_id: int
    file_name: str
    box_image: Floats
    size: str
    crowdedness: str
    truncated: bool
    iou_target: float
    iou_nontarget: float
    score: float
    crop: Picture
    labels: Labels
    predicted: Labels


def cut_out(picture: Picture, box: Floats) -> Picture:
    """A box of a picture, at the picture's own scale; the border is repeated beyond it.

    Args:
        picture: (H, W, 3).
        box: (4,) xyxy in pixels of the picture; pixel i covers [i, i + 1).
    """
    x0, y0, x1, y1 = (float(value) for value in box)
    width, height = max(round(x1 - x0), 1), max(round(y1 - y0), 1)
    step_x, step_y = (x1 - x0) / width, (y1 - y0) / height
    # Centre of the first pixel of the crop, in coordinates where the centre of the picture's first pixel is 0.
    to_picture = np.array([[step_x, 0, x0 + step_x / 2 - 0.5], [0, step_y, y0 + step_y / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    found = cv2.warpAffine(picture, to_picture, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, dtype=np.uint8)


def load_cases(
    dataset: RoiDataset, table: RoiTable, positions: Positions, previews: Previews, maps: ClassMaps
) -> Iterator[RoiCase]:
    """What is shown of some ROIs.

    Args:
        dataset: the split.
        table: a row for each ROI of the split, in the order of the index.
        positions: (n,) rows of the table, ascending.
        previews: of the split.
        maps: of the same ROIs as the table, in its order.
    """
    starts = np.concatenate([[0], np.cumsum(dataset.index.rois_per_image)])
    rows = np.searchsorted(starts, positions, side="right") - 1
    names = dataset.index.images["file_name"]
    kinds, measured = strata(table), ious(table.confusions)
    for row in np.unique(rows).tolist():
        picture = previews.picture(int(dataset.index.image_ids[row]))
        boxes = _boxes_in(picture, dataset, row)
        for position in positions[rows == row].tolist():
            labels, predicted = maps.read(position)
            yield RoiCase(
                int(table.image_ids[position]),
                int(table.annotation_ids[position]),
                str(names.iloc[row]),
                table.boxes_image[position],
                str(kinds["size"][position]),
                str(kinds["crowdedness"][position]),
                bool(table.truncated[position]),
                float(measured[position, TARGET]),
                float(measured[position, NON_TARGET]),
                float(table.scores[position]),
                cut_out(picture, boxes[position - int(starts[row])]),
                labels,
                predicted,
            )


def _boxes_in(picture: Picture, dataset: RoiDataset, row: int) -> Floats:
    """The ROIs (R, 4) of an image as xyxy in pixels of its preview."""
    people, resize = dataset.index.people(row), dataset.index.resize(row)
    boxes_image = resize.boxes_to_image(roi_boxes(people.boxes[people.roi_numbers], dataset.params.roi_padding))
    scale = np.array(picture.shape[1::-1]) / np.array(resize.image_hw[::-1])
    return np.asarray(boxes_image * np.tile(scale, 2))
