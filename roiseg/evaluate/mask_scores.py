"""Mask AP of a head and, beside it, of what needs no learning: all of them asked about the same boxes."""

from collections.abc import Mapping, Sequence

from roiseg.evaluate.baselines import ELLIPSE, NEVER_CLASS_2, WHOLE_BOX, beside
from roiseg.evaluate.boundary_ap import boundary_protocol
from roiseg.evaluate.coco_eval import MaskAp
from roiseg.evaluate.coco_truth import Json, Truth

MODEL = "model"
ANSWERS = (MODEL, NEVER_CLASS_2, WHOLE_BOX, ELLIPSE)

IMAGES_TOGETHER = 64
"""Images whose masks are in memory at a time: pycocotools is slow to begin, however few they are."""


class MaskScores:
    """Scores the results of each of `ANSWERS`, some images at a time."""

    def __init__(self, truth: Truth, prefix: str, *, boundary: bool) -> None:
        """Begin.

        Args:
            truth: the people to find.
            prefix: of the figures: `oracle_box_` or `detector_box_`.
            boundary: whether boundary AP of the model is wanted too.

        Raises:
            PackageError: it is, and faster-coco-eval isn't installed.
        """
        self._prefix = prefix
        self._aps = {name: MaskAp(truth) if name == MODEL else MaskAp(truth, areas=("all",)) for name in ANSWERS}
        self._boundary = MaskAp(truth, boundary_protocol(), ("all",)) if boundary else None
        self._images: list[int] = []
        self._waiting: dict[str, list[Json]] = {name: [] for name in ANSWERS}

    def add(self, image_id: int, answers: Mapping[str, Sequence[Json]]) -> None:
        """Take the results of an image.

        Args:
            image_id: COCO's; each image once.
            answers: answer -> COCO results.
        """
        self._images.append(image_id)
        for name, results in answers.items():
            self._waiting[name] += results
        if len(self._images) == IMAGES_TOGETHER:
            self._score()

    def _score(self) -> None:
        for name, results in self._waiting.items():
            self._aps[name].add(self._images, results)
        if self._boundary is not None:
            self._boundary.add(self._images, self._waiting[MODEL])
        self._images, self._waiting = [], {name: [] for name in ANSWERS}

    def figures(self, seed: int, resamples: int) -> dict[str, float]:
        """COCO's figures of the model with the interval of its AP, its boundary AP where wanted, and AP of the others.

        Args:
            seed: of the bootstrap.
            resamples: of the bootstrap.
        """
        self._score()
        model, lead = self._aps[MODEL], f"{self._prefix}ap"
        found = model.figures(self._prefix)
        interval = model.interval(seed, resamples)
        if interval is not None:
            found |= {f"{lead}_low": interval[0], f"{lead}_high": interval[1]}
        if self._boundary is not None and self._boundary.ap is not None:
            found[f"{self._prefix}boundary_ap"] = self._boundary.ap
        for name in ANSWERS:
            if name != MODEL:
                found |= beside(name, self._aps[name].figures(self._prefix))
        return found

    def curves(self) -> list[dict[str, object]]:
        """Precision over recall of the model, see `MaskAp.curves`."""
        self._score()
        return self._aps[MODEL].curves()
