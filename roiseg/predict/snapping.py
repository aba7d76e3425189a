"""Boxes of people snapped to them before their masks are made.

Where the head and the Snapper read one backbone, it runs once for both.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roiseg.errors import GraphError
from roiseg.geometry import Floats
from roiseg.network_input import Pixels
from roiseg.predict.encoder import Encoded
from roiseg.predict.predictor import Predictor
from roiseg.snap.snapper import Snapper
from roiseg.types import Provider

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapping:
    """A Snapper beside a predictor.

    Attributes:
        snapper: what snaps.
        shared: whether what the predictor encodes holds the Snapper's layers too.
    """

    snapper: Snapper
    shared: bool

    def __call__(self, encoded: Encoded, pixels: Pixels, boxes_image: Floats, what: str) -> Floats:
        """Snapped boxes (R, 4) xyxy in the image frame; edges that it is too unsure of are where they were.

        Args:
            encoded: the image, by the predictor.
            pixels: the same image (H, W, 3) uint8, BGR.
            boxes_image: (R, 4) xyxy, image frame.
            what: what to call the image in messages.

        Raises:
            BoxError: see `Snapper.snap_encoded`.
        """
        if not len(boxes_image):
            return boxes_image
        (own,) = [encoded] if self.shared else self.snapper.encode([pixels])
        return np.stack([box.box_image for box in self.snapper.snap_encoded(own, boxes_image, what)])


def snapper_for(predictor: Predictor, path: Path, provider: Provider) -> Snapping:
    """A Snapper for the boxes of a predictor, which from now on encodes images for both where it can.

    Args:
        predictor: whose boxes they are.
        path: folder that `snapper_export` wrote, or a file in it.
        provider: where it runs.

    Raises:
        GraphError: no Snapper there.
    """
    snapper = Snapper(path, provider)
    if not snapper.same_backbone(predictor.metadata):
        return Snapping(snapper, shared=False)
    try:
        predictor.read_also(snapper.reading)
    except GraphError as error:
        logger.info("the Snapper runs a backbone of its own (%s)", error)
        return Snapping(snapper, shared=False)
    return Snapping(snapper, shared=True)
