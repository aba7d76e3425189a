"""A filter's ONNX on the masks of people, each in its own window.

Symbols: (H, W) size of the image.
"""

import json
from pathlib import Path

import numpy as np

from roiseg.errors import GraphError
from roiseg.onnx_names import METADATA_KEY
from roiseg.placed import Pasted, Placed, within
from roiseg.runtime import make_session, run_model
from roiseg.types import HW, Provider, Window


class Smoothing:
    """An exported filter."""

    def __init__(self, path: Path, provider: Provider) -> None:
        """Open a file that `roiseg export-filter` wrote.

        Raises:
            GraphError: not such a file.
            ProviderError: the provider isn't there.
        """
        self._file = path
        self._session, _ = make_session(path, provider, "float32", whole=False)
        try:
            told = json.loads(self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "{}"))
        except ValueError:
            told = None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        known = isinstance(told, dict) and isinstance(told.get("reach_px"), int) and told.get("channels") == 1
        if not known or len(inputs) != 1 or len(outputs) != 1:
            raise GraphError(
                f"{path}: expected a filter of one channel that `roiseg export-filter` wrote, which says its `reach_px` under "
                f"{METADATA_KEY!r}; write it with 1 channel"
            )
        self._reach = int(told["reach_px"])
        self._input, self._output = inputs[0].name, outputs[0].name

    def __call__(self, person: Pasted, image_hw: HW) -> Pasted:
        """What a filter of the whole image would leave of a mask.

        It sees the claim, which is soft: a hard mask is all edge, and what smooths but keeps edges would leave it as it is. A pixel
        further than the reach from the window can't change, and one nearer sees no further than twice the reach: the part of the
        image that far around the window is all that the filter has to see.

        Args:
            person: in an image.
            image_hw: (H, W).

        Returns:
            The mask in its window grown by the reach; an empty window as it came.
        """
        if not person.placed.mask.size:
            return person
        window, seen = (_grown(person.placed.window, self._reach * times, image_hw) for times in (1, 2))
        claims = np.zeros((1, 1, seen.bottom - seen.top, seen.right - seen.left), dtype=np.float32)
        claims[0, 0][within(person.placed.window, seen)] = person.claim
        (values,) = run_model(self._session, self._file, [self._output], {self._input: claims})
        claim = np.ascontiguousarray(values[0, 0][within(window, seen)])
        probability = np.zeros(claim.shape, dtype=np.float32)
        probability[within(person.placed.window, window)] = person.probability
        return Pasted(Placed(window, claim > 0.5), probability, person.score, claim)


def _grown(window: Window, by: int, image_hw: HW) -> Window:
    top, bottom, left, right = window
    return Window(max(top - by, 0), min(bottom + by, image_hw[0]), max(left - by, 0), min(right + by, image_hw[1]))
