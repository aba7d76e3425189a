"""Tests of roiseg.unet.data: masks of everybody, batches that no number of threads or processes changes, and the mirrored view."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_factory import CATEGORIES, compressed, image_record, person_record, polygon_mask, rectangle
from store_factory import CHANNELS, NETWORK_HW, Project, cache_params, shared_project, shared_views, write_store

from roiseg.batches import Loading
from roiseg.cache.reader import FeatureStore
from roiseg.coco import People
from roiseg.errors import StoreMismatchError
from roiseg.files import write_parquet
from roiseg.geometry import Resize, ResizeMode
from roiseg.index import Index, build_tables
from roiseg.types import HW, IMAGE, MIRRORED, PLAIN, View
from roiseg.unet.augment import Augment, augment_image
from roiseg.unet.data import PersonBatch, PersonDataset, person_share, single_batch, training_batches, whole_batches

LAYERS = (IMAGE, "layer_34")
MASK_HW = (16, 24)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_views(tmp_path_factory)


def opened(project: Project, layers: Sequence[str] = LAYERS, mask_hw: HW = MASK_HW, split: str = "train") -> PersonDataset:
    index = Index(project.index / split, NETWORK_HW, "stretch")
    return PersonDataset(index, FeatureStore(project.features / f"{split}.zarr"), layers, mask_hw)


def by_hand(
    folder: Path, people: Sequence[dict[str, Any]], image_hw: HW, network_hw: HW, mode: ResizeMode, mask_hw: HW
) -> PersonDataset:
    """One image, its people, and random features."""
    folder.mkdir(exist_ok=True)
    tables = build_tables(People([image_record(7, image_hw)], list(people), CATEGORIES[1]), network_hw, mode, 8.0)
    for name, table in zip(("images", "people"), tables, strict=True):
        write_parquet(folder / f"{name}.parquet", table)
    features = {"layer_3": np.zeros((1, 4, network_hw[0] // 4, network_hw[1] // 4), dtype=np.float16)}
    asked = {"input": {"hw": list(network_hw)}, "dtype": "float16"}
    path = write_store(folder / "work", folder / "one.zarr", features, [7], asked=asked, cache=cache_params())
    return PersonDataset(Index(folder, network_hw, mode), FeatureStore(path), ["layer_3"], mask_hw)


def kept(batches: Iterable[PersonBatch]) -> list[PersonBatch]:
    """All batches, with features of their own: those of the loader go round."""
    return [replace(batch, features={name: values.clone() for name, values in batch.features.items()}) for batch in batches]


def epoch_of(
    dataset: PersonDataset,
    loading: Loading | None = None,
    *,
    seed: int = 0,
    epoch: int = 1,
    views: Sequence[View] | None = None,
    augment: Augment = "none",
) -> list[PersonBatch]:
    return kept(
        training_batches(dataset, loading or Loading(2, 1, 2), seed=seed, epoch=epoch, views=views, augment=augment)
    )  # fmt: skip


Images = dict[int, tuple[torch.Tensor, ...]]


def images_of(batches: Sequence[PersonBatch]) -> Images:
    """Row -> mask and features, of what counts."""
    return {
        row: (batch.masks[place], *(batch.features[name][place] for name in LAYERS if name in batch.features))
        for batch in batches
        if batch.counted
        for place, row in enumerate(batch.rows)
    }


def assert_same(one: Images, other: Images) -> None:
    assert one.keys() == other.keys()
    for row, values in one.items():
        assert all(torch.equal(first, second) for first, second in zip(values, other[row], strict=True)), row


# --- masks ---


def test_a_mask_by_hand(tmp_path: Path) -> None:
    """A polygon, an RLE that meets it, and somebody too small for an ROI; 32 x 64 pixels on 8 x 16 cells."""
    people = [
        person_record(1, 7, rectangle(0, 0, 16, 32)),
        person_record(2, 7, rectangle(8, 16, 24, 16), segmentation=compressed(polygon_mask(rectangle(8, 16, 24, 16), (32, 64)))),
        person_record(3, 7, rectangle(56, 4, 4, 4)),
    ]
    dataset = by_hand(tmp_path, people, (32, 64), (32, 64), "stretch", (8, 16))
    assert dataset.index.rois_per_image.tolist() == [2]
    expected = np.zeros((8, 16), dtype=bool)
    expected[:, :4] = expected[4:, 2:8] = expected[1, 14] = True
    np.testing.assert_array_equal(dataset.sample(0).mask, expected)
    batch = single_batch(dataset, 0)
    assert batch.masks.dtype == torch.float32
    np.testing.assert_array_equal(batch.masks.numpy()[0, 0], expected)
    assert (batch.size, batch.rows, batch.counted) == (1, [0], True)
    assert person_share(dataset) == (128 - int(expected.sum()), int(expected.sum()))


def test_an_image_with_nobody_to_be_seen_is_background(tmp_path: Path) -> None:
    """The one person is smaller than a cell and misses its centre."""
    dataset = by_hand(tmp_path, [person_record(1, 7, rectangle(0, 0, 1, 1))], (32, 64), (32, 64), "stretch", (8, 16))
    assert dataset.rows.tolist() == [0]
    assert not dataset.sample(0).mask.any()
    assert [batch.rows for batch in whole_batches(dataset, Loading(2, 1, 1))] == [[0]]
    assert person_share(dataset) == (128, 0)


@pytest.mark.parametrize("rle", [False, True])
def test_beside_a_letterboxed_image_is_background(tmp_path: Path, rle: bool) -> None:
    """A low image of 16 x 64 in the middle of 64 x 64; the outline reaches out of it, as careless ones do."""
    outline = rectangle(16, -20, 32, 60)
    inside = rectangle(16, 0, 32, 16)
    outlines = compressed(polygon_mask(inside, (16, 64))) if rle else [outline]
    people = [person_record(1, 7, outline, bbox=[16, 0, 32, 16], segmentation=outlines)]
    dataset = by_hand(tmp_path, people, (16, 64), (64, 64), "letterbox", (16, 16))
    expected = np.zeros((16, 16), dtype=bool)
    expected[6:10, 4:12] = True
    np.testing.assert_array_equal(dataset.sample(0).mask, expected)


def test_masks_are_those_of_the_full_size(project: Project) -> None:
    """Masks drawn at the size of the image and sampled at the cells' centres, but for the cells along an outline."""
    dataset = opened(project)
    for row in range(len(dataset.rows)):
        people, resize = dataset.index.people(row), dataset.index.resize(row)
        assert isinstance(resize, Resize)
        box = resize.boxes_to_unit(np.array([[0.0, 0.0, resize.image_hw[1], resize.image_hw[0]]]))[0]
        whole = np.logical_or.reduce([item.rasterise(box, resize.image_hw) for item in people.segmentations])
        rows, columns = (
            ((np.arange(count) + 0.5) / count * size).astype(int) for count, size in zip(MASK_HW, resize.image_hw, strict=True)
        )
        assert (dataset.sample(row).mask != whole[np.ix_(rows, columns)]).mean() < 0.05


