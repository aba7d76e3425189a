"""The drawn data set: same bytes for the same seed, and valid COCO."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from roiseg.sample.dataset import draw_picture, encode_jpeg, picture_plan, write_split
from roiseg.sample.params import SampleParams
from roiseg.sample.scene import CLEAR_SHARE


def _nothing() -> None:
    """No progress."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small_params: SampleParams) -> Path:
    """A small val split."""
    out = tmp_path_factory.mktemp("sample")
    write_split(small_params, "val", out, _nothing)
    return out


@pytest.fixture(scope="module")
def coco(folder: Path) -> COCO:
    """The split's annotations, as pycocotools reads them."""
    return COCO(str(folder / "annotations" / "instances_val.json"))


def test_write_split_same_bytes_each_time(folder: Path, tmp_path: Path, small_params: SampleParams) -> None:
    write_split(small_params, "val", tmp_path, _nothing)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(files) == small_params.val_images + 1
    for file in files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file


def test_picture_does_not_depend_on_count(folder: Path, tmp_path: Path, small_params: SampleParams) -> None:
    write_split(small_params.model_copy(update={"val_images": 2}), "val", tmp_path, _nothing)
    for file in sorted((tmp_path / "images" / "val").iterdir()):
        assert file.read_bytes() == (folder / "images" / "val" / file.name).read_bytes()


def test_seed_and_stream_change_picture(small_params: SampleParams) -> None:
    pictures = [
        encode_jpeg(draw_picture(small_params.model_copy(update={"seed": seed}), stream, 0)[0])
        for seed, stream in ((3, "train"), (3, "val"), (3, "backbone"), (4, "val"))
    ]
    assert len(set(pictures)) == len(pictures)


def test_ids_are_unique_and_names_are_coco(folder: Path, tmp_path: Path, small_params: SampleParams) -> None:
    write_split(small_params, "train", tmp_path, _nothing)
    val = json.loads((folder / "annotations" / "instances_val.json").read_text())
    train = json.loads((tmp_path / "annotations" / "instances_train.json").read_text())
    for key in ("images", "annotations"):
        ids = [entry["id"] for entry in (*val[key], *train[key])]
        assert len(ids) == len(set(ids))
    for image in val["images"]:
        assert image["file_name"] == f"{image['id']:012d}.jpg"
        assert (image["height"], image["width"]) == small_params.image_hw
    assert {"id": 1, "name": "person", "supercategory": "person"} in val["categories"]
    assert len(val["categories"]) > 1


def test_areas_and_boxes_agree_with_masks(coco: COCO, small_params: SampleParams) -> None:
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        assert mask.shape == small_params.image_hw
        assert annotation["area"] == mask.sum()
        rows, cols = np.nonzero(mask)
        x, y, width, height = annotation["bbox"]
        # A polygon's box is that of its vertices, which may lie inside a pixel that it doesn't fill.
        tolerance = 1.01
        assert x == pytest.approx(cols.min(), abs=tolerance)
        assert y == pytest.approx(rows.min(), abs=tolerance)
        assert x + width == pytest.approx(cols.max() + 1, abs=tolerance)
        assert y + height == pytest.approx(rows.max() + 1, abs=tolerance)
        assert x >= 0
        assert y >= 0
        assert x + width <= small_params.image_hw[1]
        assert y + height <= small_params.image_hw[0]


def test_segmentations_have_every_form(coco: COCO, small_params: SampleParams) -> None:
    forms: Counter[str] = Counter()
    for annotation in coco.anns.values():
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list):
            assert segmentation
            assert all(len(flat) >= 6 and len(flat) % 2 == 0 for flat in segmentation)
            forms["polygons" if len(segmentation) > 1 else "polygon"] += 1
        else:
            assert segmentation["size"] == list(small_params.image_hw)
            forms["counts" if isinstance(segmentation["counts"], list) else "string"] += 1
    assert set(forms) == {"polygons", "polygon", "counts", "string"}


def test_people_counts_are_planned(coco: COCO, small_params: SampleParams) -> None:
    for index, image in enumerate(coco.dataset["images"]):
        annotations = coco.imgToAnns[image["id"]]
        people = [one for one in annotations if one["category_id"] == 1 and not one["iscrowd"]]
        assert len(people) == picture_plan(index, small_params.max_people).people
        assert sum(one["iscrowd"] for one in annotations) == int(picture_plan(index, small_params.max_people).crowd)
    assert [picture_plan(index, 8).people for index in range(4)] == [1, 2, 3, 5]


def test_crowd_is_rle_over_a_group(coco: COCO, small_params: SampleParams) -> None:
    (crowd,) = [one for one in coco.anns.values() if one["iscrowd"]]
    assert isinstance(crowd["segmentation"]["counts"], list)
    encoded = coco_mask.frPyObjects(crowd["segmentation"], *small_params.image_hw)
    assert coco_mask.area(encoded) == crowd["area"]


def test_people_hardly_overlap(coco: COCO) -> None:
    # What is hidden isn't annotated: only the rims of polygons, and pixels shared half and half, belong to two.
    for image in coco.imgs:
        masks = [coco.annToMask(one) for one in coco.imgToAnns[image] if one["category_id"] == 1]
        total = np.sum(masks, axis=0)
        assert np.count_nonzero(total > 1) <= 0.12 * np.count_nonzero(total)


def test_others_take_a_fair_part_of_a_box_or_nothing(small_params: SampleParams) -> None:
    shares = []
    for index in range(12):
        scene, _ = draw_picture(small_params.model_copy(update={"image_hw": (480, 640)}), "train", index)
        people = [1 + place for place, thing in enumerate(scene.things) if thing.category == "person" and not thing.crowd]
        for number in people:
            rows, cols = np.nonzero(scene.owners == number)
            box = scene.owners[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
            if min(box.shape) < 32:
                continue  # too small for an ROI
            shares.append(float((np.isin(box, people) & (box != number)).mean()))
    # The layout looks at every fourth pixel only.
    assert not [share for share in shares if 0.005 < share < 0.6 * CLEAR_SHARE]
    assert 0.3 < np.mean(np.array(shares) > 0.1) < 0.8
