"""Peak memory of extraction and training, for few and for many images: it must not grow with them.

    python -m bench.memory [--images 100 1000] [--json FILE]

Repeats the rows of the validation index, extracts them into a temporary folder and trains on the result, each in a process of its
own, and prints the peak of RssAnon + RssShmem of each (mapped shards are page cache and don't count). All numbers of images train
for as many steps, in more epochs where there are fewer: the heap of any run grows for its first hundred steps or two, until it has
met batches of all sizes. Needs the outs of `dvc repro`.
"""

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from roiseg.cache.params import CacheParams, ReaderParams
from roiseg.extractor.extract import ExtractPaths, extract
from roiseg.extractor.params import ExtractorParams
from roiseg.files import write_json, write_parquet
from roiseg.index import PEOPLE_PER_GROUP
from roiseg.params import load_params, load_section
from roiseg.train.train import TrainPaths, TrainSections, train_head

SOURCE = Path("data/index/val")


def repeat_index(out: Path, count: int) -> None:
    """The validation index, again and again until it has `count` images; images and people get ids of their own."""
    images, people = (pd.read_parquet(SOURCE / f"{name}.parquet") for name in ("images", "people"))
    copies = -(-count // len(images))
    many = pd.concat([images] * copies, ignore_index=True).iloc[:count]
    many["row"] = range(count)
    many["image_id"] = range(count)
    ids = int(people["annotation_id"].max()) + 1
    parts = [
        people.assign(
            row=people["row"] + copy * len(images),
            image_id=people["row"] + copy * len(images),
            annotation_id=people["annotation_id"] + copy * ids,
        )
        for copy in range(copies)
    ]
    crowd = pd.concat(parts, ignore_index=True)
    crowd = crowd[crowd["row"] < count]
    for split in ("train", "val"):
        write_parquet(out / split / "images.parquet", many)
        write_parquet(out / split / "people.parquet", crowd, PEOPLE_PER_GROUP)


def run_extraction(root: Path) -> None:
    """`root/index` to `root/features`, by this project's params."""
    values = load_params()
    paths = ExtractPaths(
        Path(values["data"]["val"]["images"]),
        root / "index/train/images.parquet",
        Path("data/backbone.onnx"),
        Path("data/scales.npz"),
        root / "features/train.zarr",
        root / "detections.parquet",
    )
    extract(
        f"bench@{root.name}",
        paths,
        load_section(ExtractorParams, "extractor", values),
        load_section(CacheParams, "cache", values),
        load_section(ReaderParams, "reader", values),
    )


def run_training(root: Path) -> None:
    """Train on `root/features`, validated on the same, for as many epochs as `root/epochs` says."""
    values = load_params()
    # The table of ROIs is of the training images, and these are validation images.
    values["sampler"] |= {"non_target_gamma": 0.0, "balance": "none"}
    values["train"] |= {"epochs": int((root / "epochs").read_text())}
    statistics, rois = Path("metrics/data_analyze.json"), Path("data/rois.parquet")
    paths = TrainPaths(statistics, rois, root / "index", root / "features", root / "head", root / "live")
    train_head(f"bench-{root.name}", TrainSections.load(values), paths)


def peak_mb(work: Callable[[Path], None], root: Path) -> float:
    """Largest RssAnon + RssShmem of a process that does `work`, in MB, looked at twenty times a second."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=(root,))
    process.start()
    peak = 0
    status = Path(f"/proc/{process.pid}/status")
    while process.is_alive():
        try:
            lines = status.read_text().splitlines()
        except OSError:
            break
        peak = max(peak, sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))))
        time.sleep(0.05)
    process.join()
    if process.exitcode:
        sys.exit(f"{work.__name__} ended with {process.exitcode}")
    return peak / 1024


def main() -> None:
    """Both peaks for each number of images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    peaks = []
    for count in options.images:
        Path(".work").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=".work") as temporary:
            root = Path(temporary)
            repeat_index(root / "index", count)
            (root / "epochs").write_text(str(max(1, max(options.images) // count)))
            extraction = peak_mb(run_extraction, root)
            shutil.copytree(root / "features/train.zarr", root / "features/val.zarr")
            training = peak_mb(run_training, root)
            print(f"{count} images: extraction {extraction:.0f} MB, training {training:.0f} MB")
            peaks.append({"images": count, "extraction_mb": extraction, "training_mb": training})
        for left in Path(".work").glob(f"bench-{root.name}*"):
            shutil.rmtree(left)
    if options.json:
        write_json(options.json, {"peaks": peaks})


if __name__ == "__main__":
    main()
