"""From an image and rough boxes to snapped ones, by onnxruntime alone: neither torch nor the training side of roiseg is needed.

Symbols: R boxes, (H, W) size of the image. Edges come in the order of xyxy: `roiseg.snapper.windows.EDGES`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike

from roiseg.classes import Bools
from roiseg.errors import BoxError, GraphError, NoImageError, PredictionError
from roiseg.geometry import Floats, check_boxes, clip_boxes
from roiseg.network_input import Pixels
from roiseg.onnx_names import (
    BACKBONE_FILE,
    BOXES,
    CONFIDENCES,
    METADATA_KEY,
    SNAPPER_FILE,
    WINDOWS,
    feature_input,
)
from roiseg.predict.encoder import Encoded, Encoder, Reading
from roiseg.predict.given import BoxFormat, BoxFrame, pixel_boxes
from roiseg.runtime import make_session, run_model
from roiseg.snapper.policy import Policy
from roiseg.snapper.windows import EDGES, share_to_unit, to_share, windows_around
from roiseg.types import IMAGE, Provider

BOXES_PER_PASS = 16
"""Boxes that go through the model together: crops of 224 pixels in a ResNet take some 30 MiB each."""

LEAST_SIDE = 1e-5
"""Side of a window in the unit frame, below which float32 can't tell places in it: no model is asked about such a sliver."""

NEEDED = ("buffer", "confidence", "fingerprints", "input", "layers", "min_box_px", "scales")
"""What a Snapper's metadata must say."""


@dataclass(frozen=True)
class SnappedBox:
    """One box. All boxes are (4,) xyxy in the image frame, all else in the order left, top, right, bottom.

    Attributes:
        given_image: as it was given.
        rough_image: the same, clipped to the image.
        proposed_image: where the model sees the edges, however sure it is.
        box_image: the answer: proposed edges where the model is sure enough, rough ones elsewhere.
        confidences: (4,) in [0, 1], probability that the proposed edge is right; see `confidence` in the metadata.
        kept: (4,) edges that stay where they were.
        review: (4,) edges that a person should look at.
    """

    given_image: Floats
    rough_image: Floats
    proposed_image: Floats
    box_image: Floats
    confidences: Floats
    kept: Bools
    review: Bools

    @property
    def clipped(self) -> bool:
        """Whether the box as given reached beyond the image."""
        return bool((self.given_image != self.rough_image).any())


@dataclass(frozen=True)
class _Told:
    """What the metadata say of how the model is used.

    Attributes:
        reading: how it reads images.
        buffer: width and height of a window over those of its box.
        min_box_px: the smallest boxes that it learnt on.
        policy: how sure is sure enough.
    """

    reading: Reading
    buffer: float
    min_box_px: float
    policy: Policy

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "_Told":
        """Read metadata; KeyError, TypeError or ValueError where a value isn't what `snapper_export` writes."""
        confidence = metadata["confidence"]
        buffer = float(metadata["buffer"])
        if not 1 <= buffer < np.inf:
            raise ValueError(f"buffer is {buffer:g}")
        policy = Policy(float(confidence["keep_below"]), float(confidence["review_below"]))
        return cls(Reading.of(metadata), buffer, float(metadata["min_box_px"]), policy)


