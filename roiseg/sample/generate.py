"""Writes the built-in sample: data set and backbone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from roiseg.files import new_folder
from roiseg.progress import progress
from roiseg.sample.backbone import Lesson, make_lessons, train_backbone
from roiseg.sample.complexity import count_gflops, count_parameters
from roiseg.sample.dataset import SPLITS, WORKERS, draw_picture, picture_rng, write_split
from roiseg.sample.onnx_graph import build_onnx, write_onnx
from roiseg.sample.params import SampleParams

logger = logging.getLogger(__name__)

BACKBONE_FILE = "backbone.onnx"


def write_backbone(params: SampleParams, file: Path, tick: Callable[[], object]) -> None:
    """Train the backbone and write it as ONNX.

    Args:
        params: Section `sample`.
        file: Where to.
        tick: Called after each picture and each step.
    """

    def teach(index: int) -> list[Lesson]:
        made = make_lessons(draw_picture(params, "backbone", index)[0])
        tick()
        return made

    lessons: list[Lesson] = []
    if params.backbone_steps:
        with ThreadPoolExecutor(WORKERS) as pool:
            lessons = [lesson for made in pool.map(teach, range(params.backbone_images)) for lesson in made]
    rng = picture_rng(params.seed, "weights", 0)
    weights = train_backbone(lessons, params.backbone_width, params.backbone_steps, rng, tick)
    write_onnx(build_onnx(params.backbone_width, weights), file)
    logger.info(
        "sample backbone: %.2f GFLOPs for an image of 640x640, %.2f M parameters",
        count_gflops(params.backbone_width),
        count_parameters(params.backbone_width) / 1e6,
    )


def generate(params: SampleParams, out: Path) -> None:
    """Write the sample: `images/{train,val}`, `annotations/instances_{train,val}.json`, `backbone.onnx`.

    Everything is written into a folder beside `out`, which takes its place at the end.

    Args:
        params: Section `sample`.
        out: Folder to write; replaced if it exists.
    """
    total = params.train_images + params.val_images + params.backbone_steps
    total += params.backbone_images if params.backbone_steps else 0
    with new_folder(out) as folder, progress("sample", total) as tick:
        for split in SPLITS:
            write_split(params, split, folder, tick)
        write_backbone(params, folder / BACKBONE_FILE, tick)
