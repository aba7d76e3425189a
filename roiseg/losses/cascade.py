"""Stages of a cascade: each one's logits have the whole loss of a mask (spec 9.3)."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from roiseg.errors import ParamsError
from roiseg.nn.outputs import HeadOutput

EARLIER = ("stage_1", "stage_2")
"""Outputs of the stages before the last one: (R, 3, h, w) logits each; those of the last one are `mask_logits`."""

StageWeight = Annotated[float, Field(ge=0)]
StageWeights = tuple[StageWeight, StageWeight, StageWeight]


def earlier_stages(output: HeadOutput) -> list[Tensor]:
    """Logits of the stages before the last one; none for a head that isn't a cascade.

    Raises:
        ParamsError: some of them are there and some aren't.
    """
    found = [name for name in EARLIER if name in output.aux]
    if found and len(found) < len(EARLIER):
        raise ParamsError(
            f"loss.cascade weighs {len(EARLIER) + 1} stages, but the head gives only {', '.join(found)} before its last one, "
            f"expected {' and '.join(EARLIER)}, or neither; take a head of three stages, or of one"
        )
    return [output.aux[name] for name in found]
