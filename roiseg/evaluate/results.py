"""COCO results: masks with scores, as a JSON list that any COCO tool reads. Never all in memory."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from roiseg.classes import Bools
from roiseg.coco import MAX_SHOWN, segmentation_fault
from roiseg.errors import ResultsError
from roiseg.evaluate.coco_truth import Json, Truth
from roiseg.masks import encode_mask

BLOCK = 1 << 20
"""Characters that are read at a time."""

LONGEST = 64 * BLOCK
"""Characters of one result at most; what isn't whole by then is broken."""

_SPACE = re.compile(r"[ \t\r\n]*")


def mask_result(image_id: int, category_id: int, score: float, mask: Bools, annotation_id: int | None = None) -> Json:
    """One COCO result.

    Without `bbox`: pycocotools would take the size of the person from it, not from the mask.

    Args:
        image_id: COCO's id.
        category_id: that of the annotated people.
        score: in [0, 1]; six digits are kept.
        mask: (H, W) of the image.
        annotation_id: the person that was asked for, where the box was an annotated one.
    """
    asked = {} if annotation_id is None else {"annotation_id": annotation_id}
    return {
        "image_id": image_id,
        "category_id": category_id,
        **asked,
        "score": round(score, 6),
        "segmentation": encode_mask(mask),
    }


@contextmanager
def new_results(path: Path) -> Iterator[Callable[[Json], None]]:
    """A results file to write one result at a time; it takes the place of `path` only when the block ends well.

    Yields:
        What writes a result; a score that isn't finite is a ValueError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.partial")
    try:
        with aside.open("w", encoding="utf-8") as file:
            begin = "["

            def write(result: Json) -> None:
                nonlocal begin
                text = json.dumps(result, allow_nan=False)
                file.write(f"{begin}\n{text}")
                begin = ","

            yield write
            file.write("\n]\n" if begin == "," else "[]\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def read_results(path: Path) -> Iterator[Json]:
    """The results of a file, one at a time, whatever wrote it.

    Raises:
        ResultsError: missing, not JSON, or not a list of results.
    """
    if not path.is_file():
        raise ResultsError(f"{path}: no such results file; write one, or run `dvc pull {path}`")
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from _items(path, lambda: file.read(BLOCK))


def _items(path: Path, more: Callable[[], str]) -> Iterator[Json]:
    """The records of a JSON list that comes in blocks."""
    decode = json.JSONDecoder().raw_decode
    text, count = more(), 0
    while text.isspace():
        text = more()
    place = _behind_space(text, 0)
    if not text.startswith("[", place):
        raise ResultsError(
            f"{path}: begins with {text[place : place + 1]!r}, expected '[', a list of COCO results (annotations "
            "begin with '{'); give the file that results were written to"
        )
    place += 1
    while True:
        place = _behind_space(text, place)
        if text.startswith("]", place):
            return
        try:
            if count and not text.startswith(",", place):
                raise ValueError("expected ',' or ']'")
            item, end = decode(text, _behind_space(text, place + bool(count)))
        except ValueError as error:
            block = more() if len(text) - place < LONGEST else ""
            if not block:
                raise ResultsError(
                    f"{path}: not valid JSON behind result {count} ({error}); is the file whole? write it again"
                ) from error
            text, place = text[place:] + block, 0
            continue
        if not isinstance(item, dict):
            raise ResultsError(f"{path}: entry {count} is {item!r}, expected a record with image_id and score; write COCO results")
        yield item
        place, count = end, count + 1


def _behind_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return place if found is None else found.end()


def check_results(truth: Truth, results: Iterable[Json], wanted: Collection[int] = ()) -> int:
    """See that results belong to the annotated images and can be scored.

    Args:
        truth: the annotated people.
        results: COCO results, read once.
        wanted: annotations that must have a result, such as `Index.roi_annotation_ids` for results from annotated boxes.

    Returns:
        How many results there are.

    Raises:
        ResultsError: every kind of fault with an example and how many results have it, all in one message.
    """
    kinds: Counter[str] = Counter()
    examples: dict[str, str] = {}
    missing = set(wanted)
    count = 0
    for result in results:
        count += 1
        if isinstance(result.get("annotation_id"), int):
            missing.discard(result["annotation_id"])
        fault = truth.fault(result) or _runs_fault(truth, result)
        if fault is not None:
            kinds[fault[0]] += 1
            examples.setdefault(*fault)
    faults = [f"{number} of {count} results {kind}; the first: {examples[kind]}" for kind, number in kinds.items()]
    if missing:
        shown = ", ".join(str(item) for item in sorted(missing)[:MAX_SHOWN])
        faults.append(
            f"{len(missing)} of {len(set(wanted))} annotated people with an ROI have no result, such as annotation {shown}; "
            "expected one each, so run `dvc repro evaluate` again on the whole split"
        )
    if faults:
        raise ResultsError("results can't be scored:\n  " + "\n  ".join(faults))
    return count


def _runs_fault(truth: Truth, result: Json) -> tuple[str, str] | None:
    fault = segmentation_fault(result["segmentation"], truth.image_hw(result["image_id"]))
    return None if fault is None else ("can't be decoded", f"image {result['image_id']}: {fault}; write it again")
