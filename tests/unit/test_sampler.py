"""Tests of roiseg.sampler: what is drawn how often, what is promised of each box; neutral params draw what they always drew."""

import hashlib
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_factory import person_record, rectangle
from hypothesis import given
from hypothesis import strategies as st
from store_factory import (
    MODEL,
    STILL,
    Project,
    hand_made,
    sampler_params,
    shared_project,
    shared_views,
    write_shares,
)

from roiseg.batches import Loading
from roiseg.dataset import RoiDataset
from roiseg.errors import ParamsError, StoreMismatchError
from roiseg.geometry import paired_box_iou
from roiseg.masks import roi_labels
from roiseg.sampler import Sampler, Turns, times_before, training_batches

NO_TABLE = Path("there/is/none.parquet")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_views(tmp_path_factory)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> RoiDataset:
    """Twelve people of 10 x 9 pixels in an image of 64 x 32, who overlap."""
    people = [person_record(number + 1, 7, rectangle(1 + 4.5 * number, 2 + number, 10, 9)) for number in range(12)]
    return hand_made(tmp_path_factory.mktemp("crowd"), people, {"roi_padding": 0.05})


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> RoiDataset:
    people = [person_record(number + 1, 7, rectangle(1 + 20 * number, 4, 18, 20)) for number in range(3)]
    return hand_made(tmp_path_factory.mktemp("trio"), people)


def rngs(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng([5, seed]) for seed in range(count)]


# --- as ever ---


def test_neutral_params_draw_what_they_always_drew(crowd: RoiDataset) -> None:
    """The digest is that of the code before there was a sampler."""
    sampler = Sampler(crowd, sampler_params(rois_per_image=9), NO_TABLE)
    sampler.views = ("plain", "mirrored")
    found = hashlib.sha256()
    for epoch in range(1, 9):
        sample = sampler.sample(0, np.random.default_rng([3, epoch, 0]))
        assert sample.numbers.shape == (9,)
        for part in (sample.numbers, sample.boxes, sample.labels):
            found.update(np.ascontiguousarray(part).tobytes())
        found.update(sample.view.encode())
    assert found.hexdigest() == "39deed97a8d7bfce083cdfe1309c4d44b3354b98e2b59d986f5a8a096d17e1c4"


def test_neutral_params_take_the_images_in_the_order_they_always_took(project: Project) -> None:
    sampler = project.sampler()
    sampler.dataset.rows = np.arange(9)
    assert sampler.epoch_rows(3, 1).tolist() == [5, 1, 2, 4, 0, 7, 8, 6, 3]
    assert sampler.epoch_rows(3, 2).tolist() == [1, 8, 4, 0, 2, 6, 3, 7, 5]


def test_neutral_params_read_no_table(project: Project) -> None:
    assert not NO_TABLE.exists()
    Sampler(project.open("train"), sampler_params(), NO_TABLE)


# --- people ---


def test_without_jitter_training_sees_the_annotation(project: Project) -> None:
    sampler = project.sampler(rois_per_image=99, **STILL)
    for row in sampler.dataset.rows.tolist():
        drawn, whole = sampler.sample(row, np.random.default_rng(1)), sampler.dataset.whole_sample(row)
        people = sampler.dataset.index.people(row)
        np.testing.assert_allclose(drawn.boxes, people.boxes[people.roi_numbers], atol=1e-12)
        np.testing.assert_array_equal(drawn.numbers, people.roi_numbers)
        np.testing.assert_array_equal(drawn.labels, whole.labels)
        assert (drawn.labels == 1).any(axis=(1, 2)).all()


def test_drawn_boxes_are_rasterised_anew(project: Project) -> None:
    changes: dict[str, Any] = {"jitter_centre": 0.3, "jitter_scale": 0.3, "crop": 0.6, "extra_rois": 4}
    sampler = project.sampler(rois_per_image=99, **changes)
    dataset = sampler.dataset
    row = int(dataset.rows[np.argmax(dataset.index.rois_per_image[dataset.rows])])
    sample, people = sampler.sample(row, np.random.default_rng(0)), dataset.index.people(row)
    assert len(sample.numbers) == dataset.index.rois_per_image[row] + 4
    assert np.abs(sample.boxes - people.boxes[sample.numbers]).max(axis=1).min() > 0.005
    for number, box, labels in zip(sample.numbers.tolist(), sample.boxes, sample.labels, strict=True):
        others = [outline for place, outline in enumerate(people.segmentations) if place != number]
        np.testing.assert_array_equal(labels, roi_labels(box, people.segmentations[number], others, dataset.mask_hw))


