"""What the params of all heads have in common."""

from typing import Annotated

from pydantic import Field

from roiseg.params import Section

Cells = Annotated[int, Field(ge=1, le=1024)]


class HeadParams(Section):
    """Section `model`, as far as every family has it.

    Attributes:
        head: name of the family.
        layers: layers of the store that the head reads, in order.
        mask_hw: (h, w) of the mask logits.
    """

    head: str
    layers: tuple[str, ...] = Field(min_length=1)
    mask_hw: tuple[Cells, Cells]

    @property
    def aux_names(self) -> frozenset[str]:
        """Outputs that the head gives beside its mask logits while it trains."""
        return frozenset()
