"""The `teacher` stage: what the U-net says of cached images, in a store of its own (design 6).

It is an extraction like the detector's, with the net in the detector's place and the cached image in that of the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roiseg.cache.params import asked_fields
from roiseg.cache.reader import FeatureStore
from roiseg.errors import GraphError
from roiseg.extractor.extract import ExtractPaths, extract
from roiseg.extractor.inputs import ImageFile
from roiseg.index import Index
from roiseg.network_input import Pixels
from roiseg.onnx_names import PERSON_LOGITS
from roiseg.stored import StoredSections
from roiseg.trained import FEATURES, INDEX
from roiseg.types import IMAGE, TEACHER

STORES = FEATURES.parent / TEACHER


@dataclass(frozen=True)
class StoredImages:
    """Network inputs from a store that holds images.

    Attributes:
        store: with layer `image`.
        color: order of the channels that the net's graph wants, `rgb` or `bgr`.
    """

    store: FeatureStore
    color: str

    def digest(self, files: Sequence[ImageFile], threads: int) -> str:
        """That of the files which the store was made from."""
        del files, threads
        return str(self.store.asked["images"])

    def load(self, file: ImageFile) -> Pixels:
        """See `roiseg.extractor.inputs.Images`."""
        pixels = np.empty(self.store.shapes[IMAGE], dtype=np.uint8)
        self.store.read_into(file.row, IMAGE, pixels)
        return pixels if self.color == "rgb" else np.ascontiguousarray(pixels[::-1])


def write_teacher(split: str, backbone: Path, stored: StoredSections) -> dict[str, float]:
    """Fill the teacher's store of a split, going on where an earlier run was cut short.

    Views are those of the features, for students learn from the mirrored one too.

    Args:
        split: `train` or `val`.
        backbone: the U-net as a cut graph, see `roiseg.export.net_onnx.as_backbone`.
        stored: sections of the feature store.

    Returns:
        Figures of the extraction.

    Raises:
        StoreMismatchError: the store has no images, or those of another index.
        GraphError: the U-net's file isn't there, or is no cut graph.
        StoreDamagedError, DiskSpaceError, ProviderError: see `extract`.
    """
    if not backbone.is_file():
        raise GraphError(f"{backbone}: no such file, whose logits are to be stored; run `dvc repro unet`, or `dvc pull`")
    store = FeatureStore(FEATURES / f"{split}.zarr", checksums=stored.reader.checksums)
    store.check(asked_fields(stored.extractor, stored.cache))
    store.check_layers([IMAGE])
    store.check_rows(Index(INDEX / split, stored.extractor.input_hw, stored.extractor.resize).image_ids, "the index")
    extractor = stored.extractor.model_copy(update={"layers": {TEACHER: PERSON_LOGITS}, "detections": None})
    cache = stored.cache.model_copy(update={"dtype": "float16", "image": False, "tile_hw": None, "views": store.views})
    paths = ExtractPaths(
        images=Path(),
        index=INDEX / split / "images.parquet",
        backbone=backbone,
        scales=None,
        store=STORES / f"{split}.zarr",
        detections=None,
    )
    return extract(f"teacher@{split}", paths, extractor, cache, stored.reader, StoredImages(store, extractor.color))
