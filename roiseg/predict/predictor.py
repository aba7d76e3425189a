"""From an image and boxes to full-size masks, by onnxruntime alone: neither torch nor the training side of roiseg is needed.

Symbols: N images of a batch, R people in an image, (H, W) its size, (h, w) cells of the mask.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike

from roiseg.errors import GraphError, NoImageError, PredictionError
from roiseg.geometry import Floats, clip_boxes, roi_boxes
from roiseg.network_input import Pixels
from roiseg.onnx_names import BACKBONE_FILE, BOXES, FILTER_FILE, HEAD_FILE, METADATA_KEY, OUTPUT, OWN_FILTER, feature_input
from roiseg.overlap import resolve
from roiseg.placed import Pasted, paste_target
from roiseg.predict.encoder import Encoded, Encoder, Reading
from roiseg.predict.given import BoxFormat, BoxFrame, pixel_boxes
from roiseg.predict.person import Detections, PersonMask
from roiseg.predict.smoothing import Smoothing
from roiseg.runtime import make_session, run_model
from roiseg.types import MAX_ROIS, Provider


@dataclass(frozen=True)
class _Told:
    """What an exported head's metadata says of how it is used.

    Attributes:
        reading: how it reads images.
        roi_padding: share of a box's size that its ROI is larger on each side.
    """

    reading: Reading
    roi_padding: float

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "_Told":
        """Read metadata; KeyError, TypeError or ValueError where a value isn't what `export` writes."""
        return cls(Reading.of(metadata), float(metadata["roi_padding"]))


class Predictor:
    """The backbone and a head, as `export` wrote them."""

    def __init__(self, path: Path | str, provider: Provider = "auto", *, filter_file: Path | str | None = OWN_FILTER) -> None:
        """Open a head and the backbone beside it.

        Args:
            path: folder such as `models/onnx/default`, or a head's file in it such as `head.int8.onnx`.
            provider: where to run.
            filter_file: `export`: masks are smoothed with the filter beside the head, if `export.filter` put one there, and so are
                those of the end-to-end file; or what `roiseg export-filter` wrote. None: masks as the head gives them.

        Raises:
            GraphError: not an exported head, or no backbone of its layers beside it.
            ProviderError: the provider isn't there.
        """
        path = Path(path)
        self._file = path if path.suffix == ".onnx" and not path.is_dir() else path / HEAD_FILE
        self._head, self.runtime = make_session(self._file, provider, "float32", whole=False)
        self.metadata = _metadata(self._head, self._file)
        self._told = _told(self.metadata, self._file)
        self._encoder = Encoder(self._file.with_name(BACKBONE_FILE), self._file, provider, self._told.reading)
        chosen = _chosen_filter(filter_file, self._file.with_name(FILTER_FILE))
        self._smooth = Smoothing(chosen, provider) if chosen else None
        self._current: Encoded | None = None

    @property
    def has_detector(self) -> bool:
        """Whether `detect` has an answer."""
        return self._told.reading.detections is not None

    def set_image(self, pixels: Pixels) -> None:
        """Run the backbone on an image, for any number of calls of `predict`.

        Args:
            pixels: (H, W, 3) uint8, BGR.

        Raises:
            PixelsError: not such an array.
        """
        self._current = None
        (self._current,) = self.encode([pixels])

    def predict(self, boxes: ArrayLike, box_format: BoxFormat = "xyxy", frame: BoxFrame = "pixels") -> list[PersonMask]:
        """Masks of people in the image that was set.

        Args:
            boxes: (R, 4).
            box_format: two corners, or centre and size.
            frame: `pixels` of the image, or `unit`: shares of its width and height.

        Returns:
            One for each box, in order.

        Raises:
            NoImageError: no image was set.
            BoxError: see `pixel_boxes`.
            PredictionError: the head's answers aren't numbers.
        """
        if self._current is None:
            raise NoImageError("predict was called before set_image, expected an image first; call set_image(pixels)")
        return self._people(self._current, pixel_boxes(boxes, self._current.image_hw, box_format, frame, "predict"))

    def encode(self, images: Sequence[Pixels]) -> list[Encoded]:
        """Run the backbone on several images: on all at once, or in the batches of its own size.

        Args:
            images: N of (H, W, 3) uint8, BGR; sizes may differ.

        Raises:
            PixelsError: one of them isn't such an array.
        """
        return self._encoder.encode(images)

    def read_also(self, reading: Reading) -> None:
        """Encode images for another model of the same backbone too, whose layers then lie beside the head's own in `Encoded`.

        Args:
            reading: what that model reads.

        Raises:
            GraphError: the backbone hasn't got one of its layers.
        """
        self._encoder.read(self._told.reading.beside(reading))

    def masks(self, encoded: Encoded, boxes_image: ArrayLike, what: str = "image") -> list[PersonMask]:
        """Masks of the people in these boxes.

        Args:
            encoded: an image.
            boxes_image: (R, 4) xyxy, image frame.
            what: what to call the image in messages.

        Returns:
            One for each box, in order; no two share a pixel.

        Raises:
            BoxError: a box is empty, outside the image, or in another frame.
            PredictionError: the head's answers aren't numbers.
        """
        return self._people(encoded, pixel_boxes(boxes_image, encoded.image_hw, "xyxy", "pixels", what))

    def detect(self, encoded: Encoded) -> Detections:
        """The people that the detector itself finds.

        Raises:
            GraphError: it wasn't exported with its detections.
        """
        if encoded.detected is None:
            raise GraphError(
                f"{self._file.with_name(BACKBONE_FILE)}: has no detections of its own; give boxes, or set extractor.detections "
                "in params.yaml and run `dvc repro export`"
            )
        resize = self._told.reading.rule.resizing(encoded.image_hw)
        boxes = clip_boxes(resize.boxes_to_image(encoded.detected[:, :4]), encoded.image_hw)
        return Detections(boxes, encoded.detected[:, 4])

    def _people(self, encoded: Encoded, boxes_image: Floats) -> list[PersonMask]:
        """Checked boxes to masks."""
        clipped = clip_boxes(boxes_image, encoded.image_hw)
        pasted = list(self._pasted(encoded, clipped))
        return [
            PersonMask(placed, box, person.score, encoded.image_hw)
            for placed, box, person in zip(resolve(pasted), clipped, pasted, strict=True)
        ]

    def _pasted(self, encoded: Encoded, boxes_image: Floats) -> Iterator[Pasted]:
        """Each person alone; up to `MAX_ROIS` go through the head together, as in evaluation."""
        resize = self._told.reading.rule.resizing(encoded.image_hw)
        rois = roi_boxes(resize.boxes_to_unit(boxes_image), self._told.roi_padding)
        rois_image = resize.boxes_to_image(rois)
        # An image may be encoded for another model too.
        feeds = {name: encoded.features[name] for name in map(feature_input, self.metadata["layers"])}
        for start in range(0, len(rois), MAX_ROIS):
            part = slice(start, start + MAX_ROIS)
            numbered = np.concatenate([np.zeros((len(rois[part]), 1)), rois[part]], axis=1).astype(np.float32)
            (masks,) = run_model(self._head, self._file, [OUTPUT], feeds | {BOXES: numbered})
            if not np.isfinite(masks).all():
                raise PredictionError(
                    f"{self._file}: the head's probabilities aren't numbers; take another of the head's files, such as {HEAD_FILE}"
                )
            for probabilities, roi in zip(masks, rois_image[part], strict=True):
                person = paste_target(probabilities, roi, encoded.image_hw)
                yield self._smooth(person, encoded.image_hw) if self._smooth else person


