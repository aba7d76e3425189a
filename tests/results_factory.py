"""Annotated people and results of all kinds, for tests of what scores them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from data_factory import CATEGORIES, PERSON_ID, coco, ellipse, image_record, person_record, polygon_mask
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from roiseg.coco import People
from roiseg.evaluate.results import mask_result
from roiseg.types import HW

Json = dict[str, Any]
Bools = NDArray[np.bool_]


def random_people(rng: np.random.Generator, sizes_hw: list[HW], most: int = 6) -> People:
    """People of sizes from a few pixels to most of an image, some on top of each other; images without anybody are among them.

    Args:
        rng: source of everything.
        sizes_hw: of the images, whose ids are 3, 10, 17, ...
        most: people in an image.
    """
    images = [image_record(3 + 7 * number, hw) for number, hw in enumerate(sizes_hw)]
    annotations: list[Json] = []
    for image, (height, width) in zip(images, sizes_hw, strict=True):
        for _ in range(int(rng.integers(0, most + 1))):
            radii = float(rng.uniform(2, width / 2)), float(rng.uniform(2, height / 2))
            centre = float(rng.uniform(radii[0], width - radii[0])), float(rng.uniform(radii[1], height - radii[1]))
            annotations.append(person_record(100 + len(annotations), image["id"], ellipse(centre, radii)))
    return People(images, annotations, CATEGORIES[1])


def drawn(people: People, annotation: Json) -> Bools:
    """Mask (H, W) of a person."""
    sizes = {item["id"]: (item["height"], item["width"]) for item in people.images}
    return polygon_mask(annotation["segmentation"][0], sizes[annotation["image_id"]])


def random_results(rng: np.random.Generator, people: People, crowded: int = 0) -> list[Json]:
    """Shifted, cut, doubled and invented masks with scores of few digits, so that many are equal.

    Args:
        rng: source of everything.
        people: that are found or missed.
        crowded: invented masks in the first image.
    """
    results = []
    for item in people.annotations:
        for _ in range(int(rng.integers(0, 3))):
            mask = np.roll(drawn(people, item), rng.integers(-3, 4, 2), axis=(0, 1))
            mask[:, : int(rng.integers(0, mask.shape[1] // 2 + 1))] &= bool(rng.integers(0, 2))
            results.append(mask_result(item["image_id"], PERSON_ID, round(float(rng.random()), 1), mask))
    for number, image in enumerate(people.images):
        for _ in range(int(rng.integers(0, 3)) + (crowded if number == 0 else 0)):
            mask = np.zeros((image["height"], image["width"]), dtype=bool)
            top, left = (int(rng.integers(0, side)) for side in mask.shape)
            mask[top : top + int(rng.integers(0, 40)), left : left + int(rng.integers(1, 40))] = True
            results.append(mask_result(image["id"], PERSON_ID, round(float(rng.random()), 2), mask))
    return [results[place] for place in rng.permutation(len(results))]


def write_pair(folder: Path, people: People, results: list[Json]) -> tuple[Path, Path]:
    """Annotations and results as the JSON files that other tools read."""
    data = coco(people.images, [dict(item, iscrowd=0) for item in people.annotations], [people.category])
    paths = folder / "annotations.json", folder / "results.json"
    for path, value in zip(paths, (data | {"info": {}}, results), strict=True):
        path.write_text(json.dumps(value))
    return paths


STATS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_1", "ar_10", "ar", "ar_small", "ar_medium", "ar_large")


def reference(annotations: Path, results: Path, make: Callable[..., COCOeval] = COCOeval) -> dict[str, float]:
    """One COCOeval over two files; what is not there is left out."""
    truth = COCO(str(annotations))
    evaluation = make(truth, truth.loadRes(str(results)), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return {name: float(value) for name, value in zip(STATS, evaluation.stats, strict=True) if value >= 0}
