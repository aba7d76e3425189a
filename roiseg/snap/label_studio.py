"""Label Studio's ML backend protocol: tasks with drawn rectangles in, the same rectangles snapped out.

The shapes are those of https://labelstud.io/guide/ml_create and https://labelstud.io/guide/predictions: sizes are percent of the
image, and a rectangle keeps its id, so that it takes the place of the drawn one.
"""

import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from roiseg.errors import RequestError
from roiseg.geometry import Floats, xywh_to_xyxy, xyxy_to_xywh
from roiseg.snap.asked import Finite, decode_base64, folder_picture, parse
from roiseg.snap.limits import Limits
from roiseg.snap.pictures import ImageFolder, Picture, SentPicture, image_hw, read_pixels
from roiseg.snap.snapper import SnappedBox, edge_names
from roiseg.snap.snapping import Snaps, edge_confidences
from roiseg.types import HW

LOCAL_FILES = "/data/local-files/"
RECTANGLES = ("rectanglelabels", "rectangle")
PERCENT = 100.0

Region = Mapping[str, Any]


class _Marks(BaseModel):
    """An annotation, a draft or a prediction, as far as it matters here."""

    model_config = ConfigDict(extra="ignore")

    result: list[dict[str, Any]] | None = None
    was_cancelled: bool | None = False


class _Task(BaseModel):
    model_config = ConfigDict(extra="ignore")

    data: dict[str, Any]
    annotations: list[_Marks] | None = None
    drafts: list[_Marks] | None = None
    predictions: list[_Marks] | None = None


class _Params(BaseModel):
    model_config = ConfigDict(extra="ignore")

    context: _Marks | None = None


class PredictBody(BaseModel):
    """JSON body of `POST /predict`; other keys are Label Studio's own."""

    model_config = ConfigDict(extra="ignore")

    tasks: list[_Task] = Field(min_length=1)
    params: _Params | None = None


class _Value(BaseModel):
    model_config = ConfigDict(extra="ignore")

    x: Finite
    y: Finite
    width: Finite
    height: Finite
    rotation: Finite | None = 0.0


