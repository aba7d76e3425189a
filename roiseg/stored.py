"""What is stored, as stages open it that learn something else than a head on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roiseg.cache.params import CacheParams, ReaderParams
from roiseg.cache.source import FeatureSource
from roiseg.extractor.params import ExtractorParams
from roiseg.index import Index
from roiseg.params import load_section
from roiseg.trained import open_tables


@dataclass(frozen=True)
class StoredSections:
    """The sections that say what is stored, and how it is read."""

    extractor: ExtractorParams
    cache: CacheParams
    reader: ReaderParams

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> "StoredSections":
        """From the whole params.

        Raises:
            ParamsError: any fault.
        """
        return cls(
            load_section(ExtractorParams, "extractor", values),
            load_section(CacheParams, "cache", values),
            load_section(ReaderParams, "reader", values),
        )

    def open(self, split: str, *, teacher: bool = False) -> tuple[Index, FeatureSource]:
        """Index and store of a split, the store checked against the params.

        Args:
            split: `train` or `val`.
            teacher: whether the U-net's map is read too, as layer `teacher`.

        Raises:
            StoreError, StoreMismatchError, StoreDamagedError: see `open_tables`.
        """
        return open_tables(self.extractor, self.cache, self.reader, split, teacher=teacher)
