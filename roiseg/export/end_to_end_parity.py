"""Does the one file say what its parts say, one after the other?

Symbols: N images, R people of an image, (H, W) its pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from roiseg.classes import Bools
from roiseg.errors import ParityError
from roiseg.export.end_to_end import IMAGES, NETWORK_IMAGES
from roiseg.geometry import Floats
from roiseg.network_input import InputRule, Pixels, as_input, network_image
from roiseg.onnx_names import BOXES, OUTPUT
from roiseg.runtime import make_session

LARGEST_SHARE = 1e-4
"""Of an image's pixels that may belong to somebody else: sums of float32 in another order move an outline by as little."""

Encoded = TypeVar("Encoded")


class Person(Protocol):
    """One person found."""

    @property
    def mask(self) -> Bools:
        """(H, W)."""
        ...


class Found(Protocol):
    """The detector's own people of an image."""

    @property
    def boxes_image(self) -> Floats:
        """(R, 4) xyxy, image frame."""
        ...


class Steps(Protocol[Encoded]):
    """The parts one after the other: `roiseg.predict.Predictor`, which lies above this module."""

    def encode(self, images: Sequence[Pixels]) -> Sequence[Encoded]:
        """Run the backbone."""
        ...

    def detect(self, encoded: Encoded) -> Found:
        """The detector's people."""
        ...

    def masks(self, encoded: Encoded, boxes_image: Floats) -> Sequence[Person]:
        """The masks of people in boxes (R, 4) xyxy, image frame."""
        ...


def end_to_end_parity(
    path: Path, steps: Steps[Encoded], rule: InputRule, images: Sequence[Pixels], boxes_image: Sequence[Floats]
) -> float:
    """Share of pixels of which the file and the single steps don't say the same.

    Memory: the masks of one image.

    Args:
        path: a file of `export_end_to_end`; which of the graphs it is, is read from its inputs.
        steps: the same backbone, head and filter, step by step.
        rule: how images become network inputs.
        images: each (H, W, 3) uint8, BGR.
        boxes_image: (R, 4) xyxy of each; not looked at where the file takes the detector's.

    Raises:
        ParityError: the share is above `LARGEST_SHARE`, or there are other people.
    """
    session, _ = make_session(path, "cpu", "float32", whole=False)
    inputs = {item.name: item for item in session.get_inputs()}
    differing = total = 0
    for number, (pixels, given) in enumerate(zip(images, boxes_image, strict=True)):
        shown, boxes = (pixels, given) if NETWORK_IMAGES not in inputs else _as_network(pixels, given, rule)
        (encoded,) = steps.encode([shown])
        boxes = boxes.astype(np.float32).astype(np.float64) if BOXES in inputs else steps.detect(encoded).boxes_image
        got = _run(session, shown, boxes if BOXES in inputs else None, rule)
        people = steps.masks(encoded, boxes)
        if len(got) != len(people):
            raise ParityError(
                f"{path}: finds {len(got)} people in image {number}, the single steps find {len(people)}; "
                "were they exported from the same backbone?"
            )
        unlike = np.zeros(shown.shape[:2], dtype=bool)
        for mine, person in zip(got, people, strict=True):
            unlike |= mine.astype(bool) != person.mask
        differing += int(np.count_nonzero(unlike))
        total += unlike.size
    share = differing / total if total else 0.0
    if share > LARGEST_SHARE:
        raise ParityError(
            f"{path}: {share:.3g} of the pixels of {len(images)} images differ from the single steps, expected at most "
            f"{LARGEST_SHARE:g}; is this onnxruntime, or OpenCV, the version that roiseg pins?"
        )
    return share


def _as_network(pixels: Pixels, boxes_image: Floats, rule: InputRule) -> tuple[Pixels, Floats]:
    """The network input as an image, which `network_image` then leaves as it is, and boxes in its pixels."""
    planes = network_image(pixels, rule)
    shown = np.ascontiguousarray((planes if rule.color == "bgr" else planes[::-1]).transpose(1, 2, 0))
    height, width = rule.hw
    boxes = rule.resizing((pixels.shape[0], pixels.shape[1])).boxes_to_unit(boxes_image) * np.array([width, height] * 2)
    return shown, np.asarray(boxes, dtype=np.float64)


def _run(session: onnxruntime.InferenceSession, pixels: Pixels, boxes: Floats | None, rule: InputRule) -> NDArray[np.uint8]:
    """Masks (R, H, W) of one image, which is repeated where the file takes batches of one size."""
    image = session.get_inputs()[0]
    one = pixels if image.name == IMAGES else as_input(network_image(pixels, rule), rule)
    count = image.shape[0] if isinstance(image.shape[0], int) else 1
    feeds: dict[str, NDArray[np.generic]] = {image.name: np.repeat(one[None], count, axis=0)}
    if boxes is not None:
        feeds[BOXES] = np.concatenate([np.zeros((len(boxes), 1)), boxes], axis=1).astype(np.float32)
        (masks,) = session.run([OUTPUT], feeds)
        return np.asarray(masks)
    masks, found = session.run([OUTPUT, BOXES], feeds)
    return np.asarray(masks[found[:, 0] == 0])