class _Rectangle(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: str
    from_name: str
    to_name: str
    value: _Value
    image_rotation: Finite | None = 0.0
    original_width: int | None = None
    original_height: int | None = None


BODY = TypeAdapter(PredictBody)
RECTANGLE = TypeAdapter(_Rectangle)


@dataclass(frozen=True)
class Page:
    """One task: an image and what is drawn on it.

    Attributes:
        picture: the image, not decoded.
        regions: rectangles as they came.
        boxes_image: (R, 4) xyxy of those that are snapped.
        places: (R,) which regions they are.
        image_hw: size of the image.
    """

    picture: Picture
    regions: Sequence[Region]
    boxes_image: Floats
    places: Sequence[int]
    image_hw: HW


def read_pages(body: bytes, folder: ImageFolder | None, limits: Limits) -> list[Page]:
    """Check a request as far as can be done without decoding images.

    Raises:
        RequestError: something of it can't be used; names the task.
    """
    asked = parse(BODY, body, "body")
    pages = []
    for number, task in enumerate(asked.tasks):
        # What an annotator draws right now is sent beside the task, and is of the only one.
        context = asked.params.context if asked.params is not None and len(asked.tasks) == 1 else None
        try:
            pages.append(_page(task, context, folder, limits))
        except RequestError as error:
            raise RequestError(f"tasks.{number}: {error}", status=error.status, code=error.code, retry_s=error.retry_s) from error
    boxes = sum(len(page.places) for page in pages)
    if boxes > limits.boxes or len(pages) > limits.boxes:
        raise RequestError(
            f"tasks: {len(pages)} with {boxes} rectangles, expected at most {limits.boxes} of either; lower the batch size",
            status=413,
            code="too_many_boxes",
        )
    return pages


def predict(pages: Sequence[Page], snapper: Snaps, limits: Limits, version: str) -> dict[str, Any]:
    """Snap what is drawn; one image at a time is decoded.

    Args:
        pages: the tasks.
        snapper: the model.
        limits: of an image.
        version: of the model, which Label Studio shows.

    Returns:
        Label Studio's answer: `results`, one for each task.
    """
    return {"results": [_prediction(page, snapper, limits, version) for page in pages]}


def _prediction(page: Page, snapper: Snaps, limits: Limits, version: str) -> dict[str, Any]:
    """A task's rectangles, those that aren't snapped as they came."""
    result = [dict(region) for region in page.regions]
    found: dict[str, Any] = {"model_version": version, "result": result}
    if page.places:
        (encoded,) = snapper.encode([read_pixels(page.picture, limits)])
        snapped = snapper.snap_encoded(encoded, page.boxes_image, "rectangles")
        for place, box in zip(page.places, snapped, strict=True):
            result[place] = _moved(page.regions[place], box, page.image_hw)
        found["score"] = min(result[place]["score"] for place in page.places)
    return found


def _moved(region: Region, box: SnappedBox, hw: HW) -> dict[str, Any]:
    """A rectangle at its snapped place; how sure each edge is, is shown beside it as its `meta.text`."""
    shares = np.asarray(box.box_image, dtype=np.float64) / np.array([hw[1], hw[0]] * 2) * PERCENT
    left, top, width, height = xyxy_to_xywh(shares[None])[0].tolist()
    confidences, review = edge_confidences(box), edge_names(box.review)
    text = ", ".join(f"{edge} {value:.2f}{' (review)' if edge in review else ''}" for edge, value in confidences.items())
    return {
        **region,
        "original_width": hw[1],
        "original_height": hw[0],
        "image_rotation": 0,
        "value": {**region["value"], "x": left, "y": top, "width": width, "height": height, "rotation": 0},
        "score": min(confidences.values()),
        "meta": {"text": [text], "confidences": confidences, "kept": edge_names(box.kept), "review": review},
    }


def _page(task: _Task, context: _Marks | None, folder: ImageFolder | None, limits: Limits) -> Page:
    picture = _picture(task.data, folder)
    hw = image_hw(picture, limits)
    regions: list[Region] = []
    boxes, places = [], []
    for region in _drawn(task, context):
        box = _box(region, hw, len(regions))
        if box is not None:
            places.append(len(regions))
            boxes.append(box)
        regions.append(region)
    return Page(picture, regions, np.array(boxes, dtype=np.float64).reshape(-1, 4), places, hw)


def _picture(data: Mapping[str, Any], folder: ImageFolder | None) -> Picture:
    """The image of a task, which is called `image`, or is all that there is.

    Raises:
        RequestError: there is none, or it lies elsewhere. Nothing is ever fetched.
    """
    value = data.get("image") if "image" in data or len(data) != 1 else next(iter(data.values()))
    if not isinstance(value, str):
        raise RequestError("data has no text 'image', expected a local file's URL or a data URI", code="invalid")
    if value.startswith("data:"):
        head, comma, text = value.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RequestError("data.image is a data URI without base64, expected 'data:image/png;base64,...'", code="base64")
        return SentPicture(decode_base64(text, "data.image"), "data.image")
    try:
        url = urllib.parse.urlsplit(value)
        paths = urllib.parse.parse_qs(url.query, max_num_fields=8).get("d", [])
    except ValueError as error:
        raise RequestError("data.image is no URL that can be read", code="invalid") from error
    if url.scheme or url.netloc or url.path != LOCAL_FILES or len(paths) != 1:
        raise RequestError(
            f"data.image is {value[:120]!r}, expected '{LOCAL_FILES}?d=PATH' or a base64 data URI; nothing is fetched: "
            "use Label Studio's local storage, and start the service with --images of its document root",
            code="path",
        )
    return folder_picture(folder, paths[0])


def _drawn(task: _Task, context: _Marks | None) -> Iterator[Region]:
    """Rectangles of the freshest place that has any: what is being drawn, drafts, annotations, predictions; the last of each."""
    for marks in ([context] if context else [], task.drafts, task.annotations, task.predictions):
        for mark in reversed(marks or []):
            found = [item for item in mark.result or [] if item.get("type") in RECTANGLES]
            if found and not mark.was_cancelled:
                yield from found
                return


def _box(region: Region, hw: HW, number: int) -> list[float] | None:
    """The box (4,) of a rectangle, xyxy in the image frame; None where it must stay as it is.

    That is one that is turned, that was drawn on a picture of another size (Label Studio shows EXIF rotation, which isn't applied
    here), that has no area, or that lies outside of the image.

    Raises:
        RequestError: not a rectangle as Label Studio writes them.
    """
    try:
        found = RECTANGLE.validate_python(region)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part)[:40] for part in fault["loc"])
        raise RequestError(f"rectangle {number}: {place}: {fault['msg']}", code="invalid") from error
    height, width = hw
    if found.value.rotation or found.image_rotation:
        return None
    if (found.original_width or width, found.original_height or height) != (width, height):
        return None
    value = found.value
    with np.errstate(over="ignore", invalid="ignore"):
        shares = xywh_to_xyxy(np.array([[value.x, value.y, value.width, value.height]])) / PERCENT
        x0, y0, x1, y1 = (shares[0] * np.array([width, height] * 2)).tolist()
    usable = np.isfinite([x0, y0, x1, y1]).all() and x0 < x1 and y0 < y1 and x1 > 0 and y1 > 0 and x0 < width and y0 < height
    return [x0, y0, x1, y1] if usable else None
