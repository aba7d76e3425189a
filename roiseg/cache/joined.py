"""Several stores of the same images read as one: the detector's features, and what a further model made of the images."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiseg.cache.reader import FeatureStore
from roiseg.cache.source import FeatureSource
from roiseg.errors import StoreMismatchError
from roiseg.types import PLAIN, FeatureSpec, View, Window


class JoinedStore(FeatureSource):
    """A store and others that hold its images, joined by `image_id`; rows are those of the first."""

    def __init__(self, first: FeatureStore, *others: FeatureStore) -> None:
        """Find the rows of all images of the first store in the others.

        Args:
            first: gives the rows.
            others: may hold more images, in any order.

        Raises:
            StoreMismatchError: an image is missing in one of the others, or two stores have a layer of the same name.
        """
        self.path = first.path
        self._stores = (first, *others)
        self._rows = {store.path: self._find(store) for store in self._stores}
        self._of: dict[str, FeatureStore] = {}
        for store in self._stores:
            for layer in store.layers:
                if layer in self._of:
                    raise StoreMismatchError(
                        f"{self._of[layer].path} and {store.path} both have a layer {layer!r}; call one of them otherwise"
                    )
                self._of[layer] = store

    def _find(self, store: FeatureStore) -> NDArray[np.int64]:
        wanted, order = self._stores[0].image_ids, np.argsort(store.image_ids, kind="stable")
        known = store.image_ids[order]
        places = np.searchsorted(known, wanted).clip(max=len(known) - 1)
        missing = wanted[known[places] != wanted]
        if len(missing):
            raise StoreMismatchError(
                f"{store.path}: lacks {len(missing)} of the {len(wanted)} images of {self.path}, the first with id {missing[0]}; "
                "make it anew from the same index"
            )
        return np.asarray(order[places], dtype=np.int64)

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """See `FeatureSource`."""
        return self._stores[0].image_ids

    @property
    def asked(self) -> dict[str, Any]:
        """Fields of the first store, and of the others by their paths."""
        return self._stores[0].asked | {store.path.as_posix(): store.asked for store in self._stores[1:]}

    @property
    def found(self) -> dict[str, Any]:
        """Fields of the first store, and of the others by their paths."""
        return self._stores[0].found | {store.path.as_posix(): store.found for store in self._stores[1:]}

    @cached_property
    def views(self) -> tuple[View, ...]:
        """Views that all stores have."""
        return tuple(view for view in self._stores[0].views if all(view in store.views for store in self._stores))

    @cached_property
    def specs(self) -> Mapping[str, FeatureSpec]:
        """See `FeatureSource`."""
        return {name: store.specs[name] for name, store in self._of.items()}

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, int, int]]:
        """See `FeatureSource`."""
        return {name: store.shapes[name] for name, store in self._of.items()}

    @cached_property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """See `FeatureSource`."""
        return {name: store.dtypes[name] for name, store in self._of.items()}

    @cached_property
    def scales(self) -> Mapping[str, NDArray[np.float32]]:
        """See `FeatureSource`."""
        return {name: values for store in self._stores for name, values in store.scales.items()}

    def read_into(self, row: int, layer: str, out: NDArray[Any], view: View = PLAIN) -> None:
        """See `FeatureSource`."""
        store = self._of[layer]
        store.read_into(self._row(store, row), layer, out, view)

    def read_window_into(self, row: int, layer: str, window: Window, out: NDArray[Any], view: View = PLAIN) -> None:
        """See `FeatureSource`."""
        store = self._of[layer]
        store.read_window_into(self._row(store, row), layer, window, out, view)

    def _row(self, store: FeatureStore, row: int) -> int:
        if not 0 <= row < len(self):
            raise IndexError(f"{self.path}: row {row}, expected 0 to {len(self) - 1}")
        return int(self._rows[store.path][row])
