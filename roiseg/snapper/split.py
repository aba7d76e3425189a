"""A split as Snapper reads it. Apart from training, so that what only scores or exports a model doesn't hang on the loop."""

from pathlib import Path

from roiseg.objects import OBJECTS, Objects
from roiseg.snapper.checks import snapper_layers
from roiseg.snapper.data import SnapDataset
from roiseg.snapper.params import SnapperParams
from roiseg.stored import StoredSections

MODELS = Path("models/snapper")


def open_boxes(params: SnapperParams, stored: StoredSections, split: str) -> SnapDataset:
    """Boxes of a split and what the model reads of its images.

    Args:
        params: section `snapper`.
        stored: sections of the store.
        split: `train` or `val`.

    Raises:
        AnnotationError: see `Objects`.
        StoreError, StoreMismatchError, StoreDamagedError: see `FeatureStore`.
    """
    index, store = stored.open(split)
    objects = Objects(OBJECTS / f"{split}.parquet", params.data.min_box_px)
    return SnapDataset(index, objects, store, snapper_layers(params.model), params.data)
