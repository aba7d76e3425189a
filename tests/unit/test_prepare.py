"""Tests of roiseg.prepare: files, counts, pictures, and the same bytes every time."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from data_factory import CATEGORIES, coco, data_params, image_record, make_coco, person_record, rectangle, write_coco

from roiseg import prepare as module
from roiseg.coco import DROP_REASONS, People, load_people
from roiseg.errors import AnnotationError, ImageReadError, MissingImageError, ParamsError
from roiseg.prepare import check_images, choose_pictures, prepare
from roiseg.previews import Previews

NETWORK_HW = (64, 96)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A train and a val JSON with their images."""
    train = make_coco(tmp_path_factory.mktemp("train"), images=8, seed=1, crowds=2, empties=1, name="instances_train.json")
    return train, make_coco(tmp_path_factory.mktemp("val"), images=6, seed=2, name="instances_val.json")


def files_in(folder: Path) -> dict[str, str]:
    """Digest of each file by its path in the folder."""
    found = sorted(item for item in folder.rglob("*") if item.is_file())
    return {str(item.relative_to(folder)): hashlib.sha256(item.read_bytes()).hexdigest() for item in found}


def with_counts(counts: Sequence[int]) -> People:
    """Images 10, 11, ... that show so many people."""
    images = [image_record(10 + place) for place in range(len(counts))]
    shown = [place for place, count in enumerate(counts) for _ in range(count)]
    return People(images, [person_record(number, 10 + place) for number, place in enumerate(shown)], CATEGORIES[1])


def ids_of(names: list[str]) -> list[int]:
    return [int(Path(name).stem) for name in names]


# --- pictures ---


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([5, 3, 2, 1, 1, 5], [13, 12, 11, 10]),
        ([2, 2, 2, 2, 2], [10, 11, 12, 13]),
        ([1, 2, 3, 4, 6], [10, 11, 12, 14]),
        ([1, 2, 3, 4, 9], [10, 11, 12, 13]),
        ([7], [10]),
        ([1, 9], [10, 11]),
        ([], []),
    ],
    ids=["all counts", "one count only", "above wins a tie", "nearest", "one image", "two images", "no image"],
)
def test_pictures_without_fixed_images(counts: list[int], expected: list[int]) -> None:
    assert ids_of(choose_pictures(with_counts(counts), ("absent.jpg",))) == expected


def test_pictures_are_the_fixed_images_that_are_there() -> None:
    people = with_counts([1, 2, 3, 5, 1, 1])
    fixed = (image_record(15)["file_name"], "absent.jpg", image_record(14)["file_name"])
    assert ids_of(choose_pictures(people, fixed)) == [15, 14]


# --- images ---


def test_check_images_lists_what_is_missing(tmp_path: Path) -> None:
    people = with_counts([1] * 9)
    for image_id in (10, 12):
        (tmp_path / image_record(image_id)["file_name"]).touch()
    message = r"7 of 9 images named in a\.json are missing, first 0+11\.png, .*0+16\.png; set data\.\*\.images to the folder"
    with pytest.raises(MissingImageError, match=message) as caught:
        check_images(people, tmp_path, "a.json")
    assert str(caught.value).count(".png") == 5
    for image in people.images:
        (tmp_path / image["file_name"]).touch()
    check_images(people, tmp_path, "a.json")


def test_folder_in_place_of_an_image_is_missing(tmp_path: Path) -> None:
    (tmp_path / image_record(10)["file_name"]).mkdir()
    with pytest.raises(MissingImageError, match=r"1 of 1 images"):
        check_images(with_counts([1]), tmp_path, "a.json")


# --- the stage ---