def test_person_share_counts_all_pixels(project: Project) -> None:
    dataset = opened(project)
    background, people = person_share(dataset)
    masks = torch.cat([batch.masks for batch in whole_batches(dataset, Loading(2, 1, 1))])
    assert background + people == masks.numel()
    assert people == int(masks.sum()) > 0


# --- batches ---


def test_whole_batches_are_in_row_order_and_plain(project: Project) -> None:
    dataset = opened(project)
    batches = kept(whole_batches(dataset, Loading(2, 2, 2)))
    assert [batch.rows for batch in batches] == [[0, 1], [2, 3], [4]]
    for batch in batches:
        assert batch.size == len(batch.rows)
        assert batch.masks.shape == (batch.size, 1, *MASK_HW)
        for place, row in enumerate(batch.rows):
            np.testing.assert_array_equal(batch.masks[place, 0].numpy(), dataset.sample(row).mask)
            for name, values in dataset.store.read(row, LAYERS).items():
                np.testing.assert_array_equal(batch.features[name][place].numpy(), values)
    assert [batch.rows for batch in whole_batches(dataset, Loading(2, 1, 1), [3, 1, 4])] == [[3, 1], [4]]


def test_processes_share_whole_batches(project: Project) -> None:
    dataset = opened(project)
    parts = [kept(whole_batches(dataset, Loading(2, 1, 1, rank=rank, processes=2))) for rank in (0, 1)]
    assert [[batch.rows for batch in part] for part in parts] == [[[0, 2], [4]], [[1, 3]]]


def test_an_epoch_has_each_image_once(project: Project) -> None:
    batches = epoch_of(opened(project))
    assert sorted(row for batch in batches for row in batch.rows) == [0, 1, 2, 3, 4]
    assert [batch.size for batch in batches] == [2, 2, 1]


@pytest.mark.parametrize(("threads", "ahead", "images"), [(1, 1, 2), (3, 5, 2), (2, 2, 3)])
@pytest.mark.parametrize("augment", ["none", "heavy"])
def test_an_epoch_does_not_depend_on_how_it_is_loaded(
    project: Project, threads: int, ahead: int, images: int, augment: Augment
) -> None:
    dataset = opened(project)
    first, second = (epoch_of(dataset, loading, augment=augment) for loading in (Loading(1, 1, 1), Loading(images, threads, ahead)))
    assert [row for batch in first for row in batch.rows] == [row for batch in second for row in batch.rows]
    assert_same(images_of(first), images_of(second))


