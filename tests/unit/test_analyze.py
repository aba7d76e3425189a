import json
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as coco_mask

from roiseg.analyze import run
from roiseg.analyze.measure import measure_image, roi_windows
from roiseg.analyze.params import AnalyzeParams
from roiseg.analyze.run import analyze
from roiseg.analyze.summary import coverage_table
from roiseg.analyze.weights import frequency_class_weights, log_class_weights, separation_aware_weights
from roiseg.classes import CLASS_NAMES
from roiseg.coco import Json
from roiseg.errors import AnnotationError, ParamsError
from roiseg.params import load_section

PUBLISHED_RATIOS = {"background": 0.4864665, "target": 0.3659776, "non_target": 0.1475558}
LEAVES: dict[str, Any] = {
    "annotations": "people.json",
    "padding": None,
    "eps": 1e-3,
    "separation_boost": 1.2,
    "align_sizes": [2, 4],
}
PERSON = {"id": 1, "name": "person"}
STAGE = Path(__file__).parents[2] / "stages" / "analyze.py"


def params(path: Path, **changes: object) -> AnalyzeParams:
    return load_section(AnalyzeParams, "analyze", {"analyze": {**LEAVES, "annotations": str(path), **changes}})


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def uncompressed_rle(mask: np.ndarray[Any, Any]) -> Json:
    flat = mask.ravel(order="F").astype(np.int64)
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def person(number: int, image: int, bbox: Sequence[float], segmentation: object) -> Json:
    return {
        "id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": list(bbox), "area": 1.0,
        "segmentation": segmentation,
    }  # fmt: skip


def three_images() -> Json:
    """Image 10: two that overlap, one an RLE. 20: one cut by the right border. 30: neighbours and a speck."""
    block = np.zeros((10, 16), dtype=bool)
    block[3:9, 6:12] = True
    return {
        "images": [
            {"id": 10, "file_name": "a.jpg", "height": 10, "width": 16},
            {"id": 20, "file_name": "b.jpg", "height": 12, "width": 8},
            {"id": 30, "file_name": "c.jpg", "height": 9, "width": 20},
        ],
        "annotations": [
            person(1, 10, (2, 1, 8, 6), [rectangle(2, 1, 8, 7), rectangle(8, 1, 10, 2)]),  # 36 + 2 pixels
            person(2, 10, (6, 3, 6, 6), uncompressed_rle(block)),  # 36 pixels, 8 of them shared
            person(3, 20, (5, 2, 3.6, 4), [rectangle(5, 2, 8.6, 6)]),  # 3 x 4 inside
            person(4, 30, (0, 0, 10, 8), [rectangle(0, 0, 10, 8)]),
            person(5, 30, (10, 2, 5, 5), [rectangle(10, 2, 15, 7)]),
            person(6, 30, (17.2, 0.1, 0.6, 0.7), [rectangle(17, 0, 18, 1)]),  # its ROI holds no whole pixel
        ],
        "categories": [PERSON],
    }


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering takes most of the stage's time on a small file."""
    for name in ("plot_classes", "plot_sizes"):
        monkeypatch.setattr(run, name, lambda *_: b"")


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    path = tmp_path / "people.json"
    path.write_text(json.dumps(three_images()), encoding="utf-8")
    return path


def test_published_ratios_give_the_published_weights() -> None:
    logs = log_class_weights(PUBLISHED_RATIOS, 1e-3)
    aware = separation_aware_weights(PUBLISHED_RATIOS, 1e-3, 1.2)
    assert [logs[name] for name in CLASS_NAMES] == pytest.approx([0.594192, 0.828981, 1.576826], abs=1e-6)
    assert [aware[name] for name in CLASS_NAMES] == pytest.approx([0.5376714, 0.7501265, 1.7122020], abs=1e-6)


def test_the_small_published_file_gives_its_inverse_frequencies() -> None:
    counts = np.array([6_070_922, 4_915_699, 1_533_722])
    ratios = dict(zip(CLASS_NAMES, counts / counts.sum(), strict=True))
    assert list(frequency_class_weights(ratios, 1e-3).values()) == pytest.approx([0.4863, 0.6003, 1.9134], abs=5e-5)
    assert list(log_class_weights(ratios, 1e-3).values()) == pytest.approx([0.5781, 0.7468, 1.6751], abs=5e-5)


