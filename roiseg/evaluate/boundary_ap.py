"""Boundary AP (Cheng et al., "Boundary IoU", 2021): mask AP that asks for the outline too, as faster-coco-eval draws it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from roiseg.errors import PackageError

DILATION = 0.02
"""Width of the outline as a share of the image's diagonal, the published one."""


def boundary_protocol() -> type[COCOeval]:
    """A COCOeval whose IoU is the smaller of that of two masks and that of their outlines, for `MaskAp`.

    An outline is all of a mask that lies within 2 % of the image's diagonal of the outside, the image's border included. Masks of
    less than twice that width are all outline, and so are scored as in mask AP.

    Raises:
        PackageError: faster-coco-eval isn't installed.
    """
    try:
        from faster_coco_eval import mask as outlines
    except ImportError as error:
        raise PackageError(
            f"evaluate.boundary_ap is true, but {error.name or 'faster_coco_eval'!r} isn't installed; run "
            "`uv sync --extra boundary` (or `pip install faster-coco-eval`), or set evaluate.boundary_ap to false"
        ) from error

    class _BoundaryEval(COCOeval):  # type: ignore[misc]
        def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803, ANN401 - names and types of pycocotools
            whole = super().computeIoU(imgId, catId)
            if len(whole) == 0:
                return whole
            people, results = self._gts[imgId, catId], self._dts[imgId, catId]
            order = np.argsort([-item["score"] for item in results], kind="mergesort")[: self.params.maxDets[-1]]
            drawn = [
                outlines.rleToBoundary(item["segmentation"], DILATION) for item in (*people, *(results[place] for place in order))
            ]
            ious = coco_mask.iou(drawn[len(people) :], drawn[: len(people)], [0] * len(people))
            found: NDArray[np.float64] = np.minimum(whole, ious)
            return found

    return _BoundaryEval
