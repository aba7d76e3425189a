"""Sections `cache` and `reader`, and the part of a store's fingerprint that params alone decide."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from roiseg.extractor.params import ExtractorParams
from roiseg.params import Section
from roiseg.types import MIRRORED, PLAIN, StoredType, View

LEVELS = {"none": 1, "lz4": 9, "zstd": 1}
"""LZ4 at its densest loses no speed to the detector, and none in reading; zstd's denser levels cost many times the time."""

Cells = Annotated[int, Field(ge=1)]


class CacheParams(Section):
    """Section `cache`: what is written. Knobs that only change how it is read are in `reader`."""

    dtype: StoredType
    codec: Literal["none", "lz4", "zstd"]
    level: int | None = Field(ge=1, le=9)
    shuffle: Literal["noshuffle", "shuffle", "bitshuffle"]
    shard_mib: int = Field(ge=1, le=4096)
    tile_hw: tuple[Cells, Cells] | None
    views: tuple[View, ...]
    image: bool

    @model_validator(mode="after")
    def _plain_comes_first(self) -> "CacheParams":
        if self.views not in ((PLAIN,), (PLAIN, MIRRORED)):
            raise ValueError("views must be [plain] or [plain, mirrored]")
        return self

    @property
    def clevel(self) -> int:
        """Level of the compression: the asked one, or what was measured to be best for the codec."""
        return self.level if self.level is not None else LEVELS[self.codec]

    def codec_rule(self) -> dict[str, object]:
        """Compression as plain values for a fingerprint."""
        if self.codec == "none":
            return {"name": "none"}
        return {"name": self.codec, "level": self.clevel, "shuffle": self.shuffle}

    def form(self) -> dict[str, Any]:
        """All of the section as plain values for a store's fingerprint, but for the type of the layers."""
        return {
            "codec": self.codec_rule(),
            "shard_mib": self.shard_mib,
            "tile_hw": None if self.tile_hw is None else list(self.tile_hw),
            "views": list(self.views),
            "image": self.image,
        }


class ReaderParams(Section):
    """Section `reader`: how fast things are read; never what comes out."""

    decode_threads: int = Field(ge=1, le=256)
    load_threads: int = Field(ge=1, le=256)
    ahead: int = Field(ge=1, le=1024)
    concurrent_runs: int = Field(ge=1, le=64)
    checksums: bool


def asked_fields(extractor: ExtractorParams, cache: CacheParams) -> dict[str, Any]:
    """The part of a store's fingerprint that params alone decide; heads compare it with the store they read."""
    return {"layers": dict(extractor.layers), "input": extractor.input_rule().plain(), "dtype": cache.dtype}
