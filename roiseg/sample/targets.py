"""Dense targets that the backbone is trained on; the heads that predict them are thrown away.

They are cues by which people can be told from the rest and from each other, so that the frozen maps hold them.

Legend: G cells of a side-G grid over the network input, one cell each 4 pixels. Frame: network pixels.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from roiseg.sample.scene import Scene
from roiseg.sample.texture import Floats

CELL: Final = 4
"""Network pixels per cell."""
LOGITS: Final = 3
"""The first channels are probabilities: person, rim of a person, near another person."""
CHANNELS: Final = 8
"""Then: distance from the rim; offset from the centre of the box, x and y; logarithm of the box's width and height."""
_REACH: Final = 6.0
"""Distances from the rim saturate here, in cells."""


def _instances(scene: Scene, cells: int) -> npt.NDArray[np.int32]:
    """(G, G) int32: 1 + index of the person at each cell's centre, -1 for crowds, 0 for the rest."""
    height, width = scene.owners.shape
    rows = ((np.arange(cells) + 0.5) / cells * height).astype(np.int64)
    cols = ((np.arange(cells) + 0.5) / cells * width).astype(np.int64)
    kinds = np.array([0] + [_kind(scene, index) for index in range(len(scene.things))], np.int32)
    return np.asarray(kinds[scene.owners[np.ix_(rows, cols)]])


def _kind(scene: Scene, index: int) -> int:
    thing = scene.things[index]
    if thing.category != "person":
        return 0
    return -1 if thing.crowd else index + 1


def _differs(instances: npt.NDArray[np.int32], other_person: bool) -> npt.NDArray[np.bool_]:
    """Cells with a 4-neighbour that is something else (or, if asked for, someone else); (G, G) bool."""
    padded = np.pad(instances, 1, mode="edge")
    found = np.zeros(instances.shape, np.bool_)
    for rows, cols in ((0, 1), (2, 1), (1, 0), (1, 2)):
        near = padded[rows : rows + instances.shape[0], cols : cols + instances.shape[1]]
        found |= (near != instances) & ((near != 0) | (not other_person))
    return np.asarray(found & (instances != 0), np.bool_)


def dense_targets(scene: Scene, side: int) -> Floats:
    """Targets of one picture, stretched to a square network input.

    Args:
        scene: The picture.
        side: Side of the network input, in pixels.

    Returns:
        (CHANNELS + 2, G, G) float32: the targets, then where the boxes are valid (0 or 1), then the weight of the
        cell (more for small people).
    """
    cells = side // CELL
    instances = _instances(scene, cells)
    person, rim = instances != 0, _differs(instances, other_person=False)
    contact = _differs(instances, other_person=True)
    near = cv2.dilate(contact.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    targets = np.zeros((CHANNELS + 2, cells, cells), np.float32)
    targets[0], targets[1], targets[2] = person, rim, near & person
    inside = np.pad((person & ~rim).astype(np.uint8), 1, mode="edge")
    targets[3] = np.minimum(cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1], _REACH) / _REACH
    targets[CHANNELS] = instances > 0
    targets[CHANNELS + 1] = 1
    for number in np.unique(instances[instances > 0]):
        rows, cols = np.nonzero(instances == number)
        high, wide = np.ptp(rows) + 1.0, np.ptp(cols) + 1.0
        targets[4, rows, cols] = (cols - (cols.min() + cols.max()) / 2) / (wide / 2)
        targets[5, rows, cols] = (rows - (rows.min() + rows.max()) / 2) / (high / 2)
        targets[6, rows, cols] = np.log(wide * CELL / 64)
        targets[7, rows, cols] = np.log(high * CELL / 128)
        targets[CHANNELS + 1, rows, cols] = np.clip(40.0 / np.sqrt(len(rows)), 1, 3)
    return targets
