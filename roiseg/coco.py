"""COCO annotation files: read, check, and keep the people.

Every filter counts what it drops.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

import numpy as np
from pydantic import Field

from roiseg.errors import AnnotationError
from roiseg.masks import rle_runs
from roiseg.params import Section, nearest

BOX_TOLERANCE_PX = 1.0
"""Pixels by which a box may leave its image before it counts as wrong; COCO's own boxes do, by rounding."""

MAX_SHOWN = 8
"""Faults of one file that a message spells out."""

Subset = Literal["full", "500", "100"]
Json = dict[str, Any]


class SplitParams(Section):
    """Where the images and annotations of one split are, and how much of it is used."""

    images: str = Field(min_length=1)
    annotations: str = Field(min_length=1)
    subset: Subset


class DataParams(Section):
    """Section `data`."""

    train: SplitParams
    val: SplitParams
    category: str = Field(min_length=1)
    min_box_px: float = Field(ge=1)
    bad_annotations: Literal["error", "drop"]
    subset_seed: int = Field(ge=0)
    fixed_images: tuple[str, ...]

    def split(self, name: str) -> SplitParams:
        """Params of `train` or `val`."""
        return {"train": self.train, "val": self.val}[name]


@dataclass(frozen=True)
class People:
    """The people of one annotation file.

    Attributes:
        images: COCO image records that show at least one usable person and no crowd of people, by id.
        annotations: the person annotations of those images, by (image id, id).
        category: the category record.
        extra: top-level keys of the file that are kept as they are (`info`, `licenses`).
        counts: what was found and what was dropped, by reason.
    """

    images: list[Json]
    annotations: list[Json]
    category: Json
    extra: Json = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def prepared_name(annotations: str, subset: Subset) -> str:
    """Name of the person-only file made from `annotations`, as in the seed (spec 3.1)."""
    stem = f"{Path(annotations).stem}_person_only_no_crowd"
    return f"{stem}.json" if subset == "full" else f"{stem}_{subset}.json"


def read_json(path: Path) -> Json:
    """A COCO file with its three lists.

    Raises:
        AnnotationError: missing, not JSON, or without one of the lists.
    """
    if not path.is_file():
        raise AnnotationError(f"{path}: no such annotation file; set data.*.annotations in params.yaml to a COCO JSON")
    try:
        with path.open(encoding="utf-8") as file:
            data = json.load(file)
    except ValueError as error:
        raise AnnotationError(f"{path}: not valid JSON ({error}); is the download whole?") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise AnnotationError(f"{path}: no list {key!r}, expected a COCO instances file")
    return dict(data)


def _check_ids(records: list[Json], what: str, path: Path) -> None:
    for place, record in enumerate(records):
        if not isinstance(record, dict) or not isinstance(record.get("id"), int):
            raise AnnotationError(f"{path}: {what} number {place} of its list has no integer 'id', expected a record")
    counts = Counter(record["id"] for record in records)
    twice = [str(key) for key, count in counts.items() if count > 1]
    if twice:
        raise AnnotationError(
            f"{path}: {what} id {', '.join(twice[:MAX_SHOWN])} is there more than once ({len(twice)} such ids); "
            "expected every id once, so remove or renumber the copies"
        )


def _category(data: Json, name: str, path: Path) -> Json:
    for category in data["categories"]:
        if category.get("name") == name:
            return dict(category)
    known = [str(category.get("name")) for category in data["categories"]]
    raise AnnotationError(f"{path}: no category {name!r} (data.category); {nearest(name, known)}")