class Snapper:
    """A Snapper as `snapper_export` wrote it, and the backbone beside it where it reads a detector's layers."""

    def __init__(self, path: Path | str, provider: Provider = "auto", *, policy: Policy | None = None) -> None:
        """Open a Snapper.

        Args:
            path: folder such as `models/onnx/snapper`, or a file in it such as `snapper.int8.onnx`.
            provider: where to run.
            policy: how sure is sure enough; None: as params.yaml said at export.

        Raises:
            GraphError: not an exported Snapper, or no backbone of its layers beside it.
            ProviderError: the provider isn't there.
        """
        path = Path(path)
        self.file = path if path.suffix == ".onnx" and not path.is_dir() else path / SNAPPER_FILE
        self._session, self.runtime = make_session(self.file, provider, "float32", whole=False)
        self.metadata = _metadata(self._session, self.file)
        self._told = _told(self.metadata, self.file)
        self.policy = policy or self._told.policy
        self._provider: Provider = provider
        self._encoder: Encoder | None = None
        self._current: Encoded | None = None

    @property
    def reading(self) -> Reading:
        """How it reads images."""
        return self._told.reading

    @property
    def min_box_px(self) -> float:
        """Width and height of the smallest boxes that it learnt on; what it says of smaller ones is a guess."""
        return self._told.min_box_px

    def same_backbone(self, metadata: Mapping[str, Any]) -> bool:
        """Whether the features of another exported model can be its own.

        Args:
            metadata: of that model, such as `Predictor.metadata`.

        Returns:
            Both read images alike, and layers of one cut backbone, or the image only.
        """
        if metadata.get("input") != self.metadata["input"]:
            return False
        own, other = (told.get("fingerprints", {}).get("backbone_sha256") for told in (self.metadata, metadata))
        return set(self.reading.layers) == {IMAGE} or (own is not None and own == other)

    def set_image(self, pixels: Pixels) -> None:
        """Run the backbone on an image, for any number of calls of `snap`.

        Args:
            pixels: (H, W, 3) uint8, BGR.

        Raises:
            PixelsError: not such an array.
            GraphError: see `encode`.
        """
        self._current = None
        (self._current,) = self.encode([pixels])

    def snap(
        self, boxes: ArrayLike, box_format: BoxFormat = "xyxy", frame: BoxFrame = "pixels", *, buffer: float | None = None
    ) -> list[SnappedBox]:
        """Snap boxes in the image that was set.

        Args:
            boxes: (R, 4).
            box_format: two corners, or centre and size.
            frame: `pixels` of the image, or `unit`: shares of its width and height.
            buffer: see `snap_encoded`.

        Returns:
            One for each box, in order; none for no boxes. What reaches beyond the image is clipped to it.

        Raises:
            NoImageError: no image was set.
            BoxError: not finite, without an area, outside the image, or in another frame.
            PredictionError: the model's answers aren't numbers.
        """
        if self._current is None:
            raise NoImageError("snap was called before set_image, expected an image first; call set_image(pixels)")
        boxes_image = pixel_boxes(boxes, self._current.image_hw, box_format, frame, "snap")
        return self._snap(self._current, boxes_image, buffer)

    def encode(self, images: Sequence[Pixels]) -> list[Encoded]:
        """Run the backbone on several images.

        Args:
            images: (H, W, 3) uint8, BGR; sizes may differ.

        Raises:
            PixelsError: one of them isn't such an array.
            GraphError: the backbone isn't there, or hasn't got a layer.
        """
        # Opened late: where a head's features will do, it is never run.
        if self._encoder is None:
            self._encoder = Encoder(self.file.with_name(BACKBONE_FILE), self.file, self._provider, self.reading)
        return self._encoder.encode(images)

    def snap_encoded(
        self, encoded: Encoded, boxes_image: ArrayLike, what: str = "image", *, buffer: float | None = None
    ) -> list[SnappedBox]:
        """Snap boxes in an image that is encoded, by `encode` or by a predictor with the same backbone.

        Args:
            encoded: an image; features that it doesn't read are left aside.
            boxes_image: (R, 4) xyxy, image frame, of any size: here boxes within one pixel aren't taken for shares.
            what: what to call the image in messages.
            buffer: width and height of what is looked at over those of the box (>= 1), in the place of what it learnt with; larger
                finds edges that are further off, but sees them more coarsely, and its confidences were calibrated with its own.

        Returns:
            One for each box, in order.

        Raises:
            BoxError: not finite, without an area, or outside the image.
            GraphError: features of another model.
            PredictionError: the model's answers aren't numbers.
        """
        boxes = np.asarray(boxes_image, dtype=np.float64)
        if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
            raise BoxError(f"{what}: boxes have the shape {list(boxes.shape)}, expected (R, 4), four numbers a box")
        boxes = boxes.reshape(-1, 4)
        check_boxes(boxes, encoded.image_hw, what)
        return self._snap(encoded, boxes, buffer)

    def _snap(self, encoded: Encoded, given: Floats, buffer: float | None) -> list[SnappedBox]:
        """Checked boxes."""
        rough = clip_boxes(given, encoded.image_hw)
        proposed, confidences = self._propose(encoded, rough, self._told.buffer if buffer is None else buffer)
        decided = self.policy.decide(rough, proposed, confidences)
        parts = (given, rough, proposed, decided.boxes_image, confidences, decided.kept, decided.review)
        return [SnappedBox(*values) for values in zip(*parts, strict=True)]

    def _propose(self, encoded: Encoded, rough: Floats, buffer: float) -> tuple[Floats, Floats]:
        """Where the model sees the edges of boxes (R, 4) in the image frame, and how sure it is (R, 4).

        Slivers that the border of the image leaves of a box stay, with a confidence of 0.
        """
        names = [feature_input(name) for name in self.reading.layers]
        missing = [name for name in names if name not in encoded.features]
        if missing:
            raise GraphError(
                f"{self.file}: the encoded image has no {', '.join(missing)}, but {', '.join(sorted(encoded.features))}; expected "
                "what `Snapper.encode` gives, or a predictor that reads its layers too"
            )
        feeds = {name: encoded.features[name] for name in names}
        resize = self.reading.rule.resizing(encoded.image_hw)
        shares = to_share(rough, encoded.image_hw)
        windows = np.concatenate([share_to_unit(boxes, resize) for boxes in (windows_around(shares, buffer), shares)], axis=1)
        seen = np.flatnonzero((windows[:, 2:4] - windows[:, :2] >= LEAST_SIDE).all(axis=1))
        proposed, confidences = rough.copy(), np.zeros_like(rough)
        for start in range(0, len(seen), BOXES_PER_PASS):
            places = seen[start : start + BOXES_PER_PASS]
            part = windows[places]
            numbered = np.concatenate([np.zeros((len(part), 1)), part], axis=1).astype(np.float32)
            boxes, sure = run_model(self._session, self.file, [BOXES, CONFIDENCES], feeds | {WINDOWS: numbered})
            if not (np.isfinite(boxes).all() and np.isfinite(sure).all()):
                raise PredictionError(
                    f"{self.file}: its edges or confidences aren't numbers; take another of its files, such as {SNAPPER_FILE}"
                )
            proposed[places] = clip_boxes(resize.boxes_to_image(boxes.astype(np.float64)), encoded.image_hw)
            confidences[places] = sure
        return proposed, confidences


