"""What every head returns."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class HeadOutput(NamedTuple):
    """Logits of R ROIs.

    Attributes:
        mask_logits: (R, 3, h, w) float32; classes background, target, non-target; ROI frame, cell centres at +0.5.
        aux: further outputs that only training looks at, by name.
    """

    mask_logits: Tensor
    aux: Mapping[str, Tensor]