def segmentation_fault(value: Any, image_hw: tuple[int, int]) -> str | None:  # noqa: ANN401 - anything may be in a file
    """What is wrong with a COCO `segmentation`, or None."""
    if isinstance(value, dict):
        size = value.get("size")
        if not isinstance(value.get("counts"), str | list) or size != list(image_hw):
            return f"its RLE has size {size}, expected [{image_hw[0]}, {image_hw[1]}] and counts"
        runs = value["counts"] if isinstance(value["counts"], list) else rle_runs(value["counts"])
        if runs is None or not all(isinstance(run, int) and run >= 0 for run in runs):
            return "its RLE counts can't be read, expected run lengths of 0 and more"
        if sum(runs) != image_hw[0] * image_hw[1]:
            return f"its RLE counts cover {sum(runs)} pixels, expected {image_hw[0] * image_hw[1]}"
        return None
    if not isinstance(value, list) or not value:
        return "it has no segmentation, expected polygons or an RLE"
    for polygon in value:
        if not isinstance(polygon, list) or len(polygon) % 2 or len(polygon) < 6:
            points = len(polygon) / 2 if isinstance(polygon, list) else 0
            return f"a polygon has {points:g} points, expected at least 3 (x, y) pairs"
        if not all(isinstance(item, int | float) for item in polygon):
            return "a polygon holds something that isn't a number, expected x, y, x, y, ..."
        if not np.isfinite(polygon).all():
            return "a polygon holds a number that isn't finite"
    return None


def annotation_fault(annotation: Json, image_hw: tuple[int, int]) -> tuple[str, str] | None:
    """(reason, sentence) for an annotation that can't be used, or None.

    Args:
        annotation: a COCO annotation that isn't a crowd.
        image_hw: size of its image.
    """
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(item, int | float) for item in box):
        return "no_box", f"its bbox is {box!r}, expected [x, y, width, height]"
    x, y, width, height = box
    if not np.isfinite(box).all() or width <= 0 or height <= 0:
        return "zero_area_box", f"its bbox {box} has no area, expected a width and height above 0"
    outside = max(-x, -y, x + width - image_hw[1], y + height - image_hw[0])
    if outside > BOX_TOLERANCE_PX:
        return (
            "box_outside_image",
            f"its bbox {box} leaves the image of {image_hw[1]}x{image_hw[0]} by {outside:g} pixels",
        )
    fault = segmentation_fault(annotation.get("segmentation"), image_hw)
    return ("bad_segmentation", fault) if fault else None


def _leaves_folder(name: str) -> bool:
    return any(path.is_absolute() or ".." in path.parts for path in (PurePosixPath(name), PureWindowsPath(name)))


def _image_sizes(data: Json, path: Path) -> dict[int, tuple[int, int]]:
    sizes = {}
    for image in data["images"]:
        height, width = image.get("height"), image.get("width")
        if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
            raise AnnotationError(
                f"{path}: image {image.get('id')} has height {height!r} and width {width!r}, expected pixels above 0"
            )
        if not isinstance(image.get("file_name"), str):
            raise AnnotationError(f"{path}: image {image.get('id')} has no file_name")
        if _leaves_folder(image["file_name"]):
            raise AnnotationError(
                f"{path}: image {image.get('id')} has file_name {image['file_name']!r}, expected a path inside the folder of "
                "images (data.*.images), else DVC wouldn't see it change; make it relative to that folder"
            )
        sizes[image["id"]] = (height, width)
    return sizes


def load_people(path: Path, category: str, bad_annotations: Literal["error", "drop"]) -> People:
    """Read a COCO file and keep the images that show people but no crowd of people.

    Args:
        path: COCO instances JSON.
        category: name of the category that counts as people.
        bad_annotations: `error` refuses the file when any person annotation can't be used; `drop` leaves those out and
            counts them.

    Raises:
        AnnotationError: broken file, duplicate ids, no such category, nobody in it, or unusable annotations.
    """
    return people_in(read_json(path), path, category, bad_annotations)


