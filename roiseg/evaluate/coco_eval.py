"""Mask AP by the COCO protocol, some images at a time.

pycocotools matches results with people; what stays of an image is which of its results have found somebody. The figures are those
of one `COCOeval` over everything, whose memory grows with all masks, to the last bit.

From ground-truth boxes it is an oracle-box score, not comparable with a detector's mask AP.

Symbols: I images, T = 10 thresholds of IoU, A = 4 ranges of area.
"""

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from roiseg.errors import ResultsError
from roiseg.evaluate.coco_truth import AREAS, Json, Truth
from roiseg.evaluate.precision_recall import RECALLS, Matches
from roiseg.geometry import Floats

MAX_RESULTS = 100
"""Results of an image that COCO counts, best first."""

NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_1", "ar_10", "ar", "ar_small", "ar_medium", "ar_large")
"""Figures in the order in which COCO tells them."""

CURVES = {"IoU 0.5": slice(0, 1), "IoU 0.75": slice(5, 6), "mean of IoUs": slice(None)}
"""Curve -> places in `IOUS`; the mean is over all of them, as in AP."""


class MaskAp:
    """Scores results against people, image by image."""

    def __init__(self, truth: Truth, protocol: type[COCOeval] = COCOeval, areas: Sequence[str] = tuple(AREAS)) -> None:
        """Begin with every image unanswered.

        Args:
            truth: the people to find.
            protocol: COCOeval, or one with another IoU.
            areas: of `AREAS`, "all" among them: those that figures are wanted of. Each takes time and memory.
        """
        self._truth, self._protocol, self._areas = truth, protocol, tuple(areas)
        self._added: set[int] = set()
        self._parts: list[Matches] = []

    def add(self, image_ids: Sequence[int], results: Sequence[Json]) -> None:
        """Match the results of some images; those that are never added count as images without results.

        Args:
            image_ids: any images of the truth, in any order, each once.
            results: COCO results (image_id, category_id, score, segmentation) of these images, all of them.

        Raises:
            ResultsError: a result that `Truth.check` refuses, of none of these images, or of images that were added before.
        """
        twice = sorted(self._added.intersection(image_ids))
        if twice:
            raise ResultsError(f"image {twice[0]}: its results were added before; add all results of an image at once")
        asked = set(image_ids)
        for result in results:
            self._truth.check(result)
            if result["image_id"] not in asked:
                raise ResultsError(
                    f"image {result['image_id']}: a result for it came with those of other images; add it with its own"
                )
        self._added |= asked
        if results:
            # An object for each image would take more room than what is in it.
            parts = self._matched(sorted({int(result["image_id"]) for result in results}), results)
            self._parts.append(Matches.together(parts, len(self._areas)))

    def _matched(self, image_ids: Sequence[int], results: Sequence[Json]) -> list[Matches]:
        keys = ("image_id", "category_id", "score", "segmentation")
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = self._truth.dataset(image_ids)
            truth.createIndex()
            # pycocotools writes into what it gets; without bbox it takes the size of a result from its mask.
            found = truth.loadRes([{key: result[key] for key in keys} for result in results])
            evaluation = self._protocol(truth, found, "segm")
            evaluation.params.areaRng = [list(AREAS[area]) for area in self._areas]
            evaluation.params.areaRngLbl = list(self._areas)
            evaluation.evaluate()
        parts = []
        places = np.searchsorted(self._truth.image_ids, image_ids)
        for number, place in enumerate(places.tolist()):
            seen = evaluation.evalImgs[number :: len(image_ids)]
            scores = np.array(seen[0]["dtScores"], dtype=np.float64)
            matched, ignored = (
                np.stack([item[key] for item in seen]).astype(bool).transpose(2, 0, 1) for key in ("dtMatches", "dtIgnore")
            )
            images = np.full(len(scores), place, dtype=np.int64)
            parts.append(Matches(images, np.arange(len(scores)), scores, matched, ignored))
        return parts

    def _together(self) -> Matches:
        """All matches; kept as one part, so that asking again costs little."""
        self._parts = [Matches.together(self._parts, len(self._areas))]
        return self._parts[0]

    def _curves(self, area: str = "all", count: int = MAX_RESULTS) -> tuple[Floats, Floats] | None:
        """See `Ranked.curves`; None where nobody is of that size."""
        positives = int(self._truth.positives[:, list(AREAS).index(area)].sum())
        if not positives:
            return None
        return self._together().first(count, self._areas.index(area)).curves(np.ones(len(self._truth.image_ids)), positives)

    @property
    def ap(self) -> float | None:
        """Mean precision over IoUs 0.5 to 0.95 and all recalls; None where there is nobody to find."""
        found = self._curves()
        return None if found is None else float(found[0].ravel().mean())

    def figures(self, prefix: str) -> dict[str, float]:
        """COCO's twelve figures of the wanted areas; of a size that nobody has there is none, and without results all are 0.

        * `ap`, `ap50`, `ap75`: at IoUs 0.5 to 0.95, at 0.5, at 0.75.
        * `ap_small`, `ap_medium`, `ap_large`: of people of an area up to 32^2, 96^2 and above, in square pixels.
        * `ar_1`, `ar_10`, `ar`: mean recall with 1, 10 and 100 results an image.
        * `ar_small`, `ar_medium`, `ar_large`: the last, by size.

        Args:
            prefix: such as `oracle_box_`.
        """
        found: dict[str, float] = {}
        for area in self._areas:
            curves = self._curves(area)
            if curves is None:
                continue
            precision, recall = curves
            end = "" if area == "all" else f"_{area}"
            found[f"ap{end}"], found[f"ar{end}"] = float(precision.ravel().mean()), float(recall.mean())
            if area == "all":
                found["ap50"], found["ap75"] = (float(precision[CURVES[name]].ravel().mean()) for name in ("IoU 0.5", "IoU 0.75"))
        for count in (1, 10):
            curves = self._curves(count=count)
            if curves is not None:
                found[f"ar_{count}"] = float(curves[1].mean())
        return {f"{prefix}{name}": found[name] for name in NAMES if name in found}

    def curves(self) -> list[dict[str, object]]:
        """Precision over recall as rows of a CSV: `curve` (see `CURVES`), `recall`, `precision`; none where there is nobody."""
        found = self._curves()
        if found is None:
            return []
        rows: list[dict[str, object]] = []
        for name, part in CURVES.items():
            pairs = zip(RECALLS.tolist(), found[0][part].mean(axis=0).tolist(), strict=True)
            rows += [{"curve": name, "recall": round(recall, 2), "precision": round(value, 6)} for recall, value in pairs]
        return rows

    def interval(self, seed: int, resamples: int) -> tuple[float, float] | None:
        """Percentile bootstrap of `ap` over images (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).

        An image drawn twice has all its people and results twice.

        Args:
            seed: of the draws.
            resamples: data sets drawn, each of I images.

        Returns:
            The 2.5th and 97.5th percentile; None where there is nobody to find.
        """
        positives = self._truth.positives[:, list(AREAS).index("all")].astype(np.float64)
        if not positives.sum():
            return None
        ranked = self._together().first(MAX_RESULTS, self._areas.index("all"))
        rng, count = np.random.default_rng(seed), len(positives)
        found = []
        for _ in range(resamples):
            weights = np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)
            people = float(weights @ positives)
            if people:
                found.append(ranked.curves(weights, people)[0].ravel().mean())
        low, high = np.percentile(found, [2.5, 97.5]).tolist()
        return low, high