def test_rois_per_image(project: Project) -> None:
    sampler = project.sampler(rois_per_image=2)
    dataset = sampler.dataset
    row = int(np.argmax(dataset.index.rois_per_image))
    assert dataset.index.rois_per_image[row] == 5
    draws = [sampler.sample(row, rng).numbers.tolist() for rng in rngs(40)]
    assert all(len(set(draw)) == 2 and draw == sorted(draw) for draw in draws)
    assert {number for draw in draws for number in draw} == set(dataset.index.people(row).roi_numbers.tolist())
    assert len(dataset.whole_sample(row).numbers) == 5, "validation sees everybody"


SHARES = (0.0, 0.15, 0.75)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_crowded_people_are_drawn_more_often(trio: RoiDataset, tmp_path: Path, gamma: float) -> None:
    """Two of three, as if one were drawn after the other by weight: i comes first, or second after any j."""
    table = write_shares(tmp_path / "rois.parquet", trio.index, {0: SHARES})
    sampler = Sampler(trio, sampler_params(rois_per_image=2, non_target_gamma=gamma), table)
    weights = np.array([0.05, 0.2, 0.8]) ** gamma
    p = weights / weights.sum()
    expected = [p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(3) if j != i) for i in range(3)]
    assert sum(expected) == pytest.approx(2)
    draws = [sampler.sample(0, rng).numbers.tolist() for rng in rngs(1500)]
    assert all(len(set(draw)) == 2 and draw == sorted(draw) for draw in draws)
    found = Counter(number for draw in draws for number in draw)
    assert [found[number] / 1500 for number in range(3)] == pytest.approx(expected, abs=0.035)


def test_where_everybody_fits_nobody_is_preferred(trio: RoiDataset, tmp_path: Path) -> None:
    table = write_shares(tmp_path / "rois.parquet", trio.index, {0: SHARES})
    plain, keen = (Sampler(trio, sampler_params(rois_per_image=3, non_target_gamma=gamma), table) for gamma in (0.0, 3.0))
    first, second = (part.sample(0, np.random.default_rng(1)).boxes for part in (plain, keen))
    np.testing.assert_array_equal(first, second)


# --- boxes ---


@given(
    seed=st.integers(0, 10_000),
    strength=st.floats(0, 0.9),
    least=st.floats(0, 1),
    crop=st.floats(0.05, 1),
    count=st.integers(0, 6),
)
def test_drawn_boxes_keep_what_is_promised(
    crowd: RoiDataset, seed: int, strength: float, least: float, crop: float, count: int
) -> None:
    """Padding is laid around extra boxes after the comparison, so it is left out here."""
    crowd = RoiDataset(crowd.index, crowd.store, crowd.params.model_copy(update={"roi_padding": 0.0}), crowd.layers, crowd.mask_hw)
    changes: dict[str, Any] = {"extra_jitter": strength, "extra_iou": least, "extra_rois": count, "crop": crop}
    sampler = Sampler(crowd, sampler_params(rois_per_image=9, **changes), NO_TABLE)
    sample = sampler.sample(0, np.random.default_rng(seed))
    assert 9 <= len(sample.numbers) <= 9 + count
    assert (sample.boxes >= 0).all()
    assert (sample.boxes <= 1).all()
    assert (sample.boxes[:, 2:] > sample.boxes[:, :2]).all()
    own = crowd.index.people(0).boxes[sample.numbers[9:]]
    assert (paired_box_iou(sample.boxes[9:], own) >= least).all(), "extra boxes aren't cropped"


def test_extra_boxes_are_of_anybody_and_none_is_the_annotation(crowd: RoiDataset) -> None:
    sampler = Sampler(crowd, sampler_params(rois_per_image=2, extra_rois=3), NO_TABLE)
    samples = [sampler.sample(0, rng) for rng in rngs(60)]
    assert {len(sample.numbers) for sample in samples} == {5}
    assert {number for sample in samples for number in sample.numbers[2:].tolist()} == set(range(12))
    exact = Sampler(crowd, sampler_params(rois_per_image=12, **STILL), NO_TABLE).sample(0, np.random.default_rng(0)).boxes
    assert all(np.abs(sample.boxes[2:] - exact[sample.numbers[2:]]).max(axis=1).min() > 1e-4 for sample in samples)


def test_extra_boxes_prefer_the_crowded(trio: RoiDataset, tmp_path: Path) -> None:
    table = write_shares(tmp_path / "rois.parquet", trio.index, {0: SHARES})
    sampler = Sampler(trio, sampler_params(rois_per_image=1, extra_rois=8, extra_iou=0.0, non_target_gamma=1.0), table)
    found = Counter(number for rng in rngs(200) for number in sampler.sample(0, rng).numbers[1:].tolist())
    assert [found[number] / 1600 for number in range(3)] == pytest.approx(np.array([0.05, 0.2, 0.8]) / 1.05, abs=0.04)


