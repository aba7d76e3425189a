"""Tests of roiseg.evaluate.coco_truth: order, sizes and outlines of the annotated people. Its refusals: test_coco_eval.py."""

import numpy as np
from data_factory import CATEGORIES, ellipse, image_record, person_record, polygon_mask, rectangle, uncompressed
from pycocotools import mask as coco_mask

from roiseg.coco import People
from roiseg.evaluate.coco_truth import AREAS, Truth

HW = (200, 120)


def people() -> People:
    """Image 9 shows two people, image 4 one; the file has neither in order."""
    annotations = [
        person_record(7, 9, rectangle(10, 20, 32, 32), area=32.0**2),
        person_record(2, 4, rectangle(0, 0, 100, 150), area=15000.0),
        person_record(5, 9, ellipse((60, 100), (3, 4))),
    ]
    return People([image_record(9, HW), image_record(4, (150, 100))], annotations, CATEGORIES[1])


def test_images_and_people_in_order() -> None:
    truth = Truth(people())
    assert truth.image_ids.tolist() == [4, 9]
    assert truth.annotation_ids == [2, 7, 5]
    assert truth.category_id == 1
    assert truth.image_hw(9) == HW
    assert 9 in truth
    assert 5 not in truth


def test_limits_of_size_belong_to_both_sides() -> None:
    assert list(AREAS) == ["all", "small", "medium", "large"]
    assert Truth(people()).positives.tolist() == [[1, 0, 0, 1], [2, 2, 1, 0]]


def test_outlines_are_those_of_pycocotools_in_every_form() -> None:
    mask = polygon_mask(rectangle(10, 20, 32, 32), HW)
    plain, listed = people(), people()
    listed.annotations[0]["segmentation"] = uncompressed(mask)
    for found in (plain, listed):
        data = Truth(found).dataset([9])
        assert [item["id"] for item in data["annotations"]] == [1, 2]
        assert [item["image_id"] for item in data["annotations"]] == [9, 9]
        np.testing.assert_array_equal(coco_mask.decode(data["annotations"][0]["segmentation"]).astype(bool), mask)


def test_area_of_a_person_without_one_is_the_masks() -> None:
    found = people()
    del found.annotations[0]["area"]
    records = Truth(found).dataset([9])["annotations"]
    assert records[0]["area"] == polygon_mask(rectangle(10, 20, 32, 32), HW).sum()
    assert Truth(people()).dataset([9])["annotations"][0]["area"] == 1024
