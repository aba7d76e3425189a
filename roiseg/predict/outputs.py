"""What prediction leaves behind: overlays, PNG masks, and two JSON files that are written as they grow and appear when whole.

OUT/overlays/KEY.jpg        the picture with its people (KEY.mp4 for a video)
OUT/masks/KEY_001.png       the mask of the first person, 0 and 255 (NAME.mp4/000012_001.png in frame 12 of a video)
OUT/predictions.json        COCO results: run lengths
OUT/polygons.json           COCO annotations: polygons
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TextIO

import cv2
import numpy as np

from roiseg.classes import Bools
from roiseg.errors import UnwritableError
from roiseg.evaluate.overlays import Picture
from roiseg.evaluate.results import new_results
from roiseg.files import write_bytes
from roiseg.masks import encode_mask
from roiseg.polygons import polygons, ring_area
from roiseg.predict.drawing import draw_people
from roiseg.predict.frames import Frame
from roiseg.predict.person import PersonMask

Json = dict[str, Any]
Write = Callable[[Json], None]

RESULTS_FILE, POLYGONS_FILE = "predictions.json", "polygons.json"

OVERLAYS, MASKS = "overlays", "masks"
"""Folders of pictures, which a run over the folder around them mustn't take for its own."""

JPEG_QUALITY = 92
"""Of overlays: JPEG's usual step for pictures that are looked at."""


@dataclass(frozen=True)
class Wanted:
    """What is to be written.

    Attributes:
        overlays: picture format of the overlays of images; None: no overlays, of videos neither.
        masks: whether everybody's mask becomes a PNG.
        rle: whether there is `predictions.json`.
        polygons: whether there is `polygons.json`.
        tolerance: pixels that a polygon's outline may move.
        min_area: pixels; smaller pieces of polygons are left out, smaller holes filled.
    """

    overlays: Literal["jpg", "png"] | None
    masks: bool
    rle: bool
    polygons: bool
    tolerance: float
    min_area: float


@dataclass(frozen=True)
class Found:
    """The people of one picture.

    Attributes:
        frame: the picture.
        image_id: COCO's id of it.
        people: R of them.
        scores: R confidences in [0, 1].
    """

    frame: Frame
    image_id: int
    people: Sequence[PersonMask]
    scores: Sequence[float]


class Outputs:
    """Writes what is found, picture by picture; nothing is there before the first, and the JSON files only after the last."""

    def __init__(self, out: Path, wanted: Wanted, category_id: int) -> None:
        self._out, self._wanted, self._category = out, wanted, category_id
        self._stack = ExitStack()
        self._results: Write | None = None
        self._image: Write | None = None
        self._polygons: Write | None = None
        self._video: _Video | None = None
        self._begun = False
        self._annotations = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._end_video(whole=kind is None)
        finally:
            self._stack.__exit__(kind, error, trace)

    def _begin(self) -> None:
        self._begun = True
        if self._wanted.rle:
            self._results = self._stack.enter_context(new_results(self._out / RESULTS_FILE))
        if self._wanted.polygons:
            category = {"id": self._category, "name": "person"}
            self._image, self._polygons = self._stack.enter_context(new_annotations(self._out / POLYGONS_FILE, [category]))

    def __call__(self, found: Found) -> None:
        """Write one picture's people.

        Raises:
            UnwritableError: a video can't be written.
        """
        if not self._begun:
            self._begin()
        self._write_overlay(found)
        if self._image is not None:
            height, width = found.frame.pixels.shape[:2]
            self._image({"id": found.image_id, **_place(found.frame), "width": width, "height": height})
        for number, (person, score) in enumerate(zip(found.people, scores_of(found), strict=True), start=1):
            self._write_person(found, number, person, score)

    def _write_person(self, found: Found, number: int, person: PersonMask, score: float) -> None:
        x0, y0, x1, y1 = (round(float(item), 3) for item in person.box_image)
        record = {"image_id": found.image_id, "category_id": self._category, "score": score}
        box = [x0, y0, round(x1 - x0, 3), round(y1 - y0, 3)]
        if self._wanted.masks or self._results is not None:
            mask = person.mask
            if self._wanted.masks:
                _write_mask(self._out / MASKS / mask_name(found.frame, number), mask)
            if self._results is not None:
                self._results({**_place(found.frame), **record, "bbox": box, "segmentation": encode_mask(mask)})
        if self._polygons is None:
            return
        rings = polygons(person.placed.mask, self._wanted.tolerance, self._wanted.min_area)
        if rings:
            self._annotations += 1
            corner = np.array([person.placed.window.left, person.placed.window.top])
            flat = [(ring + corner).ravel().tolist() for ring in rings]
            area = sum(ring_area(ring) for ring in rings)
            shape = {"bbox": box, "area": area, "iscrowd": 0, "segmentation": flat}
            self._polygons({"id": self._annotations, **record, **shape})

    def _write_overlay(self, found: Found) -> None:
        frame, kind = found.frame, self._wanted.overlays
        if kind is None:
            return
        drawn = draw_people(frame.pixels, found.people)
        path = self._out / OVERLAYS / frame.source.key
        if frame.number is None:
            _write_picture(path.with_name(f"{path.name}.{kind}"), drawn)
            return
        path = path.with_name(f"{path.name}.mp4")
        if self._video is None or self._video.path != path:
            self._end_video(whole=True)
            self._video = _Video(path, (drawn.shape[0], drawn.shape[1]), frame.fps)
        self._video.write(drawn)

    def _end_video(self, *, whole: bool) -> None:
        video, self._video = self._video, None
        if video is not None:
            video.end(whole=whole)


