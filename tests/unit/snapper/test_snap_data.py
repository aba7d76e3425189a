"""Tests of roiseg.snapper.data: rough boxes, windows and targets by hand, and draws that depend on nothing but their seeds."""

from pathlib import Path

import numpy as np
import pytest
from snap_factory import NETWORK_HW, link_snapper, people_as_objects, snap_data, snap_dataset, snapper_section
from store_factory import Project, shared_views

from roiseg.batches import Loading
from roiseg.errors import AnnotationError, StoreMismatchError
from roiseg.files import write_parquet
from roiseg.geometry import paired_box_iou
from roiseg.index import Index
from roiseg.objects import Objects
from roiseg.snapper.data import (
    SnapBatch,
    SnapDataset,
    extreme_weights,
    mirror_boxes,
    roughen,
    single_batch,
    training_batches,
    whole_batches,
)
from roiseg.snapper.params import ExtremeParams, JitterParams
from roiseg.snapper.windows import into_windows, out_of_windows, windows_around

LOADING = Loading(2, 1, 1)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_views(tmp_path_factory)


@pytest.fixture
def place(project: Project, tmp_path: Path) -> Path:
    link_snapper(tmp_path, project)
    return tmp_path


def drawn(dataset: SnapDataset, epoch: int, loading: Loading = LOADING) -> list[SnapBatch]:
    return list(training_batches(dataset, loading, seed=3, epoch=epoch))


# --- geometry (spec 21.4) ---


@pytest.mark.parametrize(
    ("edge", "window", "expected"),
    [(0.0, (0.0, 50.0), 0.0), (10.0, (5.0, 55.0), 5.0), (0.0, (10.0, 60.0), 0.0), (70.0, (10.0, 60.0), 50.0)],
    ids=["both at the border", "within", "before the window", "beyond the window"],
)
def test_worked_cases_of_the_spec(edge: float, window: tuple[float, float], expected: float) -> None:
    """An edge of an image of 100 pixels in a window of 50, told in the window's pixels."""
    boxes, windows = np.array([[edge, edge, 80.0, 80.0]]) / 100, np.array([[window[0], window[0], window[1], window[1]]]) / 100
    seen = into_windows(boxes, windows)[0, :2] * 50
    np.testing.assert_allclose(seen, [expected, expected], atol=1e-12)


def test_windows_are_scaled_about_the_centre_then_cut() -> None:
    rough = np.array([[0.4, 0.4, 0.6, 0.8], [0.0, 0.1, 0.2, 0.3]])
    np.testing.assert_allclose(windows_around(rough, 1.5), [[0.35, 0.3, 0.65, 0.9], [0.0, 0.05, 0.25, 0.35]], atol=1e-12)
    np.testing.assert_allclose(windows_around(rough, np.array([1.0, 2.0]))[1], [0.0, 0.0, 0.3, 0.4], atol=1e-12)


def test_in_and_out_of_windows_is_the_truth_where_it_is_seen(place: Path) -> None:
    dataset = snap_dataset(place, snapper_section(), "val")
    for row in dataset.rows.tolist():
        sample = dataset.whole_sample(row)
        back = out_of_windows(into_windows(sample.truth, sample.windows), sample.windows)
        low, high = np.tile(sample.windows[:, :2], 2), np.tile(sample.windows[:, 2:], 2)
        np.testing.assert_allclose(back, np.clip(sample.truth, low, high), atol=1e-12)


@pytest.mark.parametrize("ratios", ["own", "shared"])
def test_rough_boxes_are_within_the_jitter(ratios: str) -> None:
    jitter = JitterParams.parse({"centre": 0.1, "scale": 0.1, "ratios": ratios}, "jitter")
    truth = np.tile([[0.3, 0.4, 0.5, 0.7]], (2000, 1))
    rough = roughen(truth, jitter, np.random.default_rng(0))
    sizes = (rough[:, 2:] - rough[:, :2]) / [0.2, 0.3]
    shifts = ((rough[:, 2:] + rough[:, :2]) / 2 - [0.4, 0.55]) / [0.2, 0.3]
    assert np.abs(shifts).max() <= 0.1 + 1e-9
    assert np.abs(shifts).max() > 0.099
    assert sizes.min() >= 0.9 - 1e-9
    assert sizes.max() <= 1.1 + 1e-9
    assert np.allclose(sizes[:, 0], sizes[:, 1]) == (ratios == "shared")
    assert paired_box_iou(rough, truth).mean() == pytest.approx(0.811, abs=0.004)


