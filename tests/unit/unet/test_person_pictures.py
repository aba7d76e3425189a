"""Tests of roiseg.unet.pictures: where people and maps lie on the sheet of the fixed images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data_factory import CATEGORIES, image_record, person_record, rectangle
from store_factory import NETWORK_HW, Project, cache_params, shared_views, write_store
from torch import Tensor

from roiseg.cache.reader import FeatureStore
from roiseg.coco import People
from roiseg.evaluate.labels import SHEET_PX
from roiseg.evaluate.overlays import MASK_ALPHA, draw_heat
from roiseg.evaluate.palette import GREEN, instance_colour
from roiseg.evaluate.pictures import FixedPicture, load_fixed
from roiseg.evaluate.sheets import GAP, LINE_PX, shown
from roiseg.files import write_parquet
from roiseg.index import Index, build_tables
from roiseg.types import IMAGE
from roiseg.unet.data import PersonBatch, PersonDataset
from roiseg.unet.pictures import draw_annotated, draw_map, draw_people, map_on_sheet

GREY = 100
IMAGE_HW = (20, 40)


def letterboxed(folder: Path) -> PersonDataset:
    """An image of 20 x 40 in the middle of 40 x 40: two people, the second too small for an ROI."""
    people = [person_record(1, 7, rectangle(4, 4, 12, 12)), person_record(2, 7, rectangle(32, 8, 4, 4))]
    tables = build_tables(People([image_record(7, IMAGE_HW)], people, CATEGORIES[1]), (40, 40), "letterbox", 8.0)
    for name, table in zip(("images", "people"), tables, strict=True):
        write_parquet(folder / f"{name}.parquet", table)
    features = {"layer_3": np.zeros((1, 4, 10, 10), dtype=np.float16)}
    asked = {"input": {"hw": [40, 40]}, "dtype": "float16"}
    path = write_store(folder / "work", folder / "one.zarr", features, [7], asked=asked, cache=cache_params())
    return PersonDataset(Index(folder, (40, 40), "letterbox"), FeatureStore(path), ["layer_3"], (10, 10))


@pytest.fixture
def boxed(tmp_path: Path) -> PersonDataset:
    return letterboxed(tmp_path)


FIXED = FixedPicture(0, np.full((*IMAGE_HW, 3), GREY, dtype=np.uint8))


def left_half(batch: PersonBatch) -> Tensor:
    """A net that sees people in the left half of the input, at 8 x 8."""
    assert batch.size == 1
    found = torch.zeros(1, 1, 8, 8)
    found[..., :4] = 0.9
    return found


def test_everybody_is_tinted_in_a_colour_of_their_own(boxed: PersonDataset) -> None:
    drawn = draw_annotated(FIXED, boxed)
    scale = SHEET_PX / IMAGE_HW[0]
    assert drawn.shape == (SHEET_PX, 2 * SHEET_PX, 3)
    for number, (x, y) in ((1, (10, 10)), (2, (34, 10))):
        expected = np.round(GREY * (1 - MASK_ALPHA) + np.array(instance_colour(number)) * MASK_ALPHA)
        np.testing.assert_allclose(drawn[int(y * scale), int(x * scale)].astype(int), expected, atol=1)
    assert drawn[int(10 * scale), int(25 * scale)].tolist() == [GREY] * 3


def test_a_map_loses_what_a_letterbox_added(boxed: PersonDataset) -> None:
    """Rows of the map are 10 pixels above the image, 20 on it and 10 below it."""
    values = np.repeat(np.arange(40, dtype=np.float32)[:, None], 40, axis=1)
    found = map_on_sheet(values, boxed, 0, (20, 40))
    np.testing.assert_allclose(found, np.repeat(np.arange(10, 30, dtype=np.float32)[:, None], 40, axis=1), atol=1e-4)
    enlarged = map_on_sheet(values, boxed, 0, (40, 80))
    assert enlarged.shape == (40, 80)
    assert 9.5 < enlarged.min() < enlarged.max() < 29.8


def test_a_map_is_heat_with_a_line_around_people() -> None:
    values = np.zeros((30, 50), dtype=np.float32)
    values[10:20, 5:25] = 0.8
    drawn, heat = draw_map(values), draw_heat(values)
    assert drawn[10, 5].tolist() == drawn[19, 24].tolist() == list(GREEN)
    np.testing.assert_array_equal(drawn[12:18, 7:23], heat[12:18, 7:23])
    np.testing.assert_array_equal(drawn[:, 30:], heat[:, 30:])


def test_rows_of_the_sheet(boxed: PersonDataset) -> None:
    """A line of text and a row of pictures for annotation, net and teacher."""
    sheet = draw_people(left_half, boxed, [FIXED], "epoch 3: miou_2class 0.5000")
    taught = draw_people(left_half, boxed, [FIXED], "epoch 3: miou_2class 0.5000", lambda batch: 1 - left_half(batch))
    step = LINE_PX + SHEET_PX + 2 * GAP
    assert sheet.shape[0] == 2 * step
    assert taught.shape == (3 * step, *sheet.shape[1:])
    np.testing.assert_array_equal(taught[: 2 * step], sheet)
    top, width = LINE_PX + GAP, 2 * SHEET_PX
    np.testing.assert_array_equal(sheet[top : top + SHEET_PX, :width], draw_annotated(FIXED, boxed))
    heat = draw_heat(np.array([[0.9, 0.0, 0.1, 1.0]], dtype=np.float32))[0]
    middle = top + step + SHEET_PX // 2
    assert sheet[middle, width // 8].tolist() == heat[0].tolist()
    assert sheet[middle, width * 7 // 8].tolist() == heat[1].tolist()
    assert taught[middle + step, width // 8].tolist() == heat[2].tolist()
    assert taught[middle + step, width * 7 // 8].tolist() == heat[3].tolist()


def test_titles_are_written(boxed: PersonDataset) -> None:
    one, other = (draw_people(left_half, boxed, [FIXED], title) for title in ("epoch 3", "epoch 4"))
    start = LINE_PX + SHEET_PX + 2 * GAP
    assert (one[start : start + LINE_PX] != other[start : start + LINE_PX]).any()
    np.testing.assert_array_equal(one[:start], other[:start])


def test_fixed_images_of_a_project(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Several images stand side by side; the net gets each alone, and is asked without gradients."""
    project: Project = shared_views(tmp_path_factory)
    index = Index(project.index / "val", NETWORK_HW, "stretch")
    dataset = PersonDataset(index, FeatureStore(project.features / "val.zarr"), [IMAGE], (16, 24))
    fixed = load_fixed(project.index / "val" / "pictures", dataset)
    asked: list[int] = []

    def brightness(batch: PersonBatch) -> Tensor:
        assert not torch.is_grad_enabled()
        asked.extend(batch.rows)
        return batch.features[IMAGE].float().mean(dim=1, keepdim=True) / 255

    first, second = (draw_people(brightness, dataset, fixed, "epoch 1") for _ in range(2))
    assert asked == [picture.row for picture in fixed] * 2
    assert len(fixed) == 2
    np.testing.assert_array_equal(first, second)
    width = sum(shown(picture.pixels).shape[1] for picture in fixed) + GAP
    assert first.shape[1] >= width
