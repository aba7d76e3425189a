"""Params of the built-in sample."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from roiseg.params import Section


class SampleParams(Section):
    """The section `sample` of params.yaml.

    Attributes:
        seed: Seed of the pictures and of the backbone's weights.
        train_images: Number of training pictures.
        val_images: Number of validation pictures.
        image_hw: Height and width of the pictures, in pixels.
        max_people: Most annotated people in one picture.
        backbone_width: Channels of the backbone over those of the full network.
        backbone_images: Pictures that the backbone learns from; they are in neither split.
        backbone_steps: Training steps of the backbone; 0 leaves its weights random.
    """

    seed: Annotated[int, Field(ge=0)]
    train_images: Annotated[int, Field(ge=1)]
    val_images: Annotated[int, Field(ge=1)]
    image_hw: tuple[Annotated[int, Field(ge=128)], Annotated[int, Field(ge=128)]]
    max_people: Annotated[int, Field(ge=1, le=20)]
    backbone_width: Annotated[float, Field(gt=0, le=1)]
    backbone_images: Annotated[int, Field(ge=1)]
    backbone_steps: Annotated[int, Field(ge=0)]