def _metadata(session: onnxruntime.InferenceSession, path: Path) -> dict[str, Any]:
    """What an exported head says of itself.

    Raises:
        GraphError: the file isn't one.
    """
    expected = f"expected a head that roiseg exported, such as {HEAD_FILE}"
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        found = None if text is None else json.loads(text)
    except ValueError as error:
        raise GraphError(f"{path}: its {METADATA_KEY!r} metadata isn't JSON ({error}), {expected}") from error
    if text is None:
        raise GraphError(f"{path}: has no {METADATA_KEY!r} metadata, {expected}")
    if not isinstance(found, dict):
        raise GraphError(f"{path}: its {METADATA_KEY!r} metadata is {text[:60]!r}, no mapping, {expected}")
    missing = [key for key in ("layers", "input", "scales", "roi_padding") if key not in found]
    if missing:
        raise GraphError(f"{path}: its {METADATA_KEY!r} metadata lacks {', '.join(missing)}, {expected}")
    if not isinstance(found["layers"], dict):
        raise GraphError(f"{path}: its {METADATA_KEY!r} metadata has {found['layers']!r:.60} for layers, {expected}")
    wanted = {*(feature_input(name) for name in found["layers"]), BOXES}
    inputs, outputs = {item.name for item in session.get_inputs()}, {item.name for item in session.get_outputs()}
    if inputs != wanted or OUTPUT not in outputs:
        raise GraphError(
            f"{path}: takes {', '.join(sorted(inputs))} and gives {', '.join(sorted(outputs))}, {expected}, which takes "
            f"{', '.join(sorted(wanted))} and gives {OUTPUT}"
        )
    return found


def _told(metadata: Mapping[str, Any], path: Path) -> _Told:
    """How a head is used.

    Raises:
        GraphError: its metadata has values that no export writes.
    """
    try:
        return _Told.of(metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise GraphError(
            f"{path}: its {METADATA_KEY!r} metadata can't be used ({type(error).__name__}: {error}), expected what this version of "
            "roiseg writes; run `dvc repro export`"
        ) from error


def _chosen_filter(filter_file: Path | str | None, own: Path) -> Path | None:
    """The file to smooth masks with, `own` being the one that the head was exported with."""
    if filter_file == OWN_FILTER:
        return own if own.is_file() else None
    return None if filter_file is None else Path(filter_file)
