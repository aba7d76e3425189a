"""`roiseg snap --coco`: a whole file of annotations cleaned, image by image, and never touched where the model is unsure.

The file is read three times, record by record: for the boxes (a few dozen bytes each are held), by nobody while images are snapped,
and for the copy with the new boxes. What is found of an image is noted at once, so that a run that was stopped goes on.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiseg.errors import AnnotationError, ImageReadError, MissingImageError, UnwritableError
from roiseg.files import sha256_file
from roiseg.geometry import clip_boxes, xywh_to_xyxy
from roiseg.network_input import Pixels
from roiseg.predict.frames import Fault, Frame, read_ahead
from roiseg.predict.sources import Source
from roiseg.progress import progress
from roiseg.snap.coco_boxes import FAULTS, OUTSIDE, REASONS, SMALL, UNREADABLE, CocoBoxes, Found, entry_of
from roiseg.snap.coco_file import ItemWriter, Record, beside, new_text, read_sections, write_sections
from roiseg.snap.document import SHARE_DIGITS
from roiseg.snap.journal import Journal
from roiseg.snap.snapper import SnappedBox, Snapper, edge_names
from roiseg.snapper.windows import EDGES
from roiseg.types import HW

logger = logging.getLogger(__name__)

READ_AHEAD = 2
"""Images that are decoded before they are asked for."""

CORNER_DIGITS = 6
"""Decimals of a width or height: what subtraction adds behind them is noise."""

MAX_SHOWN = 8
"""Annotations that a message names."""


@dataclass(frozen=True)
class CleanPaths:
    """Where a run reads and writes.

    Attributes:
        coco: COCO annotations with rough boxes; only read.
        images: folder that `file_name` begins at.
        out: the cleaned copy.
    """

    coco: Path
    images: Path
    out: Path

    def __post_init__(self) -> None:
        if not self.out.name or self.out.is_dir():
            raise UnwritableError(f"--out {self.out}: a folder, expected a file; give one such as {self.out / 'clean.json'}")
        written = (self.out, self.review)
        for path in (*written, self.journal, *map(beside, written)):
            if path.exists() and self.coco.exists() and path.samefile(self.coco):
                raise UnwritableError(f"--out {self.out}: {path} is {self.coco} itself, which is only read; give another --out")
        if not self.images.is_dir():
            raise AnnotationError(f"--images {self.images}: no such folder, expected the one that file_name begins at")

    @property
    def review(self) -> Path:
        """What a person should look at."""
        return self.out.with_name(f"{self.out.stem}.review.json")

    @property
    def journal(self) -> Path:
        """What is found so far."""
        return self.out.with_name(f"{self.out.name}.work")


@dataclass
class Cleaned:
    """What a run did.

    Attributes:
        annotations: in the file.
        moved: whose box has a new edge at least.
        review: with an edge that a person should look at.
        left: why -> how many were left as they are.
        ids: why -> their ids, of those that somebody should mend.
    """

    annotations: int = 0
    moved: int = 0
    review: int = 0
    left: Counter[str] = field(default_factory=Counter)
    ids: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def faults(self) -> int:
        """How many were left for a reason that somebody should mend."""
        return sum(self.left[reason] for reason in FAULTS)

    def leave(self, reason: str, annotation_id: Any) -> None:  # noqa: ANN401 - any JSON may be an id
        """Count an annotation that stays; who should be mended is named."""
        self.left[reason] += 1
        if reason in FAULTS:
            self.ids.setdefault(reason, []).append(annotation_id)

    def counts(self) -> dict[str, int]:
        """All of it, flat."""
        own = {"annotations": self.annotations, "moved": self.moved, "review": self.review}
        return own | {f"left_{reason}": self.left[reason] for reason in REASONS}

    def lines(self) -> list[str]:
        """What a person wants to know."""
        stay = self.annotations - self.moved - self.left.total()
        found = [f"{self.annotations} annotations: {self.moved} moved, {stay} stay where they were, {self.review} to be reviewed"]
        for reason, count in self.left.items():
            ids = self.ids.get(reason, [])
            shown = f": {', '.join(str(item) for item in ids[:MAX_SHOWN])}" if ids else ""
            shown += ", ..." if len(ids) > MAX_SHOWN else ""
            found.append(f"  {count} left as they are, each {REASONS[reason]}{shown}")
        return found


def clean(snapper: Snapper, paths: CleanPaths) -> Cleaned:
    """Write a copy of COCO annotations with snapped boxes, and beside it what a person should look at.

    `bbox` changes where an edge is sure enough, each edge on its own; annotations with an edge to be reviewed get `snap`. All else
    stays: order, other keys, crowds, outlines.

    Args:
        snapper: what snaps; its policy says how sure is sure enough.
        paths: where to read and write.

    Raises:
        AnnotationError: no COCO annotations.
        UnwritableError: an output can't be written.
        WorkBusyError: another run has the same `out`.
    """
    boxes = CocoBoxes(paths.coco, snapper.min_box_px)
    found = Found(len(boxes.given))
    policy = snapper.policy
    run = {
        "annotations_sha256": sha256_file(paths.coco),
        "snapper_sha256": sha256_file(snapper.file),
        "images": str(paths.images.absolute()),
        "keep_below": policy.keep_below,
        "review_below": policy.review_below,
    }
    cleaned = Cleaned(annotations=len(boxes.given))
    with Journal(paths.journal, run) as journal:
        _snap_images(snapper, boxes, found, journal, paths.images)
        _write(paths, boxes, found, cleaned)
        journal.remove()
    return cleaned


def _snap_images(snapper: Snapper, boxes: CocoBoxes, found: Found, journal: Journal, folder: Path) -> None:
    """Snap what no earlier run has snapped; one image and what is read ahead are in memory."""
    done = set[int]()
    for entry in journal.found():
        found.take(entry)
        done.add(entry["image"])
    parts = {number: places for number, places in boxes.by_image() if number not in done}
    sources = {number: Source(folder / boxes.files[number][0], "", "") for number in parts}
    for number in [number for number, source in sources.items() if source.is_video]:
        logger.error("%s: a video, expected an image of the annotations", sources.pop(number).path)
        boxes.reasons.update(dict.fromkeys(parts.pop(number).tolist(), UNREADABLE))
    pictures = read_ahead(list(sources.values()), READ_AHEAD, READ_AHEAD)
    with progress("snap", len(parts)) as tick:
        for picture, (number, places) in zip(pictures, parts.items(), strict=True):
            try:
                entry = _snap_image(snapper, _pixels_of(picture, boxes.files[number][1]), number, boxes, places)
            except (ImageReadError, MissingImageError) as error:
                # Not noted: what can't be read today may be there when it goes on.
                logger.error("%s: %s", type(error).__name__, error)
                boxes.reasons.update(dict.fromkeys(places.tolist(), UNREADABLE))
            else:
                journal.add(entry)
                found.take(entry)
            tick()
    boxes.reasons.update(dict.fromkeys(found.outside, OUTSIDE) | dict.fromkeys(found.small, SMALL))


def _pixels_of(picture: Frame | Fault, image_hw: HW | None) -> Pixels:
    """The pixels of an image.

    Raises:
        MissingImageError, ImageReadError: it can't be read, or has another size than the annotations say.
    """
    if isinstance(picture, Fault):
        raise picture.error
    hw = (picture.pixels.shape[0], picture.pixels.shape[1])
    if image_hw is not None and image_hw != hw:
        raise ImageReadError(
            f"{picture.what}: the image has {hw[1]}x{hw[0]} pixels, but its annotation says {image_hw[1]}x{image_hw[0]}; "
            "annotations must be made for the stored pixels, without EXIF rotation"
        )
    return picture.pixels


def _snap_image(snapper: Snapper, pixels: Pixels, number: int, boxes: CocoBoxes, places: NDArray[np.int64]) -> dict[str, Any]:
    """The entry of an image."""
    corners, hw = xywh_to_xyxy(boxes.given[places]), (pixels.shape[0], pixels.shape[1])
    inside = (corners[:, 2:] > 0).all(axis=1) & (corners[:, 0] < hw[1]) & (corners[:, 1] < hw[0])
    shown = clip_boxes(corners, hw)
    # As in training, it is what the image shows of a box that must be large enough.
    small = inside & ((shown[:, 2:] - shown[:, :2]).min(axis=1) < snapper.min_box_px)
    usable = inside & ~small
    snapped = dict[int, SnappedBox]()
    if usable.any():
        (encoded,) = snapper.encode([pixels])
        snapped = dict(zip(places[usable].tolist(), snapper.snap_encoded(encoded, corners[usable]), strict=True))
    return entry_of(number, snapped, places[~inside].tolist(), places[small].tolist())


def _write(paths: CleanPaths, boxes: CocoBoxes, found: Found, cleaned: Cleaned) -> None:
    """Write what is to be reviewed, then the copy."""
    with new_text(paths.out) as write, new_text(paths.review) as write_review:
        write_review(f'{{"edges": {json.dumps(list(EDGES))},\n"review": ')
        reviewed = ItemWriter(write_review)

        def renewed(items: Iterator[Record]) -> Iterator[Record]:
            for place, item in enumerate(items):
                if not found.done[place]:
                    cleaned.leave(boxes.reasons[place], item.get("id"))
                    yield item
                    continue
                new = _renewed(item, place, found)
                cleaned.moved += not found.kept[place].all()
                cleaned.review += "snap" in new
                if "snap" in new:
                    told = {"annotation_id": item.get("id"), "image_id": item.get("image_id")}
                    reviewed({**told, "file_name": boxes.files[boxes.images[place]][0], "bbox": new["bbox"], **new["snap"]})
                yield new

        write_sections(
            write,
            (
                (name, renewed(value) if name == "annotations" and isinstance(value, Iterator) else value)
                for name, value in read_sections(paths.coco)
            ),
        )
        reviewed.end()
        left = {reason: {"why": REASONS[reason], "annotation_ids": ids} for reason, ids in cleaned.ids.items()}
        write_review(f',\n"left": {json.dumps(left, indent=1)},\n"counts": {json.dumps(cleaned.counts())}}}\n')


def _renewed(item: Record, place: int, found: Found) -> Record:
    """An annotation with its new box; with `snap` where an edge of it is to be reviewed."""
    kept, review = found.kept[place], found.review[place]
    new = {name: value for name, value in item.items() if name != "snap"} | {"bbox": _bbox(item["bbox"], place, found)}
    if review.any():
        new["snap"] = {
            "confidences": [round(float(value), SHARE_DIGITS) for value in found.confidences[place]],
            "kept": edge_names(kept),
            "review": edge_names(review),
            "rough": item["bbox"],
        }
    return new


def _bbox(rough: Sequence[float], place: int, found: Found) -> list[float]:
    """Left, top, width, height; edges that are kept are where they were to the last bit, beyond the image too."""
    new = list(rough)
    corners, kept = found.corners[place], found.kept[place]
    for axis in (0, 1):
        low = rough[axis] if kept[axis] else float(corners[axis])
        high = rough[axis] + rough[axis + 2] if kept[axis + 2] else float(corners[axis + 2])
        if not (kept[axis] and kept[axis + 2]):
            new[axis], new[axis + 2] = low, round(high - low, CORNER_DIGITS)
    return new