def test_an_extra_box_that_no_try_brings_near_enough_is_left_out(crowd: RoiDataset) -> None:
    """With a change of size by up to 90 %, few are at 0.75: of 40 some are left out and some not."""
    sampler = Sampler(crowd, sampler_params(rois_per_image=9, extra_rois=40, extra_jitter=0.9, extra_iou=0.75), NO_TABLE)
    assert 9 < len(sampler.sample(0, np.random.default_rng(2)).numbers) < 49
    never = Sampler(crowd, sampler_params(rois_per_image=9, extra_rois=40, extra_iou=1.0), NO_TABLE)
    assert len(never.sample(0, np.random.default_rng(2)).numbers) == 9


def test_crops_lie_in_the_padded_roi(crowd: RoiDataset) -> None:
    sampler = Sampler(crowd, sampler_params(rois_per_image=12, crop=0.5, **STILL), NO_TABLE)
    whole = crowd.whole_sample(0).boxes
    shares = []
    for rng in rngs(30):
        boxes = sampler.sample(0, rng).boxes
        assert (boxes[:, :2] >= whole[:, :2]).all()
        assert (boxes[:, 2:] <= whole[:, 2:]).all()
        shares.append((boxes[:, 2:] - boxes[:, :2]) / (whole[:, 2:] - whole[:, :2]))
    assert 0.5 - 1e-9 < np.min(shares) < 0.52
    assert 0.98 < np.max(shares) <= 1
    assert np.mean(shares) == pytest.approx(0.75, abs=0.02)


# --- views ---


def test_training_draws_from_both_views(both: Project) -> None:
    sampler = both.sampler(**STILL)
    row = int(sampler.dataset.rows[0])
    samples = [sampler.sample(row, rng) for rng in rngs(60)]
    mirrored = [sample for sample in samples if sample.view == "mirrored"]
    assert 15 < len(mirrored) < 45
    whole = sampler.dataset.whole_sample(row)
    np.testing.assert_allclose(mirrored[0].boxes[:, 0], 1 - whole.boxes[: len(mirrored[0].boxes), 2])
    assert whole.view == "plain", "validation sees the images as they are"


@pytest.mark.parametrize(
    ("views", "expected"), [(["plain"], {"plain"}), (["mirrored"], {"mirrored"}), (None, {"plain", "mirrored"})]
)
def test_views_that_are_asked_for(both: Project, views: list[str] | None, expected: set[str]) -> None:
    sampler = both.sampler(views=views)
    assert {sampler.sample(int(row), rng).view for row in sampler.dataset.rows for rng in rngs(20)} == expected


def test_batches_hold_the_features_of_the_view(both: Project) -> None:
    """Boxes, labels and features are of the same side: a mirrored batch reads the mirrored arrays, and the image flipped."""
    sampler = both.sampler({**MODEL, "layers": ["layer_3", "image"]}, views=["mirrored"])
    store = sampler.dataset.store
    for batch in training_batches(sampler, Loading(2, 1, 1), seed=0, epoch=1):
        for place, row in enumerate(batch.rows):
            for name in ("layer_3", "image"):
                expected = store.read(row, [name], "mirrored")[name]
                np.testing.assert_array_equal(batch.features[name][place].numpy(), expected)
    image = store.read(0, ["image"])["image"]
    np.testing.assert_array_equal(store.read(0, ["image"], "mirrored")["image"], image[..., ::-1])


def test_a_store_without_the_view(project: Project) -> None:
    with pytest.raises(StoreMismatchError, match=r"no view 'mirrored' \(sampler\.views\), only plain; add it to cache\.views"):
        project.sampler(views=["plain", "mirrored"])


# --- epochs ---


LONELY = {0: (0.0,), 1: (0.0, 0.0), 2: (0.2,), 3: (0.0, 0.0), 4: (0.02, 0.04, 0.0, 0.1, 0.0)}
"""Rows 0, 1 and 3 without class 2, row 2 with 20 %, row 4 with 3.2 %."""


@pytest.fixture
def balanced(project: Project, tmp_path: Path) -> Sampler:
    dataset = project.open("train")
    table = write_shares(tmp_path / "rois.parquet", dataset.index, LONELY)
    return Sampler(dataset, sampler_params(balance="crowdedness"), table)


def test_groups_come_up_equally_often(balanced: Sampler) -> None:
    """Five turns for three groups: one or two each, and 5/3 on average, shared within the group."""
    epochs = [balanced.epoch_rows(0, epoch) for epoch in range(1, 601)]
    groups = np.array([[np.isin(rows, group).sum() for group in ((0, 1, 3), (4,), (2,))] for rows in epochs])
    assert (groups.sum(axis=1) == 5).all()
    assert (groups.min(), groups.max()) == (1, 2)
    assert groups.mean(axis=0) == pytest.approx(5 / 3, abs=0.06)
    seen = Counter(np.concatenate(epochs).tolist())
    assert [seen[row] / 600 for row in (0, 1, 3)] == pytest.approx([5 / 9] * 3, abs=0.06)
    assert max(Counter(rows.tolist()).most_common(1)[0][1] for rows in epochs) == 2