def _metadata(session: onnxruntime.InferenceSession, path: Path) -> dict[str, Any]:
    """What an exported Snapper says of itself.

    Raises:
        GraphError: the file isn't one.
    """
    expected = f"expected a Snapper that roiseg exported, such as {SNAPPER_FILE}; run `dvc repro snapper_export`"
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise GraphError(f"{path}: has no {METADATA_KEY!r} metadata, {expected}")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise GraphError(f"{path}: its {METADATA_KEY!r} metadata isn't JSON ({error}), {expected}") from error
    if not isinstance(found, dict):
        raise GraphError(f"{path}: its {METADATA_KEY!r} metadata is {text[:60]!r}, no mapping, {expected}")
    missing = [key for key in NEEDED if key not in found]
    if missing:
        raise GraphError(f"{path}: its {METADATA_KEY!r} metadata lacks {', '.join(missing)}, {expected}")
    wanted = {*map(feature_input, found["layers"]), WINDOWS}
    inputs, outputs = {item.name for item in session.get_inputs()}, {item.name for item in session.get_outputs()}
    if inputs != wanted or not {BOXES, CONFIDENCES} <= outputs:
        raise GraphError(
            f"{path}: takes {', '.join(sorted(inputs))} and gives {', '.join(sorted(outputs))}, {expected}; it takes "
            f"{', '.join(sorted(wanted))} and gives {BOXES} and {CONFIDENCES}"
        )
    return found


def _told(metadata: Mapping[str, Any], path: Path) -> _Told:
    """How a Snapper is used.

    Raises:
        GraphError: its metadata have values that no export writes.
    """
    try:
        return _Told.of(metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise GraphError(
            f"{path}: its {METADATA_KEY!r} metadata can't be used ({type(error).__name__}: {error}), expected what this version of "
            "roiseg writes; run `dvc repro snapper_export`"
        ) from error


def edge_names(which: Bools) -> list[str]:
    """Names of the edges that are marked in (4,)."""
    return [name for name, marked in zip(EDGES, which, strict=True) if marked]