def test_prepare_writes_every_file(tmp_path: Path, sets: tuple[Path, Path]) -> None:
    fixed = sorted(item.name for item in (sets[1].parent / "images").iterdir())[2:4]
    counts = prepare(
        data_params(*sets, fixed_images=[*fixed, "absent.png"]),
        NETWORK_HW,
        "letterbox",
        tmp_path / "ann",
        tmp_path / "index",
        tmp_path / "objects",
    )
    stems = [f"instances_{split}_person_only_no_crowd" for split in ("train", "val")]
    parts = [f"{stem}{part}.json" for stem in stems for part in ("", "_100", "_500")]
    assert sorted(files_in(tmp_path / "ann")) == sorted(parts)
    pictures = [f"val/pictures/{name}" for name in fixed]
    tables = [f"{split}/{name}.parquet" for split in ("train", "val") for name in ("images", "people")]
    assert sorted(files_in(tmp_path / "index")) == sorted([*pictures, *tables, "val/previews.parquet"])
    for name in fixed:
        source = sets[1].parent / "images" / name
        assert (tmp_path / "index" / "val" / "pictures" / name).read_bytes() == source.read_bytes()
    assert (counts["train_images_used"], counts["val_images_used"]) == (8, 6)
    assert all(isinstance(value, int) for value in counts.values())


def test_prepare_counts_add_up(tmp_path: Path, sets: tuple[Path, Path]) -> None:
    train, val = sets
    counts = prepare(
        data_params(train, val, min_box_px=14), NETWORK_HW, "stretch", tmp_path / "ann", tmp_path / "index", tmp_path / "objects"
    )
    for split, path in (("train", train), ("val", val)):
        part = {key.removeprefix(f"{split}_"): value for key, value in counts.items() if key.startswith(f"{split}_")}
        lost = part["images_without_people"] + part["images_with_crowd"] + part["images_without_usable_people"]
        assert part["images"] - lost == part["images_kept"] == part["images_used"]
        dropped = part["people_in_crowd_images"] + sum(part[f"people_{reason}"] for reason in DROP_REASONS)
        assert part["people"] - dropped == part["people_kept"] == part["people_used"]
        assert part["rois"] + part["people_too_small_for_roi"] == part["people_used"]
        table = pd.read_parquet(tmp_path / "index" / split / "people.parquet")
        assert part["rois"] == table["drop_reason"].isna().sum()
        people = load_people(path, "person", "error").annotations
        assert part["people_rle"] == sum(isinstance(item["segmentation"], dict) for item in people)
        assert part["people_rle"] > 0
    assert counts["train_people_too_small_for_roi"] > 0


def test_prepare_twice_gives_the_same_bytes(tmp_path: Path, sets: tuple[Path, Path]) -> None:
    params = data_params(*sets)
    counts = [
        prepare(params, NETWORK_HW, "letterbox", tmp_path / run / "a", tmp_path / run / "i", tmp_path / run / "o")
        for run in ("one", "two")
    ]
    assert counts[0] == counts[1]
    assert list(counts[0]) == list(counts[1])
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two")


def test_subset_is_what_the_tables_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sets: tuple[Path, Path]) -> None:
    """With subsets of 3 and 2 images; images that no subset names may be missing from the folder."""
    monkeypatch.setattr(module, "SUBSETS", {"full": None, "500": 3, "100": 2})
    train, val = sets
    fixed = sorted(item.name for item in (val.parent / "images").iterdir())[:1]
    params = data_params(train, val, subset="100", fixed_images=fixed)
    counts = prepare(params, NETWORK_HW, "stretch", tmp_path / "ann", tmp_path / "index", tmp_path / "objects")
    assert (counts["train_images_kept"], counts["train_images_used"], counts["val_images_used"]) == (8, 2, 2)
    sizes = {}
    for split in ("train", "val"):
        for part, size in (("", None), ("_500", 3), ("_100", 2)):
            data = json.loads((tmp_path / "ann" / f"instances_{split}_person_only_no_crowd{part}.json").read_text())
            sizes[split, part] = {item["id"] for item in data["images"]}
            assert size is None or len(sizes[split, part]) == size
        images = pd.read_parquet(tmp_path / "index" / split / "images.parquet")
        assert set(images["image_id"]) == sizes[split, "_100"]
    assert fixed[0] in images["file_name"].tolist()
    assert [item.name for item in (tmp_path / "index" / "val" / "pictures").iterdir()] == fixed


