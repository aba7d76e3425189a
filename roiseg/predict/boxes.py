"""Whose masks are wanted: boxes as typed, of a CSV, or of a COCO file, and which of them belong to which picture."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from roiseg.errors import BoxError
from roiseg.evaluate.results import read_results
from roiseg.geometry import Floats
from roiseg.predict.given import BoxFormat, BoxFrame
from roiseg.predict.sources import Source

COLUMNS: Mapping[str, tuple[str, ...]] = {"xyxy": ("x0", "y0", "x1", "y1"), "cxcywh": ("cx", "cy", "w", "h")}
"""Columns of a CSV that hold a box of each format."""

DETECTOR = "detector"
"""What is typed for the boxes that the detector finds."""

PERSON = "person"
"""Category whose boxes are taken from a COCO file that has it; from any other file all boxes are."""

MAX_SHOWN = 5
"""Names that a message spells out."""

Row = tuple[list[float], float]
"""Four numbers, and the box's own score."""


@dataclass(frozen=True)
class Asked:
    """The boxes of one picture.

    Attributes:
        boxes: (R, 4), in the format and frame of the table that they come from.
        scores: (R,), how sure their maker was of each; 1 where it didn't say.
    """

    boxes: Floats
    scores: Floats


@dataclass(frozen=True)
class BoxTable:
    """All boxes that were given.

    Attributes:
        what: where they come from, for messages.
        box_format: what the four numbers are.
        frame: what they count: pixels of the picture, or shares of its width and height.
        rows: file name as given -> frame number, None for images -> boxes; None for a name: of every picture.
        image_ids: file name as given -> COCO's id, where all have one.
        category_id: COCO's id of the people.
    """

    what: str
    box_format: BoxFormat
    frame: BoxFrame
    rows: Mapping[str | None, Mapping[int | None, Sequence[Row]]]
    image_ids: Mapping[str, int] = field(default_factory=dict)
    category_id: int = 1

    def check(self, sources: Sequence[Source]) -> None:
        """See that no two sources would take the same boxes.

        Raises:
            BoxError: typed boxes with several sources, or a file name that fits several.
        """
        if None in self.rows:
            if len(sources) != 1:
                raise BoxError(
                    f"{self.what}: typed boxes go with one image or video, got {len(sources)}; give a CSV or COCO JSON for several"
                )
            return
        taken: dict[str, Source] = {}
        for source in sources:
            name = self.name_of(source)
            if name is not None and taken.setdefault(name, source) is not source:
                raise BoxError(
                    f"{self.what}: the boxes of {name!r} fit {taken[name].path} and {source.path}; "
                    "expected one image for each name, so write the folders into the file's names or predict one folder at a time"
                )

    def name_of(self, source: Source) -> str | None:
        """What the table calls a source: the longest end of its path that it knows, or COCO's id that the file is named by."""
        parts = source.path.parts
        names = [PurePath(*parts[start:]).as_posix() for start in range(len(parts))]
        if source.path.stem.isdecimal():
            names.append(numbered(int(source.path.stem)))
        return next((name for name in names if name in self.rows), None)

    def of(self, source: Source, number: int | None) -> Asked:
        """Boxes of an image, or of a frame of a video.

        Raises:
            BoxError: it isn't in the table. An image of the table without boxes, or a frame, has nobody in it.
        """
        name = None if None in self.rows else self.name_of(source)
        if name is None and None not in self.rows:
            shown = ", ".join(repr(item) for item in list(self.rows)[:MAX_SHOWN])
            raise BoxError(f"{source.path}: {self.what} has no boxes for it, only for {shown or 'nothing'}; add it or leave it out")
        frames = self.rows[name]
        if name is not None and frames and (number is None) != (None in frames):
            kind = "an image, but its rows have frame numbers" if number is None else "a video, but its rows have no frame number"
            raise BoxError(f"{source.path}: {kind} in {self.what}; videos take boxes from a CSV with a column 'frame'")
        found = frames.get(None if name is None else number, ())
        boxes = np.array([box for box, _ in found], dtype=np.float64).reshape(-1, 4)
        return Asked(boxes, np.array([score for _, score in found], dtype=np.float64))

    def image_id(self, source: Source, number: int) -> int:
        """COCO's id of an image, or `number` where the boxes come without ids."""
        return self.image_ids.get(self.name_of(source) or "", number)