# --- validation ---


def test_rough_boxes_of_validation_depend_on_their_ids_alone(place: Path, project: Project) -> None:
    params = snapper_section()
    dataset = snap_dataset(place, params, "val")
    samples = {row: dataset.whole_sample(row) for row in dataset.rows.tolist()}
    table = people_as_objects(Index(project.index / "val", NETWORK_HW, "stretch"))
    left = table.iloc[1:].reset_index(drop=True)
    write_parquet(place / "less.parquet", left)
    less = SnapDataset(dataset.index, Objects(place / "less.parquet", 8.0), dataset.store, dataset.layers, params.data)
    for row in less.rows.tolist():
        sample = less.whole_sample(row)
        whole = samples[row]
        same = np.isin(whole.annotation_ids, sample.annotation_ids)
        np.testing.assert_array_equal(whole.rough[same], sample.rough)
    other = snap_dataset(place, snapper_section(data={"val_seed": 1}), "val").whole_sample(int(dataset.rows[0]))
    assert not np.array_equal(other.rough, samples[int(dataset.rows[0])].rough)


def test_validation_keeps_all_boxes_and_has_one_buffer(place: Path) -> None:
    params = snapper_section(data={"boxes_per_image": 1, "extreme": {"policy": "drop", "min_iou": 1.0}})
    dataset = snap_dataset(place, params, "val")
    batches = list(whole_batches(dataset, LOADING))
    assert sum(batch.size for batch in batches) == len(dataset.objects)
    for batch in batches:
        assert batch.weights.eq(1.0).all()
        for sample in batch.samples:
            np.testing.assert_array_equal(sample.windows, windows_around(sample.rough, 1.35))


def test_a_negative_id_has_a_draw_of_its_own(place: Path, project: Project) -> None:
    table = people_as_objects(Index(project.index / "val", NETWORK_HW, "stretch"))
    write_parquet(place / "negative.parquet", table.assign(annotation_id=-table["annotation_id"] - 1))
    dataset = snap_dataset(place, snapper_section(), "val")
    other = SnapDataset(dataset.index, Objects(place / "negative.parquet", 8.0), dataset.store, dataset.layers, dataset.params)
    assert len(other.whole_sample(int(other.rows[0])).rough) > 0


# --- training ---


def test_draws_depend_on_seed_and_epoch_not_on_who_loads(place: Path) -> None:
    dataset = snap_dataset(place, snapper_section())
    one, two = drawn(dataset, 1), drawn(dataset, 1, Loading(2, 2, 3))
    for first, second in zip(one, two, strict=True):
        assert first.rows == second.rows
        assert first.windows.equal(second.windows)
        assert first.targets.equal(second.targets)
    assert not drawn(dataset, 2)[0].windows.equal(one[0].windows)
    shares = [drawn(dataset, 1, Loading(2, 1, 1, rank=rank, processes=2)) for rank in (0, 1)]
    rows = [[row for batch in part if batch.counted for row in batch.rows] for part in shares]
    assert sorted(rows[0] + rows[1]) == dataset.rows.tolist()


def test_training_draws_the_buffer_of_each_box_and_some_boxes(place: Path) -> None:
    dataset = snap_dataset(place, snapper_section(data={"boxes_per_image": 2, "views": ["plain"]}))
    for batch in drawn(dataset, 1):
        counts = [len(sample.truth) for sample in batch.samples]
        assert counts == [min(len(dataset.objects.of(row).annotation_ids), 2) for row in batch.rows]
        assert batch.windows[:, 0].tolist() == np.repeat(np.arange(len(counts)), counts).tolist()
        for sample in batch.samples:
            inside = (sample.windows > 0).all(axis=1) & (sample.windows < 1).all(axis=1)
            ratio = (sample.windows[:, 2:] - sample.windows[:, :2]) / (sample.rough[:, 2:] - sample.rough[:, :2])
            assert ((ratio[inside] >= 1.3 - 1e-9) & (ratio[inside] <= 1.4 + 1e-9)).all()