@pytest.mark.parametrize("shares", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1 / 3, 1 / 3, 1 / 3), (0.9995, 0.0005, 0.0)])
def test_weights_sum_to_three_and_are_never_negative(shares: tuple[float, ...]) -> None:
    ratios = dict(zip(CLASS_NAMES, shares, strict=True))
    for weights in (
        frequency_class_weights(ratios, 1e-3),
        log_class_weights(ratios, 1e-3),
        separation_aware_weights(ratios, 1e-3, 1.2),
    ):
        assert list(weights) == list(CLASS_NAMES)
        assert sum(weights.values()) == pytest.approx(3)
        assert min(weights.values()) >= 0


@pytest.mark.usefixtures("no_plots")
def test_three_images_by_hand(annotations: Path, tmp_path: Path) -> None:
    analyze(params(annotations), 0.0, tmp_path / "report.json", tmp_path / "rois.parquet", tmp_path / "folder")
    report = json.loads((tmp_path / "report.json").read_text())
    ratios = {"background": 2 / 201, "target": 191 / 201, "non_target": 8 / 201}
    sizes = np.array([(8, 6), (6, 6), (3, 4), (10, 8), (5, 5), (0.6, 0.7)])
    shares = [66 / 160, 12 / 96, 106 / 180]

    def spread(values: Sequence[float], *ranks: int) -> Any:  # noqa: ANN401 - an approx object
        array = np.array(values)
        named = {f"p{rank}": np.percentile(array, rank) for rank in ranks}
        return pytest.approx({"mean": array.mean(), "std": array.std(), "median": np.median(array), **named})

    assert report.pop("pixel_ratios") == pytest.approx(ratios)
    assert report.pop("recommended_class_weights") == pytest.approx(frequency_class_weights(ratios, 1e-3))
    assert report.pop("recommended_log_class_weights") == pytest.approx(log_class_weights(ratios, 1e-3))
    assert report.pop("separation_aware_weights") == pytest.approx(separation_aware_weights(ratios, 1e-3, 1.2))
    assert report.pop("instance_overlap_stats") == pytest.approx(
        {"images_with_overlaps": 1, "total_overlapping_pairs": 1, "avg_iou": 8 / 66, "max_iou": 8 / 66}
    )
    area_ratio = (48 / 160 + 36 / 160 + 12 / 96 + 80 / 180 + 25 / 180 + 0) / 6
    assert report.pop("roi_stats") == pytest.approx(
        {
            "avg_roi_area_ratio": area_ratio,
            "avg_instances_per_roi": 8 / 6,
            "roi_overlap_ratio": 2 / 6,
            "rois_without_pixels": 1,
        }
    )
    assert report.pop("summary") == pytest.approx(
        {
            "avg_instances_per_image": 2,
            "percent_multi_instance_images": 200 / 3,
            "percent_images_with_overlaps": 100 / 3,
        }
    )
    whole = report.pop("whole_image")
    assert whole["pixel_counts"] == {"foreground": 184, "background": 252}
    assert whole["pixel_ratios"] == pytest.approx({"foreground": 184 / 436, "background": 252 / 436})
    assert whole["foreground_ratio_per_image"] == spread(shares, 10, 25, 75, 90)
    assert report.pop("people_per_image") == pytest.approx({"mean": 2, "std": (2 / 3) ** 0.5, "median": 2, "max": 3})
    found = report.pop("roi_size_px")
    assert found["width"] == spread(sizes[:, 0].tolist(), 5, 95)
    assert found["height"] == spread(sizes[:, 1].tolist(), 5, 95)
    assert found["area"] == spread([48, 36, 12, 80, 25, 0.42], 5, 95)
    assert found["aspect_width_by_height"] == spread([8 / 6, 1, 3 / 4, 10 / 8, 1, 6 / 7], 5, 95)
    coverage = report.pop("roi_size_coverage")
    assert list(coverage) == ["2", "4"]
    assert coverage["2"] == pytest.approx({"at_most_2x": 2 / 6, "at_most_4x": 5 / 6, "at_most_8x": 1, "mean_factor": 33.7 / 6 / 2})
    assert report == {
        "total_images": 3,
        "total_instances": 6,
        "images_with_multiple_instances": 2,
        "pixel_counts": {"background": 2, "target": 191, "non_target": 8},
        "instance_count_distribution": {"1": 1, "2": 1, "3": 1},
        "class_order": ["background", "target", "non_target"],
        "padding": 0.0,
    }