def numbered(image_id: int) -> str:
    """What a table calls an image of which it knows only the id."""
    return f"image_id {image_id}"


def choose_boxes(text: str, box_format: BoxFormat | None, frame: BoxFrame | None) -> BoxTable | None:
    """What `read_boxes` reads, or None where the detector's own boxes are wanted.

    Raises:
        BoxError, ResultsError: see `read_boxes`; or a format for boxes that have their own.
    """
    if text != DETECTOR:
        return read_boxes(text, box_format, frame)
    if box_format is not None or frame is not None:
        raise BoxError("--boxes detector: the detector's boxes have their own format; leave --format and --frame out")
    return None


def read_boxes(text: str, box_format: BoxFormat | None, frame: BoxFrame | None) -> BoxTable:
    """Boxes as typed, or of a file.

    Args:
        text: `a,b,c,d;...`, or a CSV, or a JSON of COCO annotations or results.
        box_format: of typed boxes and CSVs; None: xyxy.
        frame: of typed boxes and CSVs; None: pixels.

    Raises:
        BoxError, ResultsError: can't be read; naming the place in the file.
    """
    path = Path(text)
    if path.suffix.lower() not in (".json", ".csv"):
        what = f"--boxes {text!r}"
        return BoxTable(what, box_format or "xyxy", frame or "pixels", {None: {None: list(_typed(text, what))}})
    if not path.is_file():
        raise BoxError(f"--boxes {path}: no such file; correct the path")
    if path.suffix.lower() == ".csv":
        return _read_csv(path, box_format or "xyxy", frame or "pixels")
    if box_format is not None or frame is not None:
        raise BoxError(f"--boxes {path}: COCO's bbox is always left, top, width, height in pixels; leave --format and --frame out")
    return _read_coco(path)


def _typed(text: str, what: str) -> Iterator[Row]:
    for part in text.split(";"):
        if part.strip():
            yield _numbers(part.split(","), f"{what}, expected 'x0,y0,x1,y1;...' or a .json or .csv file"), 1.0


def _numbers(values: Sequence[object], what: str) -> list[float]:
    """Four finite numbers."""
    try:
        numbers = [float(value) for value in values]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        raise BoxError(f"{what}: {list(values)} isn't a box; expected four finite numbers")
    return numbers


def _score(value: object, what: str) -> float:
    try:
        score = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        score = math.nan
    if not 0 <= score <= 1:
        raise BoxError(f"{what}: score is {value!r}, expected a number from 0 to 1")
    return score


