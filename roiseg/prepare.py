"""COCO files to person-only files, index tables, boxes of all categories, and the validation pictures that are drawn on."""

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from roiseg.coco import DataParams, People, Subset, choose_subset, people_in, people_per_image, prepared_name, read_json, to_coco
from roiseg.errors import MissingImageError, ParamsError
from roiseg.files import new_folder, write_json, write_parquet
from roiseg.geometry import ResizeMode
from roiseg.index import PEOPLE_PER_GROUP, TOO_SMALL, build_tables
from roiseg.objects import build_objects
from roiseg.previews import PREVIEWS_FILE, write_previews
from roiseg.types import HW

SUBSETS: Mapping[Subset, int | None] = {"full": None, "500": 500, "100": 100}

PICTURE_COUNTS = (1, 2, 3, 5)
"""People shown by the pictures that stand in for fixed images that the data set hasn't got (spec 15.4)."""


def check_images(people: People, folder: Path, annotations: str) -> None:
    """See that every image of the annotations is there and not empty.

    Raises:
        MissingImageError: lists the first missing files and says how many there are.
    """
    names = [str(item["file_name"]) for item in people.images]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise MissingImageError(
            f"{folder}: {len(missing)} of {len(names)} images named in {annotations} are missing, "
            f"first {', '.join(missing[:5])}; set data.*.images to the folder that holds them"
        )


def choose_pictures(people: People, fixed_images: tuple[str, ...]) -> list[str]:
    """File names of the pictures that every epoch is drawn on.

    Args:
        people: the validation split.
        fixed_images: wanted file names; all that the split has are taken.

    Returns:
        The fixed images; where the split has none of them, the first images with 1, 2, 3 and 5 people (or, where no image
        has just that many, the nearest count above, then below).
    """
    names = {str(item["file_name"]) for item in people.images}
    fixed = [name for name in fixed_images if name in names]
    if fixed:
        return fixed
    counts = {image_id: len(group) for image_id, group in people_per_image(people).items()}
    chosen: list[str] = []
    for wanted in PICTURE_COUNTS:
        free = [item for item in people.images if item["file_name"] not in chosen]
        if not free:
            break
        best = min(free, key=lambda item: (_count_distance(counts[int(item["id"])], wanted), int(item["id"])))
        chosen.append(str(best["file_name"]))
    return chosen


def _count_distance(count: int, wanted: int) -> tuple[int, int]:
    return abs(count - wanted), int(count < wanted)


def prepare(
    params: DataParams, network_hw: HW, mode: ResizeMode, annotations_out: Path, index_out: Path, objects_out: Path
) -> dict[str, int]:
    """Write the person-only JSONs, the index tables, the boxes of all categories, the validation pictures and the previews.

    Args:
        params: section `data`.
        network_hw: size of the network input, for the unit frame.
        mode: resize rule, likewise.
        annotations_out: folder for the JSONs (replaced whole).
        index_out: folder for `{train,val}/{images,people}.parquet`, `val/pictures/` and `val/previews.parquet` (replaced whole).
        objects_out: folder for `{train,val}.parquet`, boxes of all categories in the images of the index (replaced whole).

    Returns:
        Flat counts of what was kept and dropped, keys `{split}_{what}`.

    Raises:
        AnnotationError: see `roiseg.coco.people_in`.
        MissingImageError: an image of a used subset isn't in its folder.
        ImageReadError: a validation image can't be decoded, or has another size than its annotation says.
        ParamsError: the two splits would be prepared as one file.
    """
    counts: dict[str, int] = {}
    first, second = params.train.annotations, params.val.annotations
    if first != second and prepared_name(first, "full") == prepared_name(second, "full"):
        raise ParamsError(
            f"data.train.annotations is {first!r} and data.val.annotations is {second!r}: both would be prepared as "
            f"{prepared_name(first, 'full')}, expected names of their own; rename one of the files"
        )
    with new_folder(annotations_out) as annotations, new_folder(index_out) as index, new_folder(objects_out) as objects:
        for name in ("train", "val"):
            split = params.split(name)
            whole = read_json(Path(split.annotations))
            people = people_in(whole, Path(split.annotations), params.category, params.bad_annotations)
            used = people
            for subset, size in SUBSETS.items():
                part = people if size is None else choose_subset(people, size, params.subset_seed, params.fixed_images)
                write_json(annotations / prepared_name(split.annotations, subset), to_coco(part), indent=None)
                if subset == split.subset:
                    used = part
            check_images(used, Path(split.images), split.annotations)
            images, table = build_tables(used, network_hw, mode, params.min_box_px)
            write_parquet(index / name / "images.parquet", images)
            write_parquet(index / name / "people.parquet", table, PEOPLE_PER_GROUP)
            boxes, of_objects = build_objects(whole, images)
            write_parquet(objects / f"{name}.parquet", boxes)
            if name == "val":
                _copy_pictures(used, Path(split.images), params.fixed_images, index / name / "pictures")
                write_previews(index / name / PREVIEWS_FILE, used, Path(split.images))
            reasons = Counter(table["drop_reason"].dropna())
            kinds = table["segmentation"].str.startswith("{")
            counts |= {f"{name}_{key}": value for key, value in {**people.counts, **of_objects}.items()}
            counts |= {
                f"{name}_images_used": len(images),
                f"{name}_people_used": len(table),
                f"{name}_people_too_small_for_roi": reasons[TOO_SMALL],
                f"{name}_people_rle": int(np.count_nonzero(kinds)),
                f"{name}_rois": len(table) - reasons[TOO_SMALL],
            }
    return counts


def _copy_pictures(people: People, source: Path, fixed_images: tuple[str, ...], folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in choose_pictures(people, fixed_images):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)