def test_mirrored_views_flip_boxes_and_read_mirrored_features(place: Path) -> None:
    plain = drawn(snap_dataset(place, snapper_section(data={"views": ["plain"]})), 1)
    mirrored = drawn(snap_dataset(place, snapper_section(data={"views": ["mirrored"]})), 1)
    for one, two in zip(plain, mirrored, strict=True):
        assert {sample.view for sample in two.samples} == {"mirrored"}
        for part in (slice(1, 5), slice(5, 9)):
            np.testing.assert_allclose(two.windows[:, part], mirror_boxes(one.windows[:, part].double().numpy()), atol=1e-6)
        np.testing.assert_allclose(two.targets, mirror_boxes(one.targets.double().numpy()), atol=1e-6)
        for layer in one.features:
            assert not one.features[layer].equal(two.features[layer])
    both = drawn(snap_dataset(place, snapper_section()), 1)
    assert {sample.view for batch in both for sample in batch.samples} == {"plain", "mirrored"}


def test_windows_of_a_letterbox_are_mirrored_with_their_padding(place: Path) -> None:
    dataset = snap_dataset(place, snapper_section())
    boxed = Index(place / "data/index/train", NETWORK_HW, "letterbox")
    other = SnapDataset(boxed, dataset.objects, dataset.store, dataset.layers, dataset.params)
    sample = other.whole_sample(int(other.rows[0]))
    seen, mirrored = other.unit_windows(sample), other.unit_windows(sample.mirrored())
    for part in (slice(0, 4), slice(4, 8)):
        np.testing.assert_allclose(mirrored[:, part], mirror_boxes(seen[:, part]), atol=1e-12)


# --- extreme boxes ---


def extreme(policy: str) -> ExtremeParams:
    return ExtremeParams.parse({"policy": policy, "min_iou": 0.5, "weight": 0.25}, "extreme")


@pytest.mark.parametrize(("policy", "expected"), [("keep", [1, 1, 1]), ("drop", [1, 0, 1]), ("down_weight", [1, 0.25, 1])])
def test_weights_of_extreme_boxes(policy: str, expected: list[float]) -> None:
    truth = np.tile([[0.0, 0.0, 0.4, 0.4]], (3, 1))
    rough = np.array([[0.0, 0.0, 0.4, 0.4], [0.3, 0.3, 0.7, 0.7], [0.0, 0.0, 0.4, 0.2]])
    assert extreme_weights(rough, truth, extreme(policy)).tolist() == expected


def test_an_image_that_loses_all_boxes_brings_one_that_does_not_weigh(place: Path) -> None:
    params = snapper_section(data={"extreme": {"policy": "drop", "min_iou": 1.0}})
    batches = drawn(snap_dataset(place, params), 1)
    for batch in batches:
        assert batch.size == len(batch.rows)
        assert batch.weights.tolist() == [0.0] * batch.size
        assert batch.targets.shape == (batch.size, 4)


# --- errors ---


def test_a_layer_that_is_not_stored(place: Path) -> None:
    dataset = snap_dataset(place, snapper_section())
    with pytest.raises(StoreMismatchError, match="no layer 'layer_99'"):
        SnapDataset(dataset.index, dataset.objects, dataset.store, ["layer_99"], dataset.params)


def test_boxes_that_are_all_too_small(place: Path) -> None:
    with pytest.raises(
        AnnotationError, match=r"none of its \d+ boxes is at least 500 pixels wide and high \(snapper.data.min_box_px\)"
    ):
        snap_dataset(place, snapper_section(data={"min_box_px": 500.0}))


def test_val_buffer_is_the_middle() -> None:
    assert snap_data(buffer=[1.0, 1.3]).val_buffer == pytest.approx(1.15)


def test_one_image_with_all_its_boxes(place: Path) -> None:
    dataset = snap_dataset(place, snapper_section(), "val")
    row = int(dataset.rows[0])
    batch = single_batch(dataset, row)
    assert batch.rows == [row]
    assert batch.size == len(dataset.objects.of(row).annotation_ids)
