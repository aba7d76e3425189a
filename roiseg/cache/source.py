"""What features are read from, be it one store or several that are joined."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiseg.errors import StoreMismatchError
from roiseg.params import nearest
from roiseg.types import IMAGE, PLAIN, TEACHER, FeatureSpec, View, Window

REMEDIES: Mapping[str, str] = {
    IMAGE: "set cache.image to true, and `dvc repro extract`",
    TEACHER: "a people net writes it beside the features: run `dvc repro teacher`",
}
"""What to do about a missing layer that isn't one of the detector's."""


class FeatureSource(ABC):
    """Maps of N images, by row and layer.

    Attributes:
        path: for messages.
    """

    path: Path

    @property
    @abstractmethod
    def image_ids(self) -> NDArray[np.int64]:
        """(N,) COCO ids in row order."""

    @property
    @abstractmethod
    def views(self) -> tuple[View, ...]:
        """Which ways round the images were seen."""

    @property
    @abstractmethod
    def specs(self) -> Mapping[str, FeatureSpec]:
        """What each layer is, by name, in the order of the params."""

    @property
    @abstractmethod
    def shapes(self) -> Mapping[str, tuple[int, int, int]]:
        """Layer -> (C, H, W)."""

    @property
    @abstractmethod
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """Layer -> stored type."""

    @property
    @abstractmethod
    def scales(self) -> Mapping[str, NDArray[np.float32]]:
        """Layer -> (C,) float32 to multiply by, of layers that are stored as integers."""

    @property
    @abstractmethod
    def asked(self) -> dict[str, Any]:
        """Fields that it was asked to be made by."""

    @property
    @abstractmethod
    def found(self) -> dict[str, Any]:
        """Fields that describe the run that made it."""

    @abstractmethod
    def read_into(self, row: int, layer: str, out: NDArray[Any], view: View = PLAIN) -> None:
        """Decode the stored values of one image into a buffer, with no copy between.

        Args:
            row: 0 <= row < N.
            layer: name.
            out: (C, H, W) of the stored type, contiguous; filled.
            view: which way round the detector saw it.

        Raises:
            IndexError: no such row.
            ValueError: `out` is of another shape or type, or not contiguous.
            StoreDamagedError: the bytes fail their checksum, can't be decoded, or are gone.
        """

    @abstractmethod
    def read_window_into(self, row: int, layer: str, window: Window, out: NDArray[Any], view: View = PLAIN) -> None:
        """Decode a part of one image into a buffer; of a store with tiles only the tiles that it meets.

        Args:
            row: 0 <= row < N.
            layer: name.
            window: cells of the layer, not empty.
            out: (C, bottom - top, right - left) of the stored type, contiguous; filled.
            view: which way round the detector saw it.

        Raises:
            IndexError: no such row, or a window outside the map.
            ValueError, StoreDamagedError: as `read_into`.
        """

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def layers(self) -> tuple[str, ...]:
        """What can be read, in the order of the params."""
        return tuple(self.shapes)

    def read(self, row: int, layers: Iterable[str], view: View = PLAIN) -> dict[str, NDArray[Any]]:
        """Stored values of one image, in arrays of their own.

        Args:
            row: 0 <= row < N.
            layers: names.
            view: which way round the detector saw it.

        Returns:
            Layer -> (C, H, W), float16, int8 or uint8 (multiply by `scales`, where there is one).

        Raises:
            StoreDamagedError: as `read_into`.
        """
        values = {}
        for name in layers:
            values[name] = np.empty(self.shapes[name], dtype=self.dtypes[name])
            self.read_into(row, name, values[name], view)
        return values

    def check_rows(self, image_ids: NDArray[np.int64], what: str) -> None:
        """Refuse rows that aren't those of an index.

        Raises:
            StoreMismatchError: the first row that differs.
        """
        if len(image_ids) == len(self) and bool((image_ids == self.image_ids).all()):
            return
        raise StoreMismatchError(
            f"{self.path}: holds {len(self)} images from id {self.image_ids[0]}, but {what} lists {len(image_ids)} "
            f"from id {image_ids[0]}, in another order or of another set; run `dvc repro extract`"
        )

    def check_layers(self, layers: Iterable[str]) -> None:
        """See that every layer is there.

        Raises:
            StoreMismatchError: names the missing one, and near names.
        """
        for name in layers:
            if name not in self.layers:
                remedy = REMEDIES.get(name, "add it to extractor.layers")
                raise StoreMismatchError(f"{self.path}: no layer {name!r} (model.layers); {nearest(name, self.layers)}; {remedy}")

    def check_views(self, views: Iterable[View]) -> None:
        """See that every view is there.

        Raises:
            StoreMismatchError: names the missing one.
        """
        for view in views:
            if view not in self.views:
                raise StoreMismatchError(
                    f"{self.path}: no view {view!r} (sampler.views), only {', '.join(self.views)}; add it to cache.views"
                )