@pytest.mark.usefixtures("no_plots")
def test_the_table_has_a_row_per_image(annotations: Path, tmp_path: Path) -> None:
    analyze(params(annotations), 0.0, tmp_path / "report.json", tmp_path / "rois.parquet", tmp_path / "folder")
    table = pd.read_parquet(tmp_path / "folder" / "per_image.parquet")
    expected = pd.DataFrame(
        {
            "image_id": [10, 20, 30],
            "height": [10, 12, 9],
            "width": [16, 8, 20],
            "num_instances": [2, 1, 3],
            "has_overlaps": [True, False, False],
            "num_overlapping_pairs": [1, 0, 0],
            "max_overlap_iou": [8 / 66, 0.0, 0.0],
            "foreground_pixels": [66, 12, 106],
            "foreground_ratio": [66 / 160, 12 / 96, 106 / 180],
            "roi_background_pixels": [2, 0, 0],
            "roi_target_pixels": [74, 12, 105],
            "roi_non_target_pixels": [8, 0, 0],
        }
    )
    pd.testing.assert_frame_equal(table, expected)


@pytest.mark.usefixtures("no_plots")
def test_the_table_of_rois(annotations: Path, tmp_path: Path) -> None:
    analyze(params(annotations), 0.0, tmp_path / "report.json", tmp_path / "rois.parquet", tmp_path / "folder")
    expected = pd.DataFrame(
        {
            "image_id": [10, 10, 20, 30, 30, 30],
            "annotation_id": [1, 2, 3, 4, 5, 6],
            "n_background": [2, 0, 0, 0, 0, 0],
            "n_target": [38, 36, 12, 80, 25, 0],
            "n_non_target": [8, 0, 0, 0, 0, 0],
            "area": [48, 36, 12, 80, 25, 0],
            "iou_with_neighbour": [8 / 66, 8 / 66, 0.0, 0.0, 0.0, 0.0],
            "padding": 0.0,
        }
    )
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "rois.parquet"), expected)


PADDED = {"background": 39, "target": 191, "non_target": 26}
PLAIN = {"background": 2, "target": 191, "non_target": 8}


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(
    ("own", "shared", "used", "counts", "people"),
    [
        (None, 0.1, 0.1, PADDED, 10 / 6),
        (None, 0.0, 0.0, PLAIN, 8 / 6),
        (0, 0.1, 0.0, PLAIN, 8 / 6),
        (0.1, 0.0, 0.1, PADDED, 10 / 6),
    ],
)
def test_padding(
    annotations: Path, tmp_path: Path, own: float | None, shared: float, used: float, counts: Json, people: float
) -> None:
    report = analyze(
        params(annotations, padding=own), shared, tmp_path / "report.json", tmp_path / "rois.parquet", tmp_path / "folder"
    )
    assert report["padding"] == used
    assert report["pixel_counts"] == counts
    assert report["roi_stats"]["avg_instances_per_roi"] == pytest.approx(people)
    assert report["instance_overlap_stats"]["total_overlapping_pairs"] == 1


def test_windows_are_cut_towards_zero_and_clipped() -> None:
    boxes = np.array([[2.9, 3.1, 4.2, 5.0], [-0.5, 0, 3.4, 2.5], [17.2, 8.5, 3.5, 0.5]])
    assert roi_windows(boxes, 0.0, (9, 20)).tolist() == [[2, 3, 7, 8], [0, 0, 2, 2], [17, 8, 20, 9]]
    assert roi_windows(boxes, 0.1, (9, 20)).tolist() == [[2, 2, 7, 8], [0, 0, 3, 2], [16, 8, 20, 9]]


def slow_measure(image: Json, people: Sequence[Json], padding: float) -> tuple[list[list[int]], list[int], list[float], int]:
    """Spec 4.1 word by word, on whole decoded masks."""
    height, width = image["height"], image["width"]
    masks = []
    for item in people:
        runs = coco_mask.frPyObjects(item["segmentation"], height, width)
        masks.append(coco_mask.decode(runs if isinstance(runs, dict) else coco_mask.merge(runs)).astype(bool))
    pixels, counts, ious = [], [], []
    for number, item in enumerate(people):
        x, y, w, h = item["bbox"]
        x1, y1 = max(int(x - padding * w), 0), max(int(y - padding * h), 0)
        x2, y2 = min(int(x + (1 + padding) * w), width), min(int(y + (1 + padding) * h), height)
        labels = np.zeros((max(y2 - y1, 0), max(x2 - x1, 0)), dtype=np.uint8)
        labels[masks[number][y1:y2, x1:x2]] = 1
        count = 1
        for other, mask in enumerate(masks):
            part = mask[y1:y2, x1:x2]
            if other != number and part.any():
                count += 1
                labels[part & (labels == 0)] = 2
            if other > number and (shared := np.count_nonzero(masks[number] & mask)):
                ious.append(float(shared / np.count_nonzero(masks[number] | mask)))
        pixels.append([int(np.count_nonzero(labels == label)) for label in range(3)])
        counts.append(count)
    return pixels, counts, ious, int(np.count_nonzero(np.any(masks, axis=0)))