def people_in(data: Json, path: Path, category: str, bad_annotations: Literal["error", "drop"]) -> People:
    """As `load_people`, of a file that has been read.

    Args:
        data: by `read_json`.
        path: it was read from, for messages.
        category: see `load_people`.
        bad_annotations: see `load_people`.

    Raises:
        AnnotationError: see `load_people`.
    """
    _check_ids(data["images"], "image", path)
    _check_ids(data["annotations"], "annotation", path)
    record = _category(data, category, path)
    sizes = _image_sizes(data, path)
    people = [item for item in data["annotations"] if item.get("category_id") == record["id"]]
    if not people:
        raise AnnotationError(f"{path}: category {category!r} has no annotations; expected people to learn from")
    for item in people:
        if item.get("image_id") not in sizes:
            raise AnnotationError(
                f"{path}: annotation {item['id']} names image {item.get('image_id')!r}, which isn't among the file's images"
            )
    crowded = {item["image_id"] for item in people if item.get("iscrowd")}
    single = [item for item in people if item["image_id"] not in crowded]
    faults: list[str] = []
    dropped: Counter[str] = Counter()
    kept = []
    for item in single:
        fault = annotation_fault(item, sizes[item["image_id"]])
        if fault is None:
            kept.append(item)
            continue
        dropped[fault[0]] += 1
        faults.append(f"annotation {item['id']} of image {item['image_id']}: {fault[1]}")
    if faults and bad_annotations == "error":
        shown = "\n  ".join(faults[:MAX_SHOWN])
        raise AnnotationError(
            f"{path}: {len(faults)} person annotations can't be used:\n  {shown}\n"
            "mend them, or set data.bad_annotations: drop to leave them out and count them"
        )
    if not kept:
        raise AnnotationError(
            f"{path}: none of the {len(people)} annotations of {category!r} is left: {len(people) - len(single)} are "
            f"in images with a crowd, {len(faults)} can't be used ({dict(dropped)}); expected people to learn from"
        )
    shown_ids = {item["image_id"] for item in kept}
    with_people = {item["image_id"] for item in people}
    counts = {
        "images": len(data["images"]),
        "images_without_people": len(data["images"]) - len(with_people),
        "images_with_crowd": len(crowded),
        "images_without_usable_people": len(with_people - crowded - shown_ids),
        "images_kept": len(shown_ids),
        "people": len(people),
        "people_in_crowd_images": len(people) - len(single),
        **{f"people_{reason}": dropped[reason] for reason in DROP_REASONS},
        "people_kept": len(kept),
    }
    return People(
        images=sorted((item for item in data["images"] if item["id"] in shown_ids), key=lambda item: int(item["id"])),
        annotations=sorted(kept, key=lambda item: (int(item["image_id"]), int(item["id"]))),
        category=record,
        extra={key: data[key] for key in ("info", "licenses") if key in data},
        counts=counts,
    )


DROP_REASONS = ("no_box", "zero_area_box", "box_outside_image", "bad_segmentation")
"""Reasons of `annotation_fault`, in the order they are looked for."""


def choose_subset(people: People, size: int, seed: int, fixed_images: tuple[str, ...]) -> People:
    """`size` images drawn with `seed`; the fixed validation images that the file has are always among them.

    Returns:
        All of `people` where it has no more images than `size`.
    """
    if len(people.images) <= size:
        return people
    wanted = {str(name) for name in fixed_images}
    fixed = [item["id"] for item in people.images if item["file_name"] in wanted][:size]
    rest = np.array([item["id"] for item in people.images if item["id"] not in set(fixed)], dtype=np.int64)
    drawn = np.random.default_rng(seed).permutation(rest)[: size - len(fixed)]
    chosen = {*fixed, *drawn.tolist()}
    return People(
        images=[item for item in people.images if item["id"] in chosen],
        annotations=[item for item in people.annotations if item["image_id"] in chosen],
        category=people.category,
        extra=people.extra,
        counts=people.counts,
    )


def to_coco(people: People) -> Json:
    """A COCO file of these people only."""
    return {**people.extra, "images": people.images, "annotations": people.annotations, "categories": [people.category]}


def people_per_image(people: People) -> dict[int, list[Json]]:
    """Annotations by image id, in the order of `people.images`."""
    groups: dict[int, list[Json]] = {int(item["id"]): [] for item in people.images}
    for item in people.annotations:
        groups[int(item["image_id"])].append(item)
    return groups


def load_prepared(path: Path) -> People:
    """A file that `prepare` wrote; already checked there.

    Raises:
        AnnotationError: missing or broken.
    """
    data = read_json(path)
    if not data["categories"]:
        raise AnnotationError(f"{path}: no category, expected the one that `dvc repro prepare` writes")
    return People(data["images"], data["annotations"], data["categories"][0])