def test_the_log_says_how_often_an_image_comes_up(project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = project.open("train")
    with caplog.at_level(logging.INFO, "roiseg.sampler"):
        Sampler(dataset, sampler_params(balance="crowdedness"), write_shares(tmp_path / "rois.parquet", dataset.index, LONELY))
    assert caplog.messages == [
        "balanced epochs: images by class-2 share none: 3, below 10 %: 1, 10 to 30 %: 1; each at most 2 times"
    ]


def test_an_image_that_comes_up_again_is_drawn_anew(balanced: Sampler) -> None:
    turns = Turns(balanced, 0, 1)
    again = [turn for turn, times in enumerate(times_before(turns.rows).tolist()) if times]
    assert again
    for turn in again:
        first = turns.rows.tolist().index(turns.rows[turn])
        assert not np.array_equal(turns.sample(turn).boxes, turns.sample(first).boxes)
        np.testing.assert_array_equal(turns.sample(turn).boxes, Turns(balanced, 0, 1).sample(turn).boxes)


@pytest.mark.parametrize("changes", [{"balance": "crowdedness"}, {"extra_rois": 2, "crop": 0.7, "non_target_gamma": 1.0}])
def test_epochs_depend_on_seed_and_epoch_and_not_on_threads(project: Project, changes: dict[str, Any]) -> None:
    def drawn(threads: int, **over: int) -> list[tuple[list[int], bytes]]:
        place = {"seed": 1, "epoch": 3, **over}
        batches = training_batches(project.sampler(**changes), Loading(2, threads, 3), **place)
        return [(list(batch.rows), batch.boxes.numpy().tobytes()) for batch in batches]

    assert drawn(1) == drawn(3)
    assert drawn(1) != drawn(1, seed=2)
    assert drawn(1) != drawn(1, epoch=4)


def test_processes_share_each_batch(balanced: Sampler) -> None:
    """Between them they draw what one would; one without an image left computes one that doesn't count."""
    whole = [list(batch.rows) for batch in training_batches(balanced, Loading(2, 1, 1), seed=0, epoch=1)]
    assert [len(rows) for rows in whole] == [2, 2, 1]
    loadings = (Loading(2, 1, 1, rank=rank, processes=2) for rank in range(2))
    first, second = (list(training_batches(balanced, loading, seed=0, epoch=1)) for loading in loadings)
    shared = [[row for batch in pair if batch.counted for row in batch.rows] for pair in zip(first, second, strict=True)]
    assert shared == whole


def test_another_head_reads_other_layers_of_the_same_draws(balanced: Sampler) -> None:
    other = balanced.read_by(["layer_34"], (5, 7))
    assert (other.dataset.layers, balanced.dataset.layers) == (("layer_34",), ("layer_34", "layer_3"))
    assert other.epoch_rows(1, 2).tolist() == balanced.epoch_rows(1, 2).tolist()
    mine, theirs = (sampler.sample(4, np.random.default_rng(3)) for sampler in (balanced, other))
    np.testing.assert_array_equal(mine.boxes, theirs.boxes)
    assert theirs.labels.shape == (3, 5, 7)


def test_times_before() -> None:
    assert times_before(np.array([4, 1, 4, 4, 2, 1])).tolist() == [0, 0, 1, 2, 0, 1]
    assert times_before(np.zeros(0, dtype=np.int64)).tolist() == []


# --- params ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rois_per_image": 0}, r"sampler\.rois_per_image: value is 0"),
        ({"jitter_scale": 1.0}, r"sampler\.jitter_scale: value is 1\.0"),
        ({"jitter_center": 0.1}, r"sampler\.jitter_center: unknown key; did you mean 'jitter_centre'"),
        ({"crop": 0.0}, r"sampler\.crop: value is 0\.0"),
        ({"extra_rois": -1}, r"sampler\.extra_rois: value is -1"),
        ({"extra_jitter": 1.0}, r"sampler\.extra_jitter: value is 1\.0"),
        ({"extra_iou": 1.1}, r"sampler\.extra_iou: value is 1\.1"),
        ({"non_target_gamma": -0.5}, r"sampler\.non_target_gamma: value is -0\.5"),
        ({"non_target_gamma": float("inf")}, r"sampler\.non_target_gamma: value is inf"),
        ({"balance": "crowded"}, r"sampler\.balance: value is 'crowded'; .*'none' or 'crowdedness'"),
        ({"feature_noise": float("nan")}, r"sampler\.feature_noise: value is nan"),
        ({"views": []}, r"sampler\.views: value is \(\)"),
    ],
)
def test_params_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        sampler_params(**changes)
