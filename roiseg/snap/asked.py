"""What a find-and-snap request asks: an image, rough boxes, and optionally how much around them is looked at."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from roiseg.errors import RequestError
from roiseg.geometry import Floats, check_boxes, xywh_to_xyxy
from roiseg.snap.bodies import Form
from roiseg.snap.limits import Limits
from roiseg.snap.pictures import FolderPicture, ImageFolder, Picture, SentPicture, image_hw

Finite = Annotated[float, Field(allow_inf_nan=False)]
Box = tuple[Finite, Finite, Finite, Finite]
Buffer = Annotated[float, Field(ge=1, le=4, allow_inf_nan=False)]
"""Width and height of what is looked at over those of the box; the range that `snapper.data.buffer` has."""

SHOWN_FAULTS = 5

Model = TypeVar("Model")


class SnapBody(BaseModel):
    """JSON body of `POST /v1/snap`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    boxes: list[Box] = Field(description="Rough boxes: left, top, width, height in pixels of the image.", min_length=1)
    image: str | None = Field(default=None, description="The encoded image in base64; or `path`.")
    path: str | None = Field(default=None, description="An image of the served folder, relative to it; or `image`.")
    buffer: Buffer | None = Field(
        default=None, description="Of the boxes' size, how much is looked at; that of the model without it."
    )


BODY = TypeAdapter(SnapBody)
BOXES = TypeAdapter(Annotated[list[Box], Field(min_length=1, strict=True)])
BUFFER = TypeAdapter(Buffer)

FORM_SCHEMA = {
    "type": "object",
    "properties": {
        "image": {"type": "string", "format": "binary"},
        "path": {"type": "string"},
        "boxes": {"type": "string", "description": "JSON: [[left, top, width, height], ...]"},
        "buffer": {"type": "number"},
    },
    "required": ["boxes"],
}
"""The form of `POST /v1/snap` in OpenAPI's words; that of JSON is pydantic's."""


@dataclass(frozen=True)
class Asked:
    """A checked request.

    Attributes:
        picture: the image, not decoded.
        boxes_image: (R, 4) xyxy, image frame.
        buffer: None for that of the model.
    """

    picture: Picture
    boxes_image: Floats
    buffer: float | None


def parse(adapter: TypeAdapter[Model], text: bytes | str, what: str) -> Model:
    """JSON as what is expected of it.

    Args:
        adapter: what is expected.
        text: JSON.
        what: what to call it in messages.

    Raises:
        RequestError: not JSON, or something else; names the places, never repeats what is there.
    """
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{_place(item['loc'])}{item['msg']}" for item in faults[:SHOWN_FAULTS]]
    more = f"; and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
    if faults[0]["type"] == "json_invalid":
        raise RequestError(f"{what}: {lines[0][:200]}; expected JSON in UTF-8", status=400, code="json")
    raise RequestError(f"{what}: {'; '.join(lines)}{more}", code="invalid")


def read_asked(body: bytes | Form, folder: ImageFolder | None, limits: Limits) -> Asked:
    """Check a request as far as can be done without decoding its image.

    Raises:
        RequestError: something of it can't be used.
        BoxError: a box outside of the image.
    """
    if isinstance(body, Form):
        image, path, boxes, buffer = _of_form(body)
    else:
        found = parse(BODY, body, "body")
        image = None if found.image is None else decode_base64(found.image, "image")
        path, boxes, buffer = found.path, found.boxes, found.buffer
    if len(boxes) > limits.boxes:
        raise RequestError(f"boxes: {len(boxes)}, expected at most {limits.boxes}; ask in parts", status=413, code="too_many_boxes")
    if (image is None) == (path is None):
        raise RequestError(f"{'neither' if image is None else 'both'} image and path given, expected one of them", code="invalid")
    picture: Picture = SentPicture(image) if image is not None else folder_picture(folder, path or "")
    return Asked(picture, _corners(boxes, picture, limits), buffer)


def folder_picture(folder: ImageFolder | None, path: str) -> FolderPicture:
    """An image of the served folder.

    Raises:
        RequestError: none is served.
    """
    if folder is None:
        raise RequestError(
            f"path {path[:200]!r}: no folder of images is served; send the image itself, or start the service with --images",
            status=403,
            code="path",
        )
    return FolderPicture(folder, path)


def decode_base64(text: str, what: str) -> bytes:
    """Bytes of base64, with or without line ends.

    Raises:
        RequestError: it isn't base64.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{what}: no base64 ({error}); expected the encoded file, not pixels", code="base64") from error


def _of_form(form: Form) -> tuple[bytes | None, str | None, Sequence[Box], float | None]:
    """Image, path, boxes and buffer of a form."""
    if "boxes" not in form.fields:
        raise RequestError("form field 'boxes' is missing, expected JSON such as [[10, 20, 30, 40]]", code="form")
    boxes = parse(BOXES, form.fields["boxes"], "form field 'boxes'")
    buffer = parse(BUFFER, form.fields["buffer"], "form field 'buffer'") if "buffer" in form.fields else None
    return form.image, form.fields.get("path"), boxes, buffer


def _corners(boxes: Sequence[Box], picture: Picture, limits: Limits) -> Floats:
    """Boxes (R, 4) xyxy, image frame.

    Raises:
        RequestError: a box without an area, or an image that can't be used.
        BoxError: a box outside of the image.
    """
    for number, (left, top, width, height) in enumerate(boxes):
        if width <= 0 or height <= 0:
            raise RequestError(
                f"boxes: box {number} is ({left:g}, {top:g}, {width:g}, {height:g}), expected left, top, width > 0, height > 0",
                code="box",
            )
    with np.errstate(over="ignore"):
        corners = xywh_to_xyxy(np.array(boxes, dtype=np.float64))
    check_boxes(corners, image_hw(picture, limits), "boxes")
    return corners


def _place(location: Sequence[Any]) -> str:
    """`boxes.0.2: `; nothing for the whole."""
    return f"{'.'.join(str(part)[:40] for part in location[:6])}: " if location else ""