def scores_of(found: Found) -> list[float]:
    """Confidences with six digits."""
    return [round(score, 6) for score in found.scores]


def mask_name(frame: Frame, number: int) -> str:
    """Name of the mask of person `number` >= 1 below `masks/`."""
    if frame.number is None:
        return f"{frame.source.key}_{number:03d}.png"
    return f"{frame.source.name}/{frame.number:06d}_{number:03d}.png"


def _place(frame: Frame) -> Json:
    return {"file_name": frame.source.name} | ({} if frame.number is None else {"frame": frame.number})


def _write_mask(path: Path, mask: Bools) -> None:
    _write_picture(path, np.asarray(mask, dtype=np.uint8) * 255)


def _write_picture(path: Path, picture: Picture) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    ok, data = cv2.imencode(path.suffix, picture, options)
    if not ok:
        raise UnwritableError(f"{path}: OpenCV couldn't encode a picture of {picture.shape}; leave overlays or masks out")
    write_bytes(path, data.tobytes())


class _Video:
    """An MP4 that takes its name when it is whole."""

    def __init__(self, path: Path, hw: tuple[int, int], fps: float) -> None:
        self.path = path
        # FFmpeg knows the format by the ending, so the mark of what isn't whole stands before it.
        self._aside = path.with_name(f"{path.stem}.partial{path.suffix}")
        self._aside.parent.mkdir(parents=True, exist_ok=True)
        self._hw, self._frames = hw, 0
        self._writer = cv2.VideoWriter(str(self._aside), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), fps, (hw[1], hw[0]))
        if not self._writer.isOpened():
            raise UnwritableError(
                f"{path}: OpenCV can't write an MP4 of {hw[1]}x{hw[0]} pixels at {fps:g} frames a second; "
                "try --overlays none, or see to the folder's rights"
            )

    def write(self, picture: Picture) -> None:
        self._writer.write(picture)
        self._frames += 1

    def end(self, *, whole: bool) -> None:
        """Give the video its name, or leave nothing of it.

        Raises:
            UnwritableError: not all frames are in it: OpenCV doesn't tell when the disk is full.
        """
        self._writer.release()
        try:
            if whole:
                self._check_frames()
                self._aside.replace(self.path)
        finally:
            self._aside.unlink(missing_ok=True)

    def _check_frames(self) -> None:
        video = cv2.VideoCapture(str(self._aside), cv2.CAP_FFMPEG)
        there = max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        video.release()
        if there != self._frames:
            raise UnwritableError(
                f"{self.path}: {there} of {self._frames} frames could be written, expected all; is the disk full? Make room, or "
                "try --overlays none"
            )


@contextmanager
def new_annotations(path: Path, categories: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Write, Write]]:
    """A COCO annotation file to write record by record; it takes the place of `path` only when the block ends well.

    Yields:
        What writes an image, and what writes an annotation. The latter wait in a file without a name, for images come first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.partial")
    try:
        with aside.open("w", encoding="utf-8") as file, tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent) as rest:
            file.write('{"images": [')
            yield _lister(file), _lister(rest)
            rest.seek(0)
            file.write('\n], "annotations": [')
            shutil.copyfileobj(rest, file)
            file.write(f'\n], "categories": {json.dumps(list(categories))}}}\n')
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _lister(file: TextIO) -> Write:
    """What writes the records of a JSON list, one a line."""
    begin = "\n"

    def write(record: Json) -> None:
        nonlocal begin
        file.write(begin + json.dumps(record, allow_nan=False))
        begin = ",\n"

    return write
