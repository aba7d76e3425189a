"""The picture with its people on it; what is drawn costs a window each, not a picture each."""

from collections.abc import Sequence

import numpy as np

from roiseg.evaluate.overlays import MASK_ALPHA, Person, Picture, draw_boxes, outline, tint
from roiseg.evaluate.palette import instance_colour
from roiseg.predict.person import PersonMask


def draw_people(pixels: Picture, people: Sequence[PersonMask]) -> Picture:
    """A copy of a picture with everybody's mask, outline, box and number; those who stand first keep their colours.

    Args:
        pixels: (H, W, 3) uint8, BGR.
        people: found in it.
    """
    canvas = pixels.copy()
    colours = [instance_colour(number) for number in range(1, len(people) + 1)]
    for person, colour in zip(people, colours, strict=True):
        where = person.placed.slices
        canvas[where] = tint(canvas[where], person.placed.mask, colour, MASK_ALPHA)
    for person, colour in zip(people, colours, strict=True):
        where = person.placed.slices
        if person.placed.mask.size:
            canvas[where] = outline(canvas[where], person.placed.mask, colour)
    nothing = np.broadcast_to(np.False_, canvas.shape[:2])
    return draw_boxes(canvas, [Person(nothing, person.box_image, number) for number, person in enumerate(people, start=1)])