def test_processes_share_an_epoch(project: Project) -> None:
    """Five images in batches of two: of the last, the second process has none, and takes the other's without counting it."""
    dataset = opened(project)
    whole = epoch_of(dataset, augment="heavy")
    parts = [epoch_of(dataset, Loading(2, 1, 1, rank=rank, processes=2), augment="heavy") for rank in (0, 1)]
    for alone, *shares in zip(whole, *parts, strict=True):
        assert [row for share in shares if share.counted for row in share.rows] == alone.rows
        assert all(share.size == 1 for share in shares)
    assert [share.counted for share in parts[1]] == [True, True, False]
    assert_same(images_of(whole), images_of(parts[0]) | images_of(parts[1]))


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 2}])
def test_seed_and_epoch_change_order_and_draws(project: Project, other: dict[str, int]) -> None:
    dataset = opened(project)
    first, second = epoch_of(dataset, augment="light"), epoch_of(dataset, augment="light", **other)  # type: ignore[arg-type]
    assert [batch.rows for batch in first] != [batch.rows for batch in second]
    one, two = images_of(first), images_of(second)
    assert any(not torch.equal(one[row][1], two[row][1]) for row in one)


# --- views and colours ---


def test_the_mirrored_view_is_the_flipped_one(project: Project) -> None:
    dataset = opened(project)
    plain, mirrored = (images_of(epoch_of(dataset, views=[view])) for view in (PLAIN, MIRRORED))
    for row, (mask, image, layer) in mirrored.items():
        stored = dataset.store.read(row, LAYERS, MIRRORED)
        np.testing.assert_array_equal(layer.numpy(), stored["layer_34"])
        assert torch.equal(mask, plain[row][0].flip(-1))
        assert torch.equal(image, plain[row][1].flip(-1))
        assert not torch.equal(layer, plain[row][2].flip(-1)), "features of a mirrored image aren't mirrored features"
    assert any(not torch.equal(mask, plain[row][0]) for row, (mask, *_) in mirrored.items())


def test_views_are_drawn_for_each_image(project: Project) -> None:
    dataset = opened(project)
    seen = {row: set[bool]() for row in dataset.rows.tolist()}
    for epoch in range(1, 13):
        for row, (mask, image, layer) in images_of(epoch_of(dataset, epoch=epoch)).items():
            view = PLAIN if torch.equal(mask, torch.from_numpy(dataset.sample(row).mask)[None]) else MIRRORED
            stored = dataset.store.read(row, LAYERS, view)
            np.testing.assert_array_equal(image.numpy(), stored[IMAGE])
            np.testing.assert_array_equal(layer.numpy(), stored["layer_34"])
            seen[row].add(view == MIRRORED)
    assert all(found == {False, True} for found in seen.values())


def test_colours_change_in_the_image_and_nowhere_else(project: Project) -> None:
    dataset = opened(project)
    plain, heavy = (images_of(epoch_of(dataset, augment=augment)) for augment in ("none", "heavy"))
    for row, (mask, image, layer) in heavy.items():
        assert torch.equal(mask, plain[row][0])
        assert torch.equal(layer, plain[row][2])
        expected = plain[row][1].numpy().copy()
        augment_image(expected, "heavy", np.random.default_rng([0, 1, row, 1]))
        np.testing.assert_array_equal(image.numpy(), expected)
    assert any(not torch.equal(image, plain[row][1]) for row, (_, image, _) in heavy.items())


def test_colours_do_not_depend_on_which_views_there_are(project: Project) -> None:
    dataset = opened(project)
    one, both = (images_of(epoch_of(dataset, views=views, augment="light")) for views in ([PLAIN], [PLAIN, MIRRORED]))
    same = [row for row, (mask, *_) in both.items() if torch.equal(mask, one[row][0])]
    assert 0 < len(same) < len(one)
    assert_same({row: one[row] for row in same}, {row: both[row] for row in same})


# --- faults ---


def test_a_store_without_images_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    plain = shared_project(tmp_path_factory)
    with pytest.raises(StoreMismatchError, match=r"no layer 'image'.*set cache\.image to true"):
        opened(plain)


def test_a_view_that_is_not_stored_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    dataset = opened(shared_project(tmp_path_factory), ["layer_3"])
    with pytest.raises(StoreMismatchError, match="no view 'mirrored'"):
        training_batches(dataset, Loading(2, 1, 1), seed=0, epoch=1, views=[MIRRORED], augment="none")


def test_colours_without_an_image_are_refused(project: Project) -> None:
    dataset = opened(project, list(CHANNELS))
    with pytest.raises(ValueError, match=r"augment 'light' changes layer 'image', expected among .*'layer_34', 'layer_3'"):
        training_batches(dataset, Loading(2, 1, 1), seed=0, epoch=1, views=None, augment="light")


def test_an_index_of_other_images_is_refused(project: Project) -> None:
    index = Index(project.index / "train", NETWORK_HW, "stretch")
    with pytest.raises(StoreMismatchError, match="in another order or of another set"):
        PersonDataset(index, FeatureStore(project.features / "val.zarr"), LAYERS, MASK_HW)