def _read_csv(path: Path, box_format: BoxFormat, frame: BoxFrame) -> BoxTable:
    rows: dict[str | None, dict[int | None, list[Row]]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for name, number, row in _csv_rows(csv.DictReader(file, skipinitialspace=True), path, box_format):
                rows.setdefault(name, {}).setdefault(number, []).append(row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise BoxError(f"--boxes {path}: not a CSV in UTF-8 ({error}); save it as one") from error
    return BoxTable(f"--boxes {path}", box_format, frame, rows)


def _csv_rows(reader: "csv.DictReader[str]", path: Path, box_format: BoxFormat) -> Iterator[tuple[str, int | None, Row]]:
    """File name, frame number and box of each line."""
    columns = COLUMNS[box_format]
    missing = [name for name in ("file_name", *columns) if name not in (reader.fieldnames or ())]
    if missing:
        raise BoxError(
            f"--boxes {path}: no column {', '.join(missing)} in its first line {reader.fieldnames}; expected "
            f"file_name,{','.join(columns)} (--format {box_format}), and optionally score and frame"
        )
    for record in reader:
        line = f"--boxes {path} line {reader.line_num}"
        box = _numbers([record[name] for name in columns], line)
        score = _score(record["score"], line) if record.get("score") else 1.0
        number = _frame_number(record["frame"], line) if record.get("frame") else None
        yield record["file_name"], number, (box, score)


def _frame_number(text: str, what: str) -> int:
    if not text.isdecimal():
        raise BoxError(f"{what}: frame is {text!r}, expected the number of a frame, from 0")
    return int(text)


def _read_coco(path: Path) -> BoxTable:
    """COCO annotations (a record with `images`), or results (a list)."""
    try:
        with path.open(encoding="utf-8") as file:
            is_list = file.read(1 << 10).lstrip().startswith("[")
            file.seek(0)
            return _results(path, read_results(path)) if is_list else _annotations(path, json.load(file))
    except ValueError as error:
        if isinstance(error, BoxError):
            raise
        raise BoxError(f"--boxes {path}: not valid JSON in UTF-8 ({error}); is the file whole?") from error


def _annotations(path: Path, data: Any) -> BoxTable:  # noqa: ANN401 - anything may be in a file
    what = f"--boxes {path}"
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "annotations")):
        raise BoxError(f"{what}: no lists 'images' and 'annotations', expected COCO annotations, or a list of COCO results")
    names = {_field(item, "id", what): str(_field(item, "file_name", what)) for item in data["images"]}
    categories = data.get("categories") or ()
    people = [_field(item, "id", what) for item in categories if _field(item, "name", what) == PERSON]
    chosen = (item for item in data["annotations"] if not people or _field(item, "category_id", what) in people)
    rows: dict[str | None, dict[int | None, list[Row]]] = {name: {} for name in names.values()}
    for item in chosen:
        name = names.get(_field(item, "image_id", what))
        if item.get("iscrowd"):
            continue
        if name is None:
            raise BoxError(f"{what}: annotation {item.get('id')} is of image {item['image_id']!r}, which isn't among its images")
        rows[name].setdefault(None, []).append(_box(item, f"{what}: image {name}"))
    ids = {name: number for number, name in names.items() if isinstance(number, int)}
    return BoxTable(what, "xyxy", "pixels", rows, ids if len(ids) == len(rows) else {}, people[0] if people else 1)


def _results(path: Path, results: Iterable[Mapping[str, Any]]) -> BoxTable:
    what = f"--boxes {path}"
    rows: dict[str | None, dict[int | None, list[Row]]] = {}
    ids: dict[str, int] = {}
    for count, item in enumerate(results):
        name, image_id = item.get("file_name"), item.get("image_id")
        if isinstance(image_id, int):
            key = numbered(image_id) if name is None else str(name)
            ids[key] = image_id
        elif name is None:
            raise BoxError(f"{what}: result {count} has no file_name and no image_id, so no image; add one of them")
        else:
            key = str(name)
        rows.setdefault(key, {}).setdefault(None, []).append(_box(item, f"{what}: result {count}"))
    return BoxTable(what, "xyxy", "pixels", rows, ids if len(ids) == len(rows) == len(set(ids.values())) else {})


def _field(item: Any, key: str, what: str) -> Any:  # noqa: ANN401 - anything may be in a file
    if not isinstance(item, dict) or not isinstance(item.get(key), int | str):
        raise BoxError(f"{what}: {str(item)[:80]} has no {key!r} that is a number or text, expected a COCO record")
    return item[key]


def _box(item: Mapping[str, Any], what: str) -> Row:
    bbox = item.get("bbox")
    left, top, width, height = _numbers(bbox if isinstance(bbox, list) else [bbox], what)
    return [left, top, left + width, top + height], _score(item.get("score", 1.0), what)