def test_image_outside_the_subset_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SUBSETS", {"full": None, "500": 3, "100": 2})
    path = make_coco(tmp_path / "set", images=5)
    prepare(
        data_params(path, path, subset="100"), NETWORK_HW, "stretch", tmp_path / "ann", tmp_path / "index", tmp_path / "objects"
    )
    used = set(pd.read_parquet(tmp_path / "index" / "val" / "images.parquet")["file_name"])
    unused = next(item for item in sorted((tmp_path / "set" / "images").iterdir()) if item.name not in used)
    unused.unlink()
    prepare(
        data_params(path, path, subset="100"), NETWORK_HW, "stretch", tmp_path / "ann", tmp_path / "index", tmp_path / "objects"
    )
    with pytest.raises(MissingImageError, match=rf"1 of 5 images .* first {unused.name}; set data"):
        prepare(data_params(path, path), NETWORK_HW, "stretch", tmp_path / "ann", tmp_path / "index", tmp_path / "objects")


def test_picture_in_a_subfolder_is_copied(tmp_path: Path) -> None:
    image = image_record(5, file_name="part/a.png")
    path = write_coco(tmp_path / "set" / "a.json", coco([image], [person_record(1, 5, rectangle(2, 2, 20, 30))]))
    source = tmp_path / "set" / "images" / "part" / "a.png"
    source.parent.mkdir(parents=True)
    cv2.imwrite(str(source), np.zeros((48, 64, 3), dtype=np.uint8))
    prepare(data_params(path, path), NETWORK_HW, "stretch", tmp_path / "ann", tmp_path / "index", tmp_path / "objects")
    assert (tmp_path / "index" / "val" / "pictures" / "part" / "a.png").read_bytes() == source.read_bytes()
    assert Previews(tmp_path / "index" / "val" / "previews.parquet").picture(5).shape == (48, 64, 3)


def test_splits_of_one_name_are_refused(tmp_path: Path) -> None:
    train, val = make_coco(tmp_path / "train", images=1), make_coco(tmp_path / "val", images=1)
    message = r"train/annotations\.json' and data\.val\.annotations is .*both would be prepared as annotations_.*rename one"
    with pytest.raises(ParamsError, match=message):
        prepare(data_params(train, val), NETWORK_HW, "stretch", tmp_path / "ann", tmp_path / "index", tmp_path / "objects")


@pytest.mark.parametrize("fault", ["annotation", "image", "bytes"])
def test_prepare_that_fails_leaves_the_old_outs(tmp_path: Path, sets: tuple[Path, Path], fault: str) -> None:
    outs = tmp_path / "out" / "ann", tmp_path / "out" / "index", tmp_path / "out" / "objects"
    prepare(data_params(*sets), NETWORK_HW, "stretch", *outs)
    before = [files_in(out) for out in outs]
    bad = make_coco(tmp_path / "bad", images=2)
    if fault == "image":
        next((tmp_path / "bad" / "images").iterdir()).unlink()
        with pytest.raises(MissingImageError, match="1 of 2 images"):
            prepare(data_params(sets[0], bad), NETWORK_HW, "stretch", *outs)
    elif fault == "bytes":
        first = min((tmp_path / "bad" / "images").iterdir())
        first.write_bytes(first.read_bytes()[:200])
        with pytest.raises(ImageReadError, match=rf"{first.name}: the image is truncated \(200 bytes\); fetch it again"):
            prepare(data_params(sets[0], bad), NETWORK_HW, "stretch", *outs)
    else:
        data = json.loads(bad.read_text())
        data["annotations"][0]["bbox"][2] = 0
        write_coco(bad, data)
        with pytest.raises(AnnotationError, match="1 person annotations can't be used"):
            prepare(data_params(sets[0], bad), NETWORK_HW, "stretch", *outs)
    assert [files_in(out) for out in outs] == before


def test_prepare_drops_and_counts_where_params_say_so(tmp_path: Path) -> None:
    path = make_coco(tmp_path / "set", images=4, people=(2, 3))
    data = json.loads(path.read_text())
    data["annotations"][0]["bbox"][2] = 0
    data["annotations"][-1]["segmentation"] = [[1, 2]]
    write_coco(path, data)
    counts = prepare(
        data_params(path, path, bad_annotations="drop"),
        NETWORK_HW,
        "stretch",
        tmp_path / "ann",
        tmp_path / "index",
        tmp_path / "objects",
    )
    assert counts["val_people_zero_area_box"] == 1
    assert counts["val_people_bad_segmentation"] == 1
    assert counts["val_people_used"] == counts["val_people"] - 2
