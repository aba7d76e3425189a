"""Section `analyze`."""

from typing import Annotated

from pydantic import Field, field_validator

from roiseg.params import Section

LARGEST_EPS = 0.5
"""Above 2/3 the log weights of three equal classes would all vanish."""


class AnalyzeParams(Section):
    """Section `analyze`."""

    annotations: str = Field(min_length=1)
    padding: float | None = Field(ge=0, allow_inf_nan=False)
    eps: float = Field(gt=0, le=LARGEST_EPS)
    separation_boost: float = Field(gt=0, allow_inf_nan=False)
    align_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)

    @field_validator("align_sizes")
    @classmethod
    def _ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("expected every size once, the smallest first")
        return value
