"""The data set: pictures and COCO files of both splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from roiseg.sample.annotate import annotate
from roiseg.sample.distractor import CATEGORIES
from roiseg.sample.params import SampleParams
from roiseg.sample.scene import Plan, Scene, draw_scene

SPLITS: Final = ("train", "val")
JPEG_QUALITY = 90
WORKERS = 2
"""Threads that draw; each picture has its own random stream, so their order doesn't matter."""
STREAMS: Final[dict[str, int]] = {"train": 0, "val": 1, "backbone": 2, "weights": 3}
"""Numbers of the random streams; the backbone never sees a picture of the data set."""

_PEOPLE: Final = (1, 2, 3, 5, 2, 4, 3, 6, 2, 8, 1, 3, 2, 7, 4, 2, 5, 3)
"""People in picture k: each split begins with the four counts that overlays show."""
_CROWD_EVERY, _CROWD_FIRST = 19, 7


def picture_rng(seed: int, stream: str, index: int) -> np.random.Generator:
    """The random stream of one picture, which depends on no other picture and on no count.

    Args:
        seed: Seed of the sample.
        stream: A key of `STREAMS`.
        index: Number of the picture in its stream.

    Returns:
        A generator.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, STREAMS[stream], index])))


def picture_plan(index: int, max_people: int) -> Plan:
    """What picture `index` of any stream shall show.

    Args:
        index: Number of the picture.
        max_people: Most people in one picture.

    Returns:
        The plan.
    """
    people = min(_PEOPLE[index % len(_PEOPLE)], max_people)
    return Plan(people=people, crowd=index % _CROWD_EVERY == _CROWD_FIRST, tiny=index >= len(SPLITS) * 2)


def draw_picture(params: SampleParams, stream: str, index: int) -> tuple[Scene, list[dict[str, Any]]]:
    """Draw one picture.

    Args:
        params: Section `sample`.
        stream: A key of `STREAMS`.
        index: Number of the picture in its stream.

    Returns:
        The scene, and its annotations without ids.
    """
    rng = picture_rng(params.seed, stream, index)
    scene = draw_scene(picture_plan(index, params.max_people), params.image_hw, rng)
    return scene, annotate(scene, rng)


def write_split(params: SampleParams, split: str, out: Path, tick: Callable[[], object]) -> None:
    """Write the pictures and the COCO file of one split.

    Args:
        params: Section `sample`.
        split: `train` or `val`.
        out: Folder of the sample.
        tick: Called after each picture.
    """
    count = {"train": params.train_images, "val": params.val_images}[split]
    # Ids start where the other split can't reach, so that they are unique across both.
    first = 1 + SPLITS.index(split) * 500_000
    folder = out / "images" / split
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    height, width = params.image_hw

    def draw(index: int) -> list[dict[str, Any]]:
        scene, found = draw_picture(params, split, index)
        (folder / f"{first + index:012d}.jpg").write_bytes(encode_jpeg(scene))
        tick()
        return found

    with ThreadPoolExecutor(WORKERS) as pool:
        drawn = list(pool.map(draw, range(count)))
    for index, found in enumerate(drawn):
        name = f"{first + index:012d}.jpg"
        images.append({"file_name": name, "height": height, "id": first + index, "width": width})
        for annotation in found:
            ids = {"id": first + len(annotations), "image_id": first + index}
            annotations.append({**annotation, **ids})
    categories = [{"id": number, "name": name, "supercategory": name} for name, number in CATEGORIES.items()]
    file = out / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"annotations": annotations, "categories": categories, "images": images, "info": _INFO, "licenses": []}
    file.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")


_INFO: Final = {"description": "Drawn by roiseg; people, objects and places are invented", "version": "1.0"}


def encode_jpeg(scene: Scene) -> bytes:
    """The picture as a JPEG file.

    Args:
        scene: What to encode.

    Returns:
        The bytes of the file.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), options)
    return bytes(data.tobytes())