def random_people(rng: np.random.Generator, count: int, image_hw: tuple[int, int], largest: float) -> list[Json]:
    height, width = image_hw
    people = []
    for number in range(count):
        points = int(rng.integers(3, 12))
        centre, reach = rng.uniform(0, 1, 2) * [width, height], rng.uniform(0.5, largest, 2)
        angles = np.sort(rng.uniform(0, 2 * np.pi, points))
        star = centre + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.3, 1, (points, 1))
        star = np.clip(np.round(star, 2), -0.6, [width + 0.6, height + 0.6])
        low, high = star.min(axis=0), star.max(axis=0) + 0.01
        segmentation: object = [star.ravel().tolist()]
        if number % 4 == 3:
            blob = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width)))
            segmentation = uncompressed_rle(blob)
        people.append(person(number, 1, [*low.tolist(), *(high - low).tolist()], segmentation))
    return people


@pytest.mark.parametrize("padding", [0.0, 0.1, 0.37])
@pytest.mark.parametrize(
    ("count", "image_hw", "largest"), [(1, (31, 18), 12), (7, (40, 73), 25), (12, (73, 40), 9), (300, (25, 34), 4)]
)
def test_agrees_with_the_slow_way(padding: float, count: int, image_hw: tuple[int, int], largest: float) -> None:
    image = {"id": 1, "height": image_hw[0], "width": image_hw[1]}
    for seed in range(1 if count > 99 else 6):
        people = random_people(np.random.default_rng(seed), count, image_hw, largest)
        pixels, counts, ious, foreground = slow_measure(image, people, padding)
        found = measure_image(image, people, padding)
        assert found.roi_pixels.tolist() == pixels
        assert found.people_in_roi.tolist() == counts
        assert sorted(found.pair_ious.tolist()) == pytest.approx(sorted(ious), abs=1e-15)
        assert found.foreground_pixels == foreground
        assert found.annotation_ids.tolist() == [item["id"] for item in people]
        assert found.neighbour_iou.max() == pytest.approx(max(ious, default=0.0), abs=1e-15)


@pytest.mark.usefixtures("no_plots")
def test_an_image_without_people_counts_as_background(tmp_path: Path, annotations: Path) -> None:
    data = three_images()
    data["images"].append({"id": 40, "file_name": "d.jpg", "height": 7, "width": 11})
    annotations.write_text(json.dumps(data), encoding="utf-8")
    report = analyze(params(annotations), 0.0, tmp_path / "report.json", tmp_path / "rois.parquet", tmp_path / "folder")
    assert report["total_images"] == 4
    assert report["instance_count_distribution"] == {"0": 1, "1": 1, "2": 1, "3": 1}
    assert report["whole_image"]["pixel_counts"] == {"foreground": 184, "background": 252 + 77}


@pytest.mark.usefixtures("no_plots")
def test_a_box_beside_its_image_has_no_pixels_and_no_aspect(tmp_path: Path, annotations: Path) -> None:
    data = three_images()
    data["annotations"][5]["bbox"] = [3, 9, 1, 0.5]  # below an image of 9 rows, within the tolerance of `prepare`
    annotations.write_text(json.dumps(data), encoding="utf-8")
    report = analyze(params(annotations), 0.0, tmp_path / "report.json", tmp_path / "rois.parquet", tmp_path / "folder")
    assert report["roi_stats"]["rois_without_pixels"] == 1
    assert report["roi_size_px"]["aspect_width_by_height"]["mean"] == pytest.approx((8 / 6 + 1 + 3 / 4 + 10 / 8 + 1) / 5)


def test_coverage_halves_with_twice_the_size() -> None:
    table = coverage_table(np.array([(28, 20), (56.0, 60.5), (112, 112), (30, 448)]), (14, 28))
    assert table["14"] == pytest.approx(
        {"at_most_2x": 0.25, "at_most_4x": 0.25, "at_most_8x": 0.75, "mean_factor": (28 + 60.5 + 112 + 448) / 56}
    )
    assert table["28"]["mean_factor"] == pytest.approx(table["14"]["mean_factor"] / 2)
    assert table["28"]["at_most_4x"] == table["14"]["at_most_8x"]


