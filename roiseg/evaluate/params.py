"""Section `evaluate`."""

from pydantic import Field

from roiseg.params import Section
from roiseg.train.checkpoint import CHECKPOINT_FILE


class EvaluateParams(Section):
    """Section `evaluate`."""

    checkpoint: str = Field(pattern=CHECKPOINT_FILE)
    images_per_batch: int = Field(ge=1)
    detections: str = Field(pattern=r"\.(parquet|json)$")
    boundary_ap: bool
