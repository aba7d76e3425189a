"""Tests of roiseg.predict.outputs and drawing: files of a few made-up people, read by the tools that users have."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from roiseg.errors import UnwritableError
from roiseg.evaluate.palette import RED
from roiseg.placed import Placed, cut_out
from roiseg.predict import drawing, outputs
from roiseg.predict.drawing import draw_people
from roiseg.predict.frames import Frame
from roiseg.predict.outputs import Found, Outputs, Wanted
from roiseg.predict.person import PersonMask
from roiseg.predict.sources import Source
from roiseg.types import Window

HW = (30, 44)
ALL = Wanted(overlays="jpg", masks=True, rle=True, polygons=True, tolerance=0.0, min_area=0.0)


def person(top: int, left: int, hw: tuple[int, int], hole: bool = False) -> PersonMask:
    mask = np.zeros(HW, dtype=bool)
    mask[top : top + hw[0], left : left + hw[1]] = True
    if hole:
        mask[top + 2 : top + 5, left + 3 : left + 7] = False
    return PersonMask(cut_out(mask), np.array([left, top, left + hw[1], top + hw[0]], dtype=float), 0.5, HW)


NOBODY = PersonMask(Placed(Window(3, 9, 4, 8), np.zeros((6, 4), dtype=bool)), np.array([4.0, 3.0, 8.0, 9.0]), 0.0, HW)
PEOPLE = [person(2, 3, (12, 15), hole=True), person(10, 25, (18, 9))]


def found(name: str = "a.png", image_id: int = 7, people: list[PersonMask] = PEOPLE, number: int | None = None) -> Found:
    pixels = np.full((*HW, 3), 100, dtype=np.uint8)
    source = Source(Path("/shots") / name, name, name.rsplit(".", 1)[0])
    return Found(Frame(source, number, pixels, 10.0), image_id, people, [0.9, 0.25, 0.125][: len(people)])


def write(out: Path, wanted: Wanted, *several: Found) -> None:
    with Outputs(out, wanted, 3) as writing:
        for one in several:
            writing(one)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def results(out: Path) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((out / "predictions.json").read_text())
    return loaded


# --- which files ---


def test_all_files(tmp_path: Path) -> None:
    write(tmp_path, ALL, found(), found("below/b.jpg", 8, []))
    expected = ["masks/a_001.png", "masks/a_002.png", "overlays/a.jpg", "overlays/below/b.jpg", "polygons.json", "predictions.json"]
    assert files(tmp_path) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"overlays": "png"}, ["masks/a_001.png", "masks/a_002.png", "overlays/a.png", "polygons.json", "predictions.json"]),
        ({"overlays": None}, ["masks/a_001.png", "masks/a_002.png", "polygons.json", "predictions.json"]),
        ({"masks": False}, ["overlays/a.jpg", "polygons.json", "predictions.json"]),
        ({"rle": False}, ["masks/a_001.png", "masks/a_002.png", "overlays/a.jpg", "polygons.json"]),
        ({"polygons": False}, ["masks/a_001.png", "masks/a_002.png", "overlays/a.jpg", "predictions.json"]),
    ],
)
def test_what_isnt_wanted_isnt_there(tmp_path: Path, change: dict[str, Any], expected: list[str]) -> None:
    write(tmp_path, replace(ALL, **change), found())
    assert files(tmp_path) == expected


def test_nothing_without_a_picture(tmp_path: Path) -> None:
    write(tmp_path / "out", ALL)
    assert not (tmp_path / "out").exists()


def test_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path / name, ALL, found(), found("clip.mp4", 8, number=0), found("clip.mp4", 9, number=1))
    for name in files(tmp_path / "first"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


# --- JSON ---


def test_results_are_cocos(tmp_path: Path) -> None:
    write(tmp_path, ALL, found(people=[*PEOPLE, NOBODY]))
    truth = COCO()
    truth.dataset = {"images": [{"id": 7}], "annotations": [], "categories": [{"id": 3}], "info": {}}
    truth.createIndex()
    loaded = truth.loadRes(str(tmp_path / "predictions.json"))
    for item, one in zip(loaded.anns.values(), [*PEOPLE, NOBODY], strict=True):
        np.testing.assert_array_equal(coco_mask.decode(item["segmentation"]), one.mask)
    first = results(tmp_path)[0]
    assert {key: value for key, value in first.items() if key != "segmentation"} == {
        "file_name": "a.png",
        "image_id": 7,
        "category_id": 3,
        "score": 0.9,
        "bbox": [3.0, 2.0, 15.0, 12.0],
    }


def test_polygons_are_cocos(tmp_path: Path) -> None:
    write(tmp_path, ALL, found(people=[PEOPLE[0], NOBODY, PEOPLE[1]]), found("b.png", 8, []))
    loaded = COCO(str(tmp_path / "polygons.json"))
    assert [(item["id"], item["file_name"], item["height"], item["width"]) for item in loaded.imgs.values()] == [
        (7, "a.png", 30, 44),
        (8, "b.png", 30, 44),
    ]
    assert loaded.cats == {3: {"id": 3, "name": "person"}}
    assert [item["score"] for item in loaded.anns.values()] == [0.9, 0.125], "nobody has no polygon"
    for item, one in zip(loaded.anns.values(), PEOPLE, strict=True):
        np.testing.assert_array_equal(loaded.annToMask(item), one.mask)
        assert item["area"] == one.mask.sum()


def test_tolerance_and_least_area_count(tmp_path: Path) -> None:
    def area(min_area: float) -> float:
        write(tmp_path, replace(ALL, min_area=min_area), found(people=PEOPLE[:1]))
        loaded: float = json.loads((tmp_path / "polygons.json").read_text())["annotations"][0]["area"]
        return loaded

    assert area(0) == 12 * 15 - 12
    assert area(13) == 12 * 15, "the hole is filled"
    y, x = np.indices(HW) + 0.5
    disc = cut_out((y - 15) ** 2 + (x - 22) ** 2 < 120)
    corners = []
    for tolerance in (0.0, 1.0):
        round_one = replace(PEOPLE[0], placed=disc)
        write(tmp_path, replace(ALL, tolerance=tolerance), found(people=[round_one]))
        corners.append(len(json.loads((tmp_path / "polygons.json").read_text())["annotations"][0]["segmentation"][0]))
    assert corners[1] < corners[0] / 2


def test_json_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "predictions.json").write_text("before")
    with Outputs(tmp_path, ALL, 1) as writing:
        writing(found())
        assert (tmp_path / "predictions.json").read_text() == "before"
        assert not (tmp_path / "polygons.json").exists()
    assert len(results(tmp_path)) == 2


def test_a_run_that_breaks_off_leaves_no_json_and_no_video(tmp_path: Path) -> None:
    def break_off() -> None:
        with Outputs(tmp_path, ALL, 1) as writing:
            writing(found("clip.mp4", 1, number=0))
            writing(found("z.png", 2))
            writing(found("other.mp4", 3, number=0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    made = ["masks/clip.mp4/000000_001.png", "masks/clip.mp4/000000_002.png", "masks/other.mp4/000000_001.png"]
    made += ["masks/other.mp4/000000_002.png", "masks/z_001.png", "masks/z_002.png", "overlays/clip.mp4", "overlays/z.jpg"]
    assert files(tmp_path) == made


# --- pictures ---


def test_masks_are_black_and_white(tmp_path: Path) -> None:
    write(tmp_path, ALL, found())
    for number, one in enumerate(PEOPLE, start=1):
        drawn = np.asarray(cv2.imread(str(tmp_path / "masks" / f"a_00{number}.png"), cv2.IMREAD_UNCHANGED))
        np.testing.assert_array_equal(drawn, one.mask.astype(np.uint8) * 255)


def test_people_are_drawn_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.full((*HW, 3), 100, dtype=np.uint8)
    boxed = draw_people(pixels, [*PEOPLE, NOBODY])
    monkeypatch.setattr(drawing, "draw_boxes", lambda picture, _: picture)
    drawn = draw_people(pixels, [*PEOPLE, NOBODY])
    np.testing.assert_array_equal((drawn != pixels).any(axis=2), PEOPLE[0].mask | PEOPLE[1].mask)
    assert (drawn[8, 8] != drawn[20, 30]).any(), "each in a colour of its own"
    assert (drawn[2, 8] != drawn[3, 8]).any(), "outlined"
    assert (pixels == 100).all(), "on a copy"
    red = (boxed == RED).all(axis=2)
    assert red[27, 26:33].all(), "the lower side of the second box"
    assert not (drawn == RED).all(axis=2).any()


def test_frames_become_a_video(tmp_path: Path) -> None:
    clip = [found("clip.mp4", number + 1, PEOPLE[: number % 3], number) for number in range(6)]
    write(tmp_path, replace(ALL, masks=False), *clip, found("z.png", 9))
    assert files(tmp_path) == ["overlays/clip.mp4", "overlays/z.jpg", "polygons.json", "predictions.json"]
    video = cv2.VideoCapture(str(tmp_path / "overlays" / "clip.mp4"))
    assert [video.get(item) for item in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS)] == [6, 10]
    assert [video.get(item) for item in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)] == list(HW)
    assert [(item["file_name"], item.get("frame")) for item in results(tmp_path)] == [
        *[("clip.mp4", number) for number in (1, 2, 2, 4, 5, 5)],
        *[("z.png", None)] * 2,
    ]


def test_a_video_that_cant_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        fourcc = staticmethod(lambda *_: 0)

        def __init__(self, *_: object) -> None:
            pass

        def isOpened(self) -> bool:
            return False

    monkeypatch.setattr(cv2, "VideoWriter", Closed)
    with pytest.raises(
        UnwritableError, match=r"clip\.mp4: OpenCV can't write an MP4 of 44x30 pixels at 10 frames a second; try --ov"
    ):
        write(tmp_path, ALL, found("clip.mp4", 1, number=0))
    assert files(tmp_path) == []


def test_a_video_that_finds_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk, the last bytes get lost, and FFmpeg says no word of it."""
    check = outputs._Video._check_frames

    def lose_the_end(video: outputs._Video) -> None:
        video._aside.write_bytes(video._aside.read_bytes()[:-300])
        check(video)

    monkeypatch.setattr(outputs._Video, "_check_frames", lose_the_end)
    wanted = replace(ALL, masks=False, rle=False, polygons=False)
    with pytest.raises(
        UnwritableError, match=r"clip\.mp4: 0 of 3 frames could be written, expected all; is the disk full\? Make room, or try"
    ):
        write(tmp_path, wanted, *(found("clip.mp4", 1, number=number) for number in range(3)))
    assert files(tmp_path) == []


def test_a_picture_that_cant_be_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs.cv2, "imencode", lambda *_: (False, None))  # type: ignore[attr-defined]
    with pytest.raises(UnwritableError, match=r"a\.jpg: OpenCV couldn't encode a picture of \(30, 44, 3\)"):
        write(tmp_path, ALL, found())
    assert files(tmp_path) == []