def test_bytes_are_the_same_again(annotations: Path, tmp_path: Path) -> None:
    def outs(name: str) -> dict[str, bytes]:
        analyze(
            params(annotations), 0.1, tmp_path / name / "report.json", tmp_path / name / "rois.parquet", tmp_path / name / "folder"
        )
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}

    first = outs("first")
    # A reader's own matplotlib settings don't reach the plots.
    with mpl.rc_context({"font.size": 23, "lines.linewidth": 9, "figure.facecolor": "red", "savefig.dpi": 40}):
        second = outs("second")
    assert set(first) == {
        "report.json", "rois.parquet", "folder/per_image.parquet", "folder/classes_and_people.png", "folder/roi_size.png"
    }  # fmt: skip
    assert first == second
    assert all(mark not in first["folder/roi_size.png"] for mark in (b"tIME", b"Software", b"Creation"))


def test_the_stage_reads_the_shared_padding(annotations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(
        json.dumps({"dataset": {"roi_padding": 0.1}, "analyze": {**LEAVES, "annotations": annotations.name}}),
        encoding="utf-8",
    )
    runpy.run_path(str(STAGE), run_name="__main__")
    assert json.loads(Path("metrics/data_analyze.json").read_text())["pixel_counts"] == PADDED
    assert len(list(Path("metrics/analyze").iterdir())) == 3
    assert pd.read_parquet("data/rois.parquet")["padding"].unique().tolist() == [0.1]


def test_the_stage_refuses_a_bad_shared_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("dataset: {roi_padding: -1}\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="1"):
        runpy.run_path(str(STAGE), run_name="__main__")
    assert "dataset.roi_padding: value is -1" in capsys.readouterr().err


def broken(annotations: Path, changes: Json) -> AnalyzeParams:
    annotations.write_text(json.dumps({**three_images(), **changes}), encoding="utf-8")
    return params(annotations)


NORMALISED = [person(1, 10, (0.1, 0.1, 0.5, 0.6), [rectangle(0.1, 0.1, 0.6, 0.7)])]
CAR = [{**three_images()["annotations"][0], "category_id": 3}]
CROWD = [{**three_images()["annotations"][0], "iscrowd": 1}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [], "annotations": []}, r"people\.json: 0 images and 0 people, .*run `dvc repro prepare`"),
        ({"annotations": []}, r"people\.json: 3 images and 0 people"),
        ({"annotations": NORMALISED}, r"people\.json: no box of its 1 people covers a pixel, .*normalised"),
        ({"annotations": CAR}, r"people\.json: 1 annotations of other categories than 'person' and 0 crowds"),
        ({"annotations": CROWD}, r"0 annotations of other categories than 'person' and 1 crowds, .*`prepare` wrote"),
    ],
)
def test_a_file_without_usable_people_is_refused(annotations: Path, tmp_path: Path, changes: Json, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        analyze(broken(annotations, changes), 0.0, tmp_path / "report.json", tmp_path / "rois.parquet", tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == [annotations.name]


@pytest.mark.parametrize(("text", "message"), [("", r"people\.json: not valid JSON"), ("{}", r"no list 'images'")])
def test_an_empty_file_is_refused(annotations: Path, tmp_path: Path, text: str, message: str) -> None:
    annotations.write_text(text, encoding="utf-8")
    with pytest.raises(AnnotationError, match=message):
        analyze(params(annotations), 0.0, tmp_path / "report.json", tmp_path / "rois.parquet", tmp_path / "folder")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"none\.json: no such annotation file"):
        analyze(params(tmp_path / "none.json"), 0.0, tmp_path / "report.json", tmp_path / "rois.parquet", tmp_path / "folder")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"padding": -0.1}, r"analyze\.padding: value is -0\.1"),
        ({"eps": 0}, r"analyze\.eps: value is 0"),
        ({"eps": 0.7}, r"analyze\.eps: value is 0\.7"),
        ({"separation_boost": 0}, r"analyze\.separation_boost: value is 0"),
        ({"align_sizes": []}, r"analyze\.align_sizes: value is \(\)"),
        ({"align_sizes": [28, 14]}, r"analyze\.align_sizes: .*every size once, the smallest first"),
        ({"align_sizes": [14, 14]}, r"every size once"),
        ({"align_sizes": [0]}, r"analyze\.align_sizes\.0: value is 0"),
        ({"epps": 1}, r"analyze\.epps: unknown key; did you mean 'eps'"),
    ],
)
def test_params_out_of_range(changes: Json, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        params(Path("people.json"), **changes)
