"""What the files of a head say of it: all that their user must know, and nothing that a second export would change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from roiseg.cache.params import asked_fields
from roiseg.classes import CLASS_NAMES
from roiseg.files import sha256_file, sha256_json
from roiseg.network_input import LETTERBOX_GREY
from roiseg.train.checkpoint import Checkpoint
from roiseg.trained import HeadSections
from roiseg.types import FeatureSpec

FRAMES = {
    "unit": "[0, 1] of the network input, x to the right and y down; xyxy unless said otherwise",
    "network": "pixels of the network input: unit times input.hw",
    "image": "pixels of the image: a pixel i covers [i, i + 1); through input.resize to the network input",
}

CONVENTION = {
    "boxes": "float32 (R, 5): image number, x0, y0, x1, y1 in the unit frame, grown by roi_padding on each side, clipped",
    "align": "aligned=True (half pixel): the value of cell k is at k + 0.5, and bins are sampled at their own centres",
    "masks": "float32 (R, 3, h, w): probabilities of the classes at the centres of an h x w grid over the box; they sum to 1",
}

PREPROCESSING = (
    "uint8 image, resized bilinearly (cv2.INTER_LINEAR) by input.resize to input.hw "
    f"(letterbox: the rest is grey {LETTERBOX_GREY}), channels in the order input.color, times input.pixel_max / 255, float32 "
    "(N, 3, H, W); outputs of backbone.onnx as float32, times scales where a layer has them, are the features"
)


@dataclass(frozen=True)
class Learnt:
    """Where the weights of a head come from.

    Attributes:
        params: sections `dataset`, `sampler`, `model`, `loss`, `train` that it was trained by.
        epoch: last one; 0 for fresh weights.
        metrics: validation figures of that epoch.
        checkpoint_sha256: of the file; None for fresh weights.
        store_sha256: of the fields of the feature store that it learnt on; None for fresh weights.
    """

    params: Mapping[str, Any]
    epoch: int
    metrics: Mapping[str, float]
    checkpoint_sha256: str | None
    store_sha256: str | None

    @classmethod
    def nothing(cls, params: Mapping[str, Any]) -> "Learnt":
        """Fresh weights of a head with these params."""
        return cls(params, 0, {}, None, None)

    @classmethod
    def of(cls, checkpoint: Checkpoint, file: Path) -> "Learnt":
        """What a checkpoint says, and the file that it was read from."""
        digests = sha256_file(file), sha256_json(checkpoint.fingerprint)
        return cls(checkpoint.params, checkpoint.epoch, checkpoint.metrics, *digests)


def head_metadata(
    sections: HeadSections,
    specs: Sequence[FeatureSpec],
    scales: Mapping[str, NDArray[Any]],
    learnt: Learnt,
    backbone: Path,
) -> dict[str, Any]:
    """The metadata of a head, but for what its graph says of itself (`roiseg.export.onnx.export_head`).

    Args:
        sections: of the head.
        specs: its layers, in order.
        scales: layer -> (C,), of layers that are stored as integers.
        learnt: where its weights come from.
        backbone: the cut ONNX.
    """
    asked = asked_fields(sections.extractor, sections.cache)
    names = [spec.name for spec in specs]
    detections = sections.extractor.detections
    return {
        "classes": list(CLASS_NAMES),
        "frames": FRAMES,
        "convention": CONVENTION,
        "preprocessing": PREPROCESSING,
        "input": asked["input"],
        "layers": {spec.name: {"channels": spec.channels, "stride_hw": list(spec.stride_hw)} for spec in specs},
        "tensors": {name: asked["layers"][name] for name in names if name in asked["layers"]},
        "dtype": asked["dtype"],
        "scales": {name: [float(value) for value in scales[name]] for name in names if name in scales},
        "detections": None if detections is None else detections.model_dump(mode="json"),
        "roi_padding": sections.dataset.roi_padding,
        "mask_hw": list(sections.model.mask_hw),
        "epoch": learnt.epoch,
        "metrics": dict(learnt.metrics),
        "params": dict(learnt.params),
        "fingerprints": {
            "backbone_sha256": sha256_file(backbone),
            "checkpoint_sha256": learnt.checkpoint_sha256,
            "store_sha256": learnt.store_sha256,
        },
    }
