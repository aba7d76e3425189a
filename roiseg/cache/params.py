"""Sections `cache` and `reader`, and the part of a store's fingerprint that params alone decide."""

from typing import Any, Literal

from pydantic import Field

from roiseg.extractor.params import ExtractorParams
from roiseg.params import Section
from roiseg.types import StoredType


class CacheParams(Section):
    """Section `cache`: what is written. Knobs that only change how it is read are in `reader`."""

    dtype: StoredType
    codec: Literal["none", "lz4", "zstd"]
    level: int = Field(ge=1, le=9)
    shuffle: Literal["noshuffle", "shuffle", "bitshuffle"]
    shard_mib: int = Field(ge=1, le=4096)

    def codec_rule(self) -> dict[str, object]:
        """Compression as plain values for a fingerprint."""
        if self.codec == "none":
            return {"name": "none"}
        return {"name": self.codec, "level": self.level, "shuffle": self.shuffle}


class ReaderParams(Section):
    """Section `reader`: how fast things are read; never what comes out."""

    decode_threads: int = Field(ge=1, le=256)
    load_threads: int = Field(ge=1, le=256)
    ahead: int = Field(ge=1, le=1024)
    checksums: bool


def asked_fields(extractor: ExtractorParams, cache: CacheParams) -> dict[str, Any]:
    """The part of a store's fingerprint that params alone decide; heads compare it with the store they read."""
    return {"layers": dict(extractor.layers), "input": extractor.input_rule(), "dtype": cache.dtype, "view": "plain"}
