"""Tests of roiseg.predict.run: every picture answered once, scores, ids, and faults that don't stop the rest."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from export_factory import Exported, shared_export
from numpy.typing import ArrayLike
from pycocotools import mask as coco_mask

from roiseg.errors import BoxError, GraphError, PredictionError, UnwritableError
from roiseg.geometry import Floats
from roiseg.network_input import Pixels
from roiseg.placed import Placed
from roiseg.predict import Predictor
from roiseg.predict.boxes import BoxTable, choose_boxes
from roiseg.predict.encoder import Encoded
from roiseg.predict.outputs import Wanted
from roiseg.predict.person import Detections, PersonMask
from roiseg.predict.run import MAX_SHOWN, WRITES_AHEAD, Run, Summary, named_ids
from roiseg.predict.sources import find_sources
from roiseg.types import Window

WANTED = Wanted(overlays=None, masks=False, rle=True, polygons=False, tolerance=0.0, min_area=0.0)


class Fake(Predictor):
    """Answers each box with itself, filled; finds one person whose score is the grey of the image, in percent."""

    def __init__(self, detector: bool = True) -> None:
        self.detector = detector
        self.batches: list[int] = []

    @property
    def has_detector(self) -> bool:
        return self.detector

    def encode(self, images: Sequence[Pixels]) -> list[Encoded]:
        self.batches.append(len(images))
        return [
            Encoded({}, (item.shape[0], item.shape[1]), np.array([[0.25, 0.25, 0.75, 0.75, item[0, 0, 0] / 100]]))
            for item in images
        ]

    def detect(self, encoded: Encoded) -> Detections:
        assert encoded.detected is not None
        return Detections(encoded.detected[:, :4] * np.tile(encoded.image_hw[::-1], 2), encoded.detected[:, 4])

    def masks(self, encoded: Encoded, boxes_image: ArrayLike, what: str = "image") -> list[PersonMask]:
        boxes: Floats = np.asarray(boxes_image)
        if (boxes == 13).any():
            raise PredictionError(f"{what}: unlucky")
        found = []
        for box in boxes:
            x0, y0, x1, y1 = (int(item) for item in box)
            found.append(PersonMask(Placed(Window(y0, y1, x0, x1), np.ones((y1 - y0, x1 - x0), dtype=bool)), box, 0.5, (12, 20)))
        return found


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Images `00.png` ... `09.png` of that grey."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for number in range(10):
        cv2.imwrite(str(folder / f"{number:02d}.png"), np.full((12, 20, 3), number, dtype=np.uint8))
    return folder


def run(predictor: Predictor, boxes: BoxTable | None, shots: Path, batch: int = 1, wanted: Wanted = WANTED) -> Summary:
    return Run(predictor, boxes, batch, wanted, shots.parent / "out")(find_sources([str(shots)]))


def results(shots: Path) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((shots.parent / "out" / "predictions.json").read_text())
    return loaded


def csv(shots: Path, *lines: str) -> BoxTable | None:
    path = shots.parent / "boxes.csv"
    path.write_text("\n".join(["file_name,x0,y0,x1,y1,score", *lines]))
    return choose_boxes(str(path), None, None)


# --- pictures in order ---


@pytest.mark.parametrize(("batch", "batches"), [(1, [1] * 10), (4, [4, 4, 2]), (50, [10])])
def test_pictures_go_through_in_batches(shots: Path, batch: int, batches: list[int]) -> None:
    fake = Fake()
    summary = run(fake, None, shots, batch)
    assert fake.batches == batches
    assert str(summary) == "10 images, 10 masks"
    found = results(shots)
    assert [item["file_name"] for item in found] == [f"{number:02d}.png" for number in range(10)]
    assert [item["score"] for item in found] == [round(0.5 * number / 100, 6) for number in range(10)], "mask times detector"
    assert {tuple(item["bbox"]) for item in found} == {(5.0, 3.0, 10.0, 6.0)}
    assert coco_mask.area(found[0]["segmentation"]) == 60


def test_little_waits_for_the_writer(shots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead: list[int] = []
    fake, written = Fake(), list[int]()
    monkeypatch.setattr("roiseg.predict.outputs.Outputs.__call__", lambda _, found: written.append(found.image_id))
    encode = fake.encode

    def counting(images: Sequence[Pixels]) -> list[Encoded]:
        ahead.append(sum(fake.batches) - len(written))
        return encode(images)

    monkeypatch.setattr(fake, "encode", counting)
    run(fake, None, shots)
    assert max(ahead) <= WRITES_AHEAD + 1
    assert written == list(range(10))


def test_boxes_and_scores_of_a_table(shots: Path) -> None:
    table = csv(shots, "03.png,1,2,5,6,0.5", "03.png,4,4,9,9,", "07.png,0,0,2,2,0.25")
    assert table is not None
    for number in (3, 7):
        (shots.parent / "some").mkdir(exist_ok=True)
        (shots / f"{number:02d}.png").rename(shots.parent / "some" / f"{number:02d}.png")
    summary = run(Fake(detector=False), table, shots.parent / "some", 2)
    assert str(summary) == "2 images, 3 masks"
    assert [(item["image_id"], item["score"], item["bbox"]) for item in results(shots)] == [
        (3, 0.25, [1.0, 2.0, 4.0, 4.0]),
        (3, 0.5, [4.0, 4.0, 5.0, 5.0]),
        (7, 0.125, [0.0, 0.0, 2.0, 2.0]),
    ]


def test_an_image_with_nobody_isnt_encoded(shots: Path) -> None:
    coco = {
        "images": [{"id": 40 + number, "file_name": f"{number:02d}.png"} for number in range(10)],
        "categories": [{"id": 5, "name": "person"}],
        "annotations": [{"image_id": 44, "category_id": 5, "bbox": [1, 2, 3, 4]}],
    }
    path = shots.parent / "boxes.json"
    path.write_text(json.dumps(coco))
    fake = Fake()
    summary = run(fake, choose_boxes(str(path), None, None), shots, 3, replace(WANTED, polygons=True))
    assert fake.batches == [1]
    assert str(summary) == "10 images, 1 masks"
    assert [(item["image_id"], item["category_id"]) for item in results(shots)] == [(44, 5)], "ids of the boxes' file"
    polygons = json.loads((shots.parent / "out" / "polygons.json").read_text())
    assert [item["id"] for item in polygons["images"]] == list(range(40, 50))


def test_ids_of_file_names(tmp_path: Path) -> None:
    def ids(*names: str) -> list[int]:
        return named_ids(find_sources([str(tmp_path / name) for name in names]))

    assert ids("000000000139.jpg", "a/7.png") == [139, 7]
    assert ids("139.jpg", "a.png") == []
    assert ids("a/7.jpg", "b/007.jpg") == [], "two would be one"
    assert ids("1.jpg", "2.mp4") == [], "a video has many pictures"


def test_without_such_names_pictures_are_counted(shots: Path) -> None:
    (shots / "00.png").rename(shots / "first.png")
    run(Fake(), None, shots)
    assert [(item["file_name"], item["image_id"]) for item in results(shots)][-2:] == [("09.png", 9), ("first.png", 10)]


# --- faults ---


def test_one_bad_file_doesnt_stop_the_rest(shots: Path, caplog: pytest.LogCaptureFixture) -> None:
    (shots / "02.png").write_bytes(b"")
    (shots / "05.png").write_text("text")
    with caplog.at_level(logging.ERROR):
        summary = run(Fake(), None, shots, 4)
    assert str(summary) == f"8 images, 8 masks; 2 failed: {shots / '02.png'}, {shots / '05.png'}"
    assert [record.getMessage().split(": ")[0] for record in caplog.records] == ["ImageReadError"] * 2
    assert [item["image_id"] for item in results(shots)] == [0, 1, 3, 4, 6, 7, 8, 9]


def test_faults_of_boxes_and_head_are_the_pictures_own(shots: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        "00.png,1,2,3,4,",
        "01.png,3,2,1,4,",
        "02.png,13,2,15,4,",
        "03.png,.1,.2,.3,.4,",
        "04.png,30,2,35,4,",
        "05.png,1,2,3,4,",
    ]
    with caplog.at_level(logging.ERROR):
        summary = run(Fake(), csv(shots, *lines), shots, 3)
    assert (summary.pictures, summary.faults, summary.files) == (2, 8, 8)
    messages = [record.getMessage() for record in caplog.records]
    expected = ["expected x0 < x1", "unlucky", "they look like shares", "outside the image"] + ["has no boxes for it"] * 4
    for number, text in enumerate(expected, start=1):
        (told,) = [message for message in messages if f"{number if number < 5 else number + 1:02d}.png: " in message]
        assert text in told


def test_nothing_is_written_where_all_fail(shots: Path) -> None:
    for path in shots.iterdir():
        path.write_bytes(b"")
    summary = run(Fake(), None, shots)
    shown = ", ".join(str(shots / f"{number:02d}.png") for number in range(MAX_SHOWN))
    assert str(summary) == f"0 images, 0 masks; 10 failed: {shown} and 2 more files"
    assert not (shots.parent / "out").exists()


def test_frames_of_a_video_fail_with_one_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for _ in range(5):
        writer.write(np.full((48, 64, 3), 9, dtype=np.uint8))
    writer.release()
    with caplog.at_level(logging.ERROR):
        summary = run(Fake(), choose_boxes("70,2,80,9", None, None), folder)
    assert str(summary) == f"0 images, 0 masks; 5 failed: {folder / 'clip.mp4'}"
    (record,) = caplog.records
    assert "clip.mp4 frame 0: box 0 is (70, 2, 80, 9), which lies outside" in record.getMessage()
    fine = run(Fake(), choose_boxes("10,2,20,9", None, None), folder)
    assert (fine.pictures, fine.people) == (5, 5)
    assert [(item["frame"], item["image_id"]) for item in results(folder)] == [(number, number + 1) for number in range(5)]


def test_faults_of_all_stop_at_once(shots: Path) -> None:
    fake = Fake(detector=False)
    with pytest.raises(
        GraphError, match=r"--boxes detector: the exported backbone gives no boxes; set extractor\.detections in para"
    ):
        run(fake, None, shots)
    with pytest.raises(BoxError, match=r"typed boxes go with one image or video, got 10"):
        run(fake, choose_boxes("1,2,3,4", None, None), shots)
    assert fake.batches == []
    assert not (shots.parent / "out").exists()


def test_a_place_that_takes_no_files(shots: Path) -> None:
    (shots.parent / "out").write_text("a file")
    with pytest.raises(
        UnwritableError, match=r"--out .*/out: can't be written \(File exists\), expected room .*; free the disk, or"
    ):
        run(Fake(), None, shots)
    assert (shots.parent / "out").read_text() == "a file"


# --- with a real head ---


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return shared_export(tmp_path_factory)


def test_masks_are_the_predictors(exported: Exported, tmp_path: Path) -> None:
    predictor = Predictor(exported.folder, "cpu")
    people = exported.project.people("val")
    table = choose_boxes(str(exported.project.annotations("val")), None, None)
    folder = exported.project.image("val", "x").parent
    for batch in (1, 3):
        wanted = replace(WANTED, overlays="png", masks=True, polygons=True)
        summary = Run(predictor, table, batch, wanted, tmp_path / str(batch))(find_sources([str(folder)]))
        assert (summary.pictures, summary.people, summary.faults) == (len(people.images), len(people.annotations), 0)
    found = json.loads((tmp_path / "1" / "predictions.json").read_text())
    for record in people.images:
        predictor.set_image(np.asarray(cv2.imread(str(folder / record["file_name"])), dtype=np.uint8))
        mine = [item for item in found if item["image_id"] == record["id"]]
        boxes = [[x, y, x + width, y + height] for x, y, width, height in (item["bbox"] for item in mine)]
        expected = predictor.predict(boxes)
        for item, one in zip(mine, expected, strict=True):
            assert item["score"] == pytest.approx(one.score, abs=2e-3)
            assert (coco_mask.decode(item["segmentation"]).astype(bool) != one.mask).mean() < 1e-3
    names = [sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) for out in (tmp_path / "1", tmp_path / "3")]
    assert names[0] == names[1]
    assert len(names[0]) == len(people.annotations) + len(people.images) + 2
