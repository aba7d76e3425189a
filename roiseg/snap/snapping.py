"""What the service asks of a Snapper, and its answers as JSON. `roiseg.snap.Snapper` is one."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from roiseg.geometry import Floats, xyxy_to_xywh
from roiseg.network_input import Pixels
from roiseg.predict.encoder import Encoded
from roiseg.snap.snapper import SnappedBox, edge_names
from roiseg.snapper.windows import EDGES

DECIMALS = 4
"""Of pixels and confidences in answers."""


class Snaps(Protocol):
    """The model; only one thread uses it."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the export says of itself."""

    def encode(self, images: Sequence[Pixels]) -> list[Encoded]:
        """See `roiseg.snap.Snapper.encode`."""

    def snap_encoded(
        self, encoded: Encoded, boxes_image: ArrayLike, what: str = "image", *, buffer: float | None = None
    ) -> list[SnappedBox]:
        """See `roiseg.snap.Snapper.snap_encoded`."""


def plain(snapped: SnappedBox) -> dict[str, Any]:
    """A box as JSON has it: left, top, width, height in pixels of the image, and its edges by name."""
    return {
        "rough": _xywh(snapped.rough_image),
        "box": _xywh(snapped.box_image),
        "confidences": edge_confidences(snapped),
        "kept": edge_names(snapped.kept),
        "review": edge_names(snapped.review),
    }


def edge_confidences(snapped: SnappedBox) -> dict[str, float]:
    """Edge -> how sure the model is."""
    return {edge: round(float(value), DECIMALS) for edge, value in zip(EDGES, snapped.confidences, strict=True)}


def _xywh(box: Floats) -> list[float]:
    return [round(float(value), DECIMALS) for value in xyxy_to_xywh(np.asarray(box, dtype=np.float64)[None])[0]]
