"""From images to what a head or a Snapper may ask of them, by onnxruntime alone.

Symbols: N images of a batch, (H, W) cells of a layer, C channels, K boxes that the detector finds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from roiseg.classes import Floats32
from roiseg.errors import GraphError
from roiseg.extractor.detections import DetectionRule, read_detections
from roiseg.geometry import Floats, ResizeMode
from roiseg.network_input import InputRule, Pixels, as_input, network_image
from roiseg.onnx_names import BACKBONE_FILE, feature_input
from roiseg.predict.given import check_pixels
from roiseg.runtime import make_session, run_model
from roiseg.types import HW, IMAGE, Provider


@dataclass(frozen=True)
class Encoded:
    """What a model may ask of an image, whatever the boxes.

    Attributes:
        features: input of the model -> (1, C, H, W) float32.
        image_hw: (H, W) of the image.
        detected: (K, 5) of xyxy in the unit frame and score, best first; None where the backbone has no detections.
    """

    features: Mapping[str, Floats32]
    image_hw: HW
    detected: Floats | None


@dataclass(frozen=True)
class Reading:
    """How a model reads images, as its metadata say.

    Attributes:
        rule: from an image to the network input.
        layers: what the model takes, in order.
        scales: layer -> (1, C, 1, 1), times which stored values are features.
        detections: how the backbone's own boxes are read; None where it has none.
    """

    rule: InputRule
    layers: tuple[str, ...]
    scales: Mapping[str, Floats32]
    detections: DetectionRule | None

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "Reading":
        """Read metadata; KeyError, TypeError or ValueError where a value isn't what `export` writes."""
        rule = InputRule.from_plain(metadata["input"])
        if rule.resize not in get_args(ResizeMode):
            raise ValueError(f"input.resize is {rule.resize!r}")
        scales = {}
        for name, values in dict(metadata["scales"]).items():
            scales[name] = np.array(values, dtype=np.float32).reshape(1, -1, 1, 1)
            if scales[name].size != metadata["layers"][name]["channels"]:
                raise ValueError(f"{scales[name].size} scales of {name}")
        detections = metadata.get("detections")
        return cls(rule, tuple(metadata["layers"]), scales, DetectionRule(**detections) if detections else None)

    def beside(self, other: "Reading") -> "Reading":
        """The same, with the layers of another model too."""
        layers = (*self.layers, *(name for name in other.layers if name not in self.layers))
        return replace(self, layers=layers, scales={**other.scales, **self.scales})


class Encoder:
    """A backbone, and what is asked of it."""

    def __init__(self, path: Path, reader: Path, provider: Provider, reading: Reading) -> None:
        """Open a backbone.

        Args:
            path: its file; it isn't opened where nothing but the image itself is read.
            reader: file of the model that reads it, for messages.
            provider: where to run.
            reading: what is asked of it.

        Raises:
            GraphError: it isn't there, isn't one, or hasn't got a layer.
            ProviderError: the provider isn't there.
        """
        self._path, self._reader, self._provider = path, reader, provider
        self._session: onnxruntime.InferenceSession | None = None
        self._input = ""
        self._batch_size: int | None = None
        self.reading = reading
        self._outputs = self._open(reading)

    def read(self, reading: Reading) -> None:
        """Ask for other layers of the same backbone from now on.

        Raises:
            GraphError: it hasn't got one of them.
        """
        self._outputs = self._open(reading)
        self.reading = reading

    def encode(self, images: Sequence[Pixels]) -> list[Encoded]:
        """Run the backbone on several images: on all at once, or in the batches of its own size.

        Args:
            images: N of (H, W, 3) uint8, BGR; sizes may differ.

        Raises:
            PixelsError: one of them isn't such an array.
        """
        checked = [check_pixels(item, f"image {number}") for number, item in enumerate(images)]
        size = self._batch_size or len(checked)
        found: list[Encoded] = []
        for start in range(0, len(checked), max(size, 1)):
            found += self._encode_batch(checked[start : start + size], size)
        return found

    def _encode_batch(self, images: Sequence[Pixels], size: int) -> list[Encoded]:
        """Up to `size` images; a batch that is short is filled up with its first one."""
        rule, detections = self.reading.rule, self.reading.detections
        networks = np.stack([network_image(item, rule) for item in images])
        values: dict[str, NDArray[Any]] = {}
        # Asked for no outputs, onnxruntime gives all of them.
        if self._session is not None and self._outputs:
            short = size - len(images)
            batch = as_input(np.concatenate([networks, np.repeat(networks[:1], short, axis=0)]) if short else networks, rule)
            found = run_model(self._session, self._path, self._outputs, {self._input: batch})
            values = dict(zip(self._outputs, found, strict=True))
        hws: list[HW] = [(item.shape[0], item.shape[1]) for item in images]
        detected: Sequence[Floats | None] = [None] * len(images)
        if detections is not None:
            detected = read_detections(values[detections.output], detections, hws, rule)
        values[IMAGE] = networks if rule.color == "rgb" else networks[:, ::-1]
        return [
            Encoded({feature_input(name): self._feature(values[name], name, place) for name in self.reading.layers}, hw, boxes)
            for place, (hw, boxes) in enumerate(zip(hws, detected, strict=True))
        ]

    def _feature(self, values: NDArray[Any], layer: str, place: int) -> Floats32:
        """A layer of one image (1, C, H, W), as the model takes it."""
        found = values[place : place + 1].astype(np.float32)
        return found * self.reading.scales[layer] if layer in self.reading.scales else found

    def _open(self, reading: Reading) -> list[str]:
        """What is asked of the backbone: the layers, and detections where they are exported."""
        wanted = [name for name in reading.layers if name != IMAGE]
        if reading.detections is not None:
            wanted.append(reading.detections.output)
        if self._session is None and wanted:
            self._session, _ = make_session(self._path, self._provider, "float32")
            self._input, self._batch_size = _image_input(self._session, self._path)
        there = set() if self._session is None else {item.name for item in self._session.get_outputs()}
        missing = [name for name in wanted if name not in there]
        if missing:
            raise GraphError(
                f"{self._path}: has no output {', '.join(missing)}, which {self._reader.name} reads, but "
                f"{', '.join(sorted(there))}; the two must come from one export: run `dvc repro export`"
            )
        return wanted


def _image_input(session: onnxruntime.InferenceSession, path: Path) -> tuple[str, int | None]:
    """Name of the backbone's input, and the number of images that it takes; None: any.

    Raises:
        GraphError: it takes something else, or something else too.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(item.name for item in inputs)
        raise GraphError(f"{path}: takes {names}, expected one image input; take the {BACKBONE_FILE} that `export` wrote")
    if len(inputs[0].shape) != 4:
        raise GraphError(
            f"{path}: takes {inputs[0].shape}, expected images (N, 3, H, W); take the {BACKBONE_FILE} that `export` wrote"
        )
    size = inputs[0].shape[0]
    return inputs[0].name, size if isinstance(size, int) else None
