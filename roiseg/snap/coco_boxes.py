"""The boxes of a COCO file, and what became of them: some hundred bytes each, whatever else the file says of them."""

from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiseg.classes import Bools
from roiseg.errors import AnnotationError
from roiseg.geometry import Floats
from roiseg.snap.coco_file import Record, read_sections
from roiseg.snap.document import PX_DIGITS, SHARE_DIGITS
from roiseg.snap.snapper import SnappedBox
from roiseg.types import HW

CROWD, BAD_BOX, NO_IMAGE, SMALL, OUTSIDE, UNREADABLE = "crowd", "bad_box", "no_image", "small", "outside", "unreadable"
REASONS = {
    CROWD: "stands for a crowd, which has no edges",
    BAD_BOX: "its bbox isn't four finite numbers with a positive width and height",
    NO_IMAGE: "its image_id is none of the file's images",
    SMALL: "its box is smaller than those that the model learnt on",
    OUTSIDE: "its box lies outside its image",
    UNREADABLE: "its image can't be read",
}
"""Why an annotation is left as it is."""

FAULTS = (BAD_BOX, NO_IMAGE, OUTSIDE, UNREADABLE)
"""Those that somebody should mend."""


class CocoBoxes:
    """The N boxes of a file by their place in it, and which image each is of.

    Attributes:
        files: name and stated size of each image.
        given: (N, 4) of left, top, width, height.
        images: (N,) numbers of their images in `files`.
        reasons: place -> why the box there can't be snapped, see `REASONS`.
    """

    def __init__(self, coco: Path, least_px: float) -> None:
        """Read them.

        Args:
            coco: the file.
            least_px: boxes that are narrower or lower aren't snapped.

        Raises:
            AnnotationError: no COCO annotations.
        """
        self.reasons: dict[int, str] = {}
        self.files: list[tuple[str, HW | None]] = []
        self._names: dict[Any, int] = {}
        self._doubtful = list[Any]()
        self._values, self._owners = array("d"), list[Any]()
        takers: dict[str, Callable[[Record], None]] = {
            "images": self._take_image,
            "annotations": lambda item: self._take_annotation(item, least_px),
        }
        seen = set[str]()
        for section, items in read_sections(coco):
            if section in seen:
                raise AnnotationError(f"{coco}: has more than one list {section}, expected one of each; mend the file")
            if section in takers and isinstance(items, Iterator):
                seen.add(section)
                for item in items:
                    if not isinstance(item, dict):
                        raise AnnotationError(f"{coco}: {str(item)[:60]!r} stands among its {section}, expected COCO records")
                    takers[section](item)
                if self._doubtful:
                    raise AnnotationError(
                        f"{coco}: image id {self._doubtful[0]!r} stands for more than one image ({len(self._doubtful)} such "
                        "records), expected ids of their own: boxes would be snapped in the wrong one; mend the file"
                    )
        if missing := [name for name in takers if name not in seen]:
            raise AnnotationError(f"{coco}: has no list {' and no list '.join(missing)}, expected COCO annotations")
        self.given: Floats = np.array(self._values, dtype=np.float64).reshape(-1, 4)
        self.images: NDArray[np.int64] = np.array([self._names.get(owner, -1) for owner in self._owners], dtype=np.int64)
        for place in np.flatnonzero(self.images < 0).tolist():
            self.reasons.setdefault(place, NO_IMAGE)

    def _take_image(self, item: Record) -> None:
        key, file = _key(item.get("id")), (str(item.get("file_name", "")), _size(item))
        if key is not None:
            number = self._names.setdefault(key, len(self.files))
            if number < len(self.files) and self.files[number] != file:
                self._doubtful.append(key)
        self.files.append(file)

    def _take_annotation(self, item: Record, least_px: float) -> None:
        place, box = len(self._owners), _box(item.get("bbox"))
        if item.get("iscrowd"):
            self.reasons[place] = CROWD
        elif box is None:
            self.reasons[place] = BAD_BOX
        elif min(box[2:]) < least_px:
            self.reasons[place] = SMALL
        self._owners.append(_key(item.get("image_id")))
        self._values.extend(box or (0.0, 0.0, 0.0, 0.0))

    def by_image(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Each image that has boxes to snap, and their places in the file, in order."""
        usable = np.ones(len(self.given), dtype=bool)
        usable[list(self.reasons)] = False
        places = np.flatnonzero(usable)
        places = places[np.argsort(self.images[places], kind="stable")]
        found, starts = np.unique(self.images[places], return_index=True)
        yield from zip(found.tolist(), np.split(places, starts[1:]), strict=False)


def _key(value: Any) -> Any:  # noqa: ANN401 - any JSON may be an id
    """What is looked up, 1.0 like 1; lists and records are no ids, and what has none is of no image."""
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else None


def _size(image: Record) -> HW | None:
    height, width = image.get("height"), image.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _box(bbox: object) -> list[float] | None:
    """Left, top, width, height; None where it is no box."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    if not all(isinstance(item, int | float) and not isinstance(item, bool) and abs(item) < float("inf") for item in bbox):
        return None
    try:
        return [float(item) for item in bbox] if min(bbox[2:]) > 0 else None
    except OverflowError:  # a whole number of hundreds of digits
        return None


class Found:
    """What became of N boxes of a file, by their place in it.

    Attributes:
        outside: those that lie outside their image.
        small: those of which their image shows too little.
        done: (N,) whether it was snapped.
        corners: (N, 4) xyxy, image frame.
        confidences: (N, 4).
        kept: (N, 4) edges that stay.
        review: (N, 4) edges that a person should look at.
    """

    def __init__(self, count: int) -> None:
        """Nothing yet of so many boxes."""
        self.outside: set[int] = set()
        self.small: set[int] = set()
        self.done: Bools = np.zeros(count, dtype=bool)
        self.corners: Floats = np.zeros((count, 4))
        self.confidences: NDArray[np.float32] = np.zeros((count, 4), dtype=np.float32)
        self.kept: Bools = np.zeros((count, 4), dtype=bool)
        self.review: Bools = np.zeros((count, 4), dtype=bool)

    def take(self, entry: Mapping[str, Any]) -> None:
        """The boxes of an image, as `entry_of` gave them."""
        for place, corners, confidences, kept, review in entry["boxes"]:
            self.done[place] = True
            self.corners[place], self.confidences[place] = corners, confidences
            self.kept[place], self.review[place] = kept, review
        self.outside.update(entry["outside"])
        self.small.update(entry.get("small", ()))


def entry_of(image: int, boxes: Mapping[int, SnappedBox], outside: list[int], small: list[int]) -> dict[str, Any]:
    """What was found of an image as plain values.

    Args:
        image: its number.
        boxes: place in the file -> what became of the box there.
        outside: places of boxes that lie outside of it.
        small: places of boxes of which it shows too little.
    """
    return {
        "image": image,
        "boxes": [
            [
                place,
                box.box_image.round(PX_DIGITS).tolist(),
                box.confidences.round(SHARE_DIGITS).tolist(),
                box.kept.astype(int).tolist(),
                box.review.astype(int).tolist(),
            ]
            for place, box in boxes.items()
        ],
        "outside": outside,
        "small": small,
    }
