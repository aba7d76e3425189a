"""What the service asks of a Snapper, and its answers as JSON. `roiseg.snap.Snapper` is one."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from roiseg.geometry import Floats, xyxy_to_xywh
from roiseg.network_input import Pixels
from roiseg.snapper.windows import EDGES

DECIMALS = 4
"""Of pixels and confidences in answers."""


class Snapped(Protocol):
    """One box, before and after; boxes (4,) xyxy in the image frame, the rest (4,) in the order of `EDGES`."""

    @property
    def rough_image(self) -> Floats: ...

    @property
    def box_image(self) -> Floats: ...

    @property
    def confidences(self) -> NDArray[Any]: ...

    @property
    def kept(self) -> NDArray[np.bool_]: ...

    @property
    def review(self) -> NDArray[np.bool_]: ...


class Snaps(Protocol):
    """The model; only one thread at a time may use it."""

    @property
    def metadata(self) -> Mapping[str, Any]: ...

    def set_image(self, pixels: Pixels) -> None: ...

    def snap(self, boxes: ArrayLike, *, buffer: float | None = None) -> Sequence[Snapped]:
        """Snap boxes (R, 4) xyxy, image frame; `buffer` in the place of that of the export."""


def plain(snapped: Snapped) -> dict[str, Any]:
    """A box as JSON has it: left, top, width, height in pixels of the image, and its edges by name."""
    return {
        "rough": _xywh(snapped.rough_image),
        "box": _xywh(snapped.box_image),
        "confidences": edge_confidences(snapped),
        "kept": named(snapped.kept),
        "review": named(snapped.review),
    }


def edge_confidences(snapped: Snapped) -> dict[str, float]:
    """Edge -> how sure the model is."""
    return {edge: round(float(value), DECIMALS) for edge, value in zip(EDGES, snapped.confidences, strict=True)}


def named(chosen: NDArray[np.bool_]) -> list[str]:
    """Names of the edges that are chosen (4,)."""
    return [edge for edge, is_chosen in zip(EDGES, chosen, strict=True) if is_chosen]


def _xywh(box: Floats) -> list[float]:
    return [round(float(value), DECIMALS) for value in xyxy_to_xywh(np.asarray(box, dtype=np.float64)[None])[0]]
