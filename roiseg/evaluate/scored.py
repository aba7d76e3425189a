"""COCO results that any program wrote, scored against the annotations that `prepare` left."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from roiseg.evaluate.bootstrap import RESAMPLES, SEED
from roiseg.evaluate.boundary_ap import boundary_protocol
from roiseg.evaluate.coco_eval import MaskAp
from roiseg.evaluate.coco_truth import Json, Truth
from roiseg.evaluate.results import check_results, read_results
from roiseg.index import Index

CHUNK = 64
"""Images scored at a time."""


@dataclass(frozen=True)
class Scored:
    """A file of results and its figures.

    Attributes:
        file: it.
        results: how many there are.
        oracle: whether each names the annotated person whose box it was made from: not comparable with a detector's.
        figures: COCO's, see `MaskAp.figures`, with `ap_low` and `ap_high`, and `boundary_ap` where wanted.
    """

    file: Path
    results: int
    oracle: bool
    figures: Mapping[str, float]

    def line(self) -> str:
        """What a person wants to know of it."""
        kind = "from annotated boxes (oracle-box, not comparable with a detector's)" if self.oracle else "masks with scores"
        told = dict(self.figures)
        interval = f" ({told.pop('ap_low'):.3f} to {told.pop('ap_high'):.3f})" if "ap_low" in told else ""
        shown = ", ".join(f"{name} {value:.3f}{interval if name == 'ap' else ''}" for name, value in told.items())
        return f"{self.file}: {self.results} results, {kind}\n  {shown}"


def score_results(file: Path, truth: Truth, index: Index, *, boundary: bool) -> Scored:
    """Score a file.

    Args:
        file: COCO results; their RLEs are held, some hundred bytes each.
        truth: the annotated people.
        index: tables of the same split.
        boundary: whether boundary AP is wanted.

    Raises:
        ResultsError: a file that can't be read or scored; or, where results name the annotations whose boxes they were made from,
            somebody with an ROI who has none.
        PackageError: boundary AP is wanted, and faster-coco-eval isn't installed.
    """
    scorers = {"": MaskAp(truth)} | ({"boundary_": MaskAp(truth, boundary_protocol())} if boundary else {})
    by_image: dict[int, list[Json]] = defaultdict(list)
    results = list(read_results(file))
    oracle = bool(results) and all("annotation_id" in result for result in results)
    check_results(truth, results, index.roi_annotation_ids.tolist() if oracle else ())
    for result in results:
        by_image[result["image_id"]].append(result)
    images = sorted(by_image)
    for start in range(0, len(images), CHUNK):
        chosen = images[start : start + CHUNK]
        for scorer in scorers.values():
            scorer.add(chosen, [result for image_id in chosen for result in by_image[image_id]])
    figures = scorers[""].figures("")
    interval = scorers[""].interval(SEED, RESAMPLES)
    if interval is not None:
        figures |= {"ap_low": interval[0], "ap_high": interval[1]}
    if boundary and (outlined := scorers["boundary_"].ap) is not None:
        figures["boundary_ap"] = outlined
    return Scored(file, len(results), oracle, figures)
