"""What is known of a detector that was cut to its features."""

import json
from dataclasses import asdict, dataclass

from roiseg.errors import GraphError
from roiseg.types import HW, CutLayer, StoredType


@dataclass(frozen=True)
class CutGraph:
    """What a cut ONNX says of itself in its metadata.

    Attributes:
        input_name: name of the image input, float32 (N, 3, H, W).
        input_hw: its size in pixels.
        batch_size: the fixed N, or None where any is taken.
        dtype: stored type of the layers.
        layers: outputs in the order of the params.
        detections: output that holds the detector's own boxes, or None.
    """

    input_name: str
    input_hw: HW
    batch_size: int | None
    dtype: StoredType
    layers: tuple[CutLayer, ...]
    detections: str | None

    def check_batch(self, batch_size: int) -> None:
        """See that the graph takes batches of this size.

        Raises:
            GraphError: it has another one of its own.
        """
        if self.batch_size not in (None, batch_size):
            raise GraphError(
                f"extractor.batch_size is {batch_size}, but the detector takes batches of {self.batch_size} only; set it to "
                f"{self.batch_size}, or export the detector with a dynamic batch"
            )

    def to_json(self) -> str:
        """Text for the metadata of the ONNX."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "CutGraph":
        """Read what `to_json` wrote."""
        value = json.loads(text)
        layers = tuple(CutLayer(**{**item, "hw": tuple(item["hw"])}) for item in value.pop("layers"))
        return cls(**{**value, "input_hw": tuple(value["input_hw"])}, layers=layers)
