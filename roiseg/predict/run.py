"""`roiseg predict`: pictures in, masks out, and what went wrong with one of them told without stopping the rest.

Threads decode ahead, the models run in between, one thread draws, encodes and writes behind. What waits is a few pictures.
"""

import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from roiseg.errors import BoxError, GraphError, PredictionError, RoisegError, UnwritableError
from roiseg.predict.boxes import Asked, BoxTable
from roiseg.predict.encoder import Encoded
from roiseg.predict.frames import Fault, Frame, count_frames, read_ahead
from roiseg.predict.given import pixel_boxes
from roiseg.predict.outputs import Found, Outputs, Wanted
from roiseg.predict.person import PersonMask
from roiseg.predict.predictor import Predictor
from roiseg.predict.snapping import Snapping
from roiseg.predict.sources import Source
from roiseg.progress import Ticker, progress

logger = logging.getLogger(__name__)

WRITES_AHEAD = 2
"""Pictures that wait for the writer."""

MOST_THREADS = 8
"""Decoding threads at most; more wait for each other, and each holds a picture."""

MAX_SHOWN = 8
"""Failed files that the last message spells out."""


@dataclass
class Summary:
    """What a run did.

    Attributes:
        pictures: images and frames whose masks are written.
        people: masks that are written.
        faults: how many images, frames and videos couldn't be used.
        files: how many files they are of.
        failed: the first of these files.
    """

    pictures: int = 0
    people: int = 0
    faults: int = 0
    files: int = 0
    failed: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.pictures} images, {self.people} masks"
        if not self.faults:
            return text
        more = f" and {self.files - len(self.failed)} more files" if self.files > len(self.failed) else ""
        return f"{text}; {self.faults} failed: {', '.join(str(path) for path in self.failed)}{more}"


@dataclass
class Run:
    """One run over some sources.

    Attributes:
        predictor: backbone and head.
        boxes: whose masks are wanted; None: of everybody that the detector finds.
        batch: pictures that go through the backbone together.
        wanted: what is written.
        out: folder for it; files of the same names are replaced.
        snapping: what snaps the boxes first; None: they stay as they are.
    """

    predictor: Predictor
    boxes: BoxTable | None
    batch: int
    wanted: Wanted
    out: Path
    snapping: Snapping | None = None

    def __post_init__(self) -> None:
        self._summary = Summary()
        self._number = 0
        self._failed: Source | None = None
        self._ids: Sequence[int] = ()

    def __call__(self, sources: Sequence[Source]) -> Summary:
        """Predict on all sources in order.

        Raises:
            BoxError: the boxes don't tell the sources apart.
            GraphError: the detector's boxes are wanted, and the export has none.
            UnwritableError: an output can't be written.
        """
        if self.boxes is not None:
            self.boxes.check(sources)
        elif not self.predictor.has_detector:
            raise GraphError(
                "--boxes detector: the exported backbone gives no boxes; set extractor.detections in params.yaml and run "
                "`dvc repro export`, or give --boxes a CSV or COCO JSON"
            )
        self._ids = named_ids(sources)
        try:
            self._predict(sources)
        except OSError as error:
            if isinstance(error, RoisegError):
                raise
            raise UnwritableError(
                f"--out {self.out}: can't be written ({error.strerror or error}), expected room in a folder of yours; "
                "free the disk, or give another --out"
            ) from error
        return self._summary

    def _predict(self, sources: Sequence[Source]) -> None:
        threads = min(os.cpu_count() or 1, MOST_THREADS)
        category_id = 1 if self.boxes is None else self.boxes.category_id
        writing: deque[Future[None]] = deque()
        with (
            progress("predict", count_frames(sources)) as tick,
            Outputs(self.out, self.wanted, category_id) as outputs,
            ThreadPoolExecutor(1) as writer,
        ):
            for found in self._find(read_ahead(sources, threads, self.batch + threads), tick):
                writing.append(writer.submit(outputs, found))
                self._summary.pictures += 1
                self._summary.people += len(found.people)
                while len(writing) > WRITES_AHEAD:
                    writing.popleft().result()
            while writing:
                writing.popleft().result()

    def _find(self, items: Iterator[Frame | Fault], tick: Ticker) -> Iterator[Found]:
        """The people of every picture that can be used."""
        waiting: list[tuple[Frame, int, Asked | None]] = []
        for item in items:
            self._number += 1
            if isinstance(item, Fault):
                self._fail(item.source, item.error)
            else:
                waiting += self._ask(item)
            if len(waiting) == self.batch:
                yield from self._batch(waiting)
                waiting = []
            tick()
        yield from self._batch(waiting)

    def _ask(self, frame: Frame) -> list[tuple[Frame, int, Asked | None]]:
        """A picture with its id and boxes; nothing where it has none."""
        number = self._ids[self._number - 1] if self._ids else self._number
        if self.boxes is None:
            return [(frame, number, None)]
        try:
            asked = self.boxes.of(frame.source, frame.number)
        except BoxError as error:
            self._fail(frame.source, error)
            return []
        return [(frame, self.boxes.image_id(frame.source, number), asked)]

    def _batch(self, waiting: Sequence[tuple[Frame, int, Asked | None]]) -> Iterator[Found]:
        wanted = [item for item in waiting if item[2] is None or len(item[2].boxes)]
        encoded = iter(self.predictor.encode([frame.pixels for frame, _, _ in wanted]) if wanted else ())
        for frame, image_id, asked in waiting:
            if asked is not None and not len(asked.boxes):
                yield Found(frame, image_id, [], [])
                continue
            try:
                people, scores = self._people(frame, next(encoded), asked)
            except (BoxError, PredictionError) as error:
                self._fail(frame.source, error)
                continue
            yield Found(frame, image_id, people, scores)

    def _people(self, frame: Frame, encoded: Encoded, asked: Asked | None) -> tuple[list[PersonMask], list[float]]:
        """Masks and confidences: how sure the head is of the mask, times how sure whoever made the box was of the person."""
        if asked is None or self.boxes is None:
            detections = self.predictor.detect(encoded)
            boxes, scores = detections.boxes_image, detections.scores
        else:
            boxes = pixel_boxes(asked.boxes, encoded.image_hw, self.boxes.box_format, self.boxes.frame, frame.what)
            scores = asked.scores
        if self.snapping is not None:
            boxes = self.snapping(encoded, frame.pixels, boxes, frame.what)
        people = self.predictor.masks(encoded, boxes, frame.what)
        return people, [person.score * float(score) for person, score in zip(people, np.asarray(scores), strict=True)]

    def _fail(self, source: Source, error: RoisegError) -> None:
        """Tell of a picture that couldn't be used, and go on."""
        self._summary.faults += 1
        # The frames of a video mostly fail alike: the first speaks for all.
        if source is self._failed:
            return
        self._failed = source
        logger.error("%s: %s", type(error).__name__, error)
        self._summary.files += 1
        if len(self._summary.failed) < MAX_SHOWN:
            self._summary.failed.append(source.path)


def named_ids(sources: Sequence[Source]) -> list[int]:
    """COCO's ids of images whose files are named by them, such as `000000000139.jpg`; none where one isn't, or two are alike."""
    if not all(source.path.stem.isdecimal() and not source.is_video for source in sources):
        return []
    ids = [int(source.path.stem) for source in sources]
    return ids if len(set(ids)) == len(ids) else []
