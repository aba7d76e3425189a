"""`roiseg snap IMAGE`: one image with its boxes, to a picture and a JSON."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roiseg.errors import BoxError, ImageReadError, UnwritableError
from roiseg.evaluate.overlays import write_png
from roiseg.files import write_json
from roiseg.geometry import Floats, xywh_to_xyxy
from roiseg.predict.frames import Fault, read_ahead
from roiseg.predict.sources import Source
from roiseg.snap.document import document, snapped_values
from roiseg.snap.drawing import draw_snapped
from roiseg.snap.snapper import SnappedBox, Snapper


@dataclass(frozen=True)
class SnappedPicture:
    """What was found and written.

    Attributes:
        boxes: in the order in which they were given.
        picture: PNG.
        json: of all that is known of each box.
    """

    boxes: Sequence[SnappedBox]
    picture: Path
    json: Path

    def lines(self) -> list[str]:
        """A line for each box, and the files."""
        return [*(_line(box) for box in self.boxes), f"{self.picture}, {self.json}"]


def _line(box: SnappedBox) -> str:
    told = snapped_values(box)
    rough, snapped = (",".join(f"{item:g}" for item in told[name]) for name in ("rough", "box"))
    notes = [" clipped to the image"] if box.clipped else []
    notes += [f" {' '.join(told['kept'])} kept"] if told["kept"] else []
    notes += [f" {' '.join(told['review'])} to be reviewed"] if told["review"] else []
    return f"{rough} -> {snapped}{';' if notes else ''}{','.join(notes)}"


def parse_boxes(texts: Sequence[str]) -> Floats:
    """Boxes as typed, (R, 4) xyxy in the image frame.

    Args:
        texts: `left,top,width,height` each.

    Raises:
        BoxError: not four finite numbers, or no width or height.
    """
    return xywh_to_xyxy(np.array([_numbers(text) for text in texts], dtype=np.float64).reshape(-1, 4))


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(item) for item in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(item) for item in numbers):
        raise BoxError(f"--box {text!r}: expected four finite numbers, left,top,width,height in pixels, such as 10,20,300,150")
    if min(numbers[2:]) <= 0:
        raise BoxError(
            f"--box {text!r}: width {numbers[2]:g}, height {numbers[3]:g}, expected more than 0; is it in another order?"
        )
    return numbers


def snap_picture(snapper: Snapper, image: Path, boxes_image: Floats, out: Path) -> SnappedPicture:
    """Snap boxes in an image file; write `{name}.snapped.png` and `{name}.snapped.json` into a folder.

    Args:
        snapper: what snaps.
        image: its file.
        boxes_image: (R, 4) xyxy, image frame.
        out: folder; files of the same names are replaced.

    Raises:
        MissingImageError, ImageReadError: the image can't be read.
        BoxError: a box lies outside the image.
        UnwritableError: an output can't be written.
    """
    source = Source(image, image.name, image.stem)
    if source.is_video:
        raise ImageReadError(f"{image}: a video, expected an image; take the frame that is meant out of it")
    (picture,) = read_ahead([source], 1, 1)
    if isinstance(picture, Fault):
        raise picture.error
    (encoded,) = snapper.encode([picture.pixels])
    boxes = snapper.snap_encoded(encoded, boxes_image, str(image))
    drawn, told = out / f"{image.stem}.snapped.png", out / f"{image.stem}.snapped.json"
    try:
        write_png(drawn, draw_snapped(picture.pixels, boxes))
        write_json(told, document(image.name, encoded.image_hw, boxes))
    except OSError as error:
        raise UnwritableError(
            f"--out {out}: can't be written ({error.strerror or error}), expected room in a folder of yours; give another --out"
        ) from error
    return SnappedPicture(boxes, drawn, told)
