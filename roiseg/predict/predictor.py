"""From an image and boxes to full-size masks, by onnxruntime alone.

Symbols: R people in an image, (H, W) its size.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from roiseg.classes import Bools
from roiseg.errors import GraphError
from roiseg.evaluate.pictures import target_mask
from roiseg.extractor.session import Backbone
from roiseg.geometry import Floats, check_boxes, clip_boxes, roi_boxes
from roiseg.network_input import InputRule, Pixels, as_input, network_image
from roiseg.onnx_names import BACKBONE_FILE, BOXES, HEAD_FILE, METADATA_KEY, OUTPUT, feature_input
from roiseg.runtime import make_session
from roiseg.types import IMAGE, Provider

BoxFormat = Literal["xyxy", "cxcywh"]


@dataclass(frozen=True)
class PersonMask:
    """One person found.

    Attributes:
        mask: (H, W).
        box_image: (4,) xyxy as given, clipped to the image.
        score: mean target probability where the target wins, in [0, 1].
    """

    mask: Bools
    box_image: Floats
    score: float


class Predictor:
    """The backbone and a head, as `export` wrote them."""

    def __init__(self, folder: Path, provider: Provider = "auto") -> None:
        """Open `head.onnx` and `backbone.onnx` in a folder.

        Args:
            folder: such as `models/onnx/default`.
            provider: where to run.

        Raises:
            GraphError: not an exported head.
            ProviderError: the provider isn't there.
        """
        path = folder / HEAD_FILE
        if not path.is_file():
            raise GraphError(f"{path}: no exported head there; run `dvc repro export`, or `dvc pull {folder}`")
        found = [item.value for item in onnx.load(path, load_external_data=False).metadata_props if item.key == METADATA_KEY]
        if not found:
            raise GraphError(f"{path}: has no {METADATA_KEY!r} metadata, expected a head that roiseg exported")
        self.metadata: dict[str, Any] = json.loads(found[0])
        self._backbone = Backbone(folder / BACKBONE_FILE, provider, "float32")
        self._head, _ = make_session(path, provider, "float32", whole=False)
        self._input = InputRule.from_plain(self.metadata["input"])
        self._scales = {name: np.array(values, dtype=np.float32) for name, values in self.metadata["scales"].items()}

    def __call__(self, pixels: Pixels, boxes_image: Floats, what: str = "image") -> list[PersonMask]:
        """Masks of the people in these boxes.

        Args:
            pixels: (H, W, 3) uint8, BGR.
            boxes_image: (R, 4) xyxy, image frame.
            what: what to call the image in messages.

        Raises:
            BoxError: a box is empty or outside the image.
        """
        image_hw = (pixels.shape[0], pixels.shape[1])
        check_boxes(boxes_image, image_hw, what)
        if not len(boxes_image):
            return []
        clipped = clip_boxes(boxes_image, image_hw)
        resize = self._input.resizing(image_hw)
        rois = roi_boxes(resize.boxes_to_unit(clipped), float(self.metadata["roi_padding"]))
        outputs = self._maps(pixels)
        feeds: dict[str, NDArray[np.float32]] = {}
        for name in self.metadata["layers"]:
            values = outputs[name][:1].astype(np.float32)
            feeds[feature_input(name)] = values * self._scales[name].reshape(1, -1, 1, 1) if name in self._scales else values
        feeds[BOXES] = np.concatenate([np.zeros((len(rois), 1)), rois], axis=1).astype(np.float32)
        (masks,) = self._head.run([OUTPUT], feeds)
        rois_image = resize.boxes_to_image(rois)
        people = []
        for probabilities, roi, box in zip(masks, rois_image, clipped, strict=True):
            mask, score = target_mask(torch.from_numpy(probabilities), roi, image_hw)
            people.append(PersonMask(mask, box, score))
        return people

    def _maps(self, pixels: Pixels) -> dict[str, NDArray[Any]]:
        """What the head may ask for, of one image or more of the same: the detector's layers, and the image itself."""
        rule = self._input
        image = network_image(pixels, rule)
        batch = np.repeat(as_input(image, rule)[None], self._backbone.info.batch_size or 1, axis=0)
        return self._backbone(batch) | {IMAGE: (image if rule.color == "rgb" else image[::-1])[None]}
