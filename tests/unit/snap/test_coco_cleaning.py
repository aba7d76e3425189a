"""A file of annotations cleaned: what changes, what never does, and what a stopped run leaves."""

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
from steps_snapper import bright_boxes, write_snapper
from typer.testing import CliRunner

from roiseg.cli import app
from roiseg.errors import AnnotationError, UnwritableError, WorkBusyError
from roiseg.snap import Policy, Snapper
from roiseg.snap import coco as cleaning
from roiseg.snap.coco import CleanPaths, clean
from roiseg.snap.journal import Journal

TRUTH = (40, 30, 90, 100)
BLANK = [150, 100, 40, 30]
"""Left, top, width, height of a place where there is nothing to see."""

OUTLINE = [[40.0, 30.0, 90.0, 30.0, 90.0, 100.0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapper(tmp_path_factory.mktemp("snapper"))


@pytest.fixture
def snapper(folder: Path) -> Snapper:
    return Snapper(folder, "cpu")


def annotation(number: int, bbox: Any, image_id: Any = 1, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return {"id": number, "image_id": image_id, "category_id": 7, "bbox": bbox, "area": 12.5, "segmentation": OUTLINE, **more}


@pytest.fixture
def paths(tmp_path: Path) -> CleanPaths:
    """Annotations of every kind, those of the images in no order."""
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(images / name), bright_boxes((150, 220), [TRUTH]))
    (images / "broken.png").write_bytes(b"not a picture")
    data = {
        "info": {"year": 2026, "text": "\u00e9"},
        "images": [
            {"id": 1, "file_name": "a.png", "height": 150, "width": 220},
            {"id": "two", "file_name": "b.png"},
            {"id": 3, "file_name": "broken.png"},
            {"id": 4, "file_name": "gone.png"},
            {"id": 5, "file_name": "a.png", "height": 151, "width": 220},
            {"id": 6, "file_name": "film.mp4"},
        ],
        "annotations": [
            annotation(10, [35, 35, 63, 60], "two", extra={"kept": [1, None]}),
            annotation(11, BLANK),
            annotation(12, [35, 35, 63, 60], iscrowd=1),
            annotation(13, [35, 35, 63, 60], snap={"old": True}),
            annotation(14, [35, 35, -3, 60]),
            annotation(15, None),
            annotation(16, [1, 1, 2, 2]),
            annotation(17, [500, 500, 20, 20]),
            annotation(18, [35, 35, 63, 60], 3),
            annotation(19, [35, 35, 63, 60], 4),
            annotation(20, [35, 35, 63, 60], 5),
            annotation(21, [35, 35, 63, 60], 6),
            annotation(22, [35, 35, 63, 60], 99),
        ],
        "categories": [{"id": 7, "name": "box"}],
        "more": [],
    }
    (tmp_path / "rough.json").write_text(json.dumps(data))
    return CleanPaths(tmp_path / "rough.json", images, tmp_path / "out" / "clean.json")


def test_only_what_is_sure_changes(snapper: Snapper, paths: CleanPaths) -> None:
    before = json.loads(paths.coco.read_text())
    cleaned = clean(snapper, paths)
    assert json.loads(paths.coco.read_text()) == before
    after = json.loads(paths.out.read_text())
    assert list(after) == list(before)
    for name in ("info", "images", "categories", "more"):
        assert after[name] == before[name]
    old, new = ({item["id"]: item for item in data["annotations"]} for data in (before, after))
    assert list(new) == list(old)
    for number in (12, *range(14, 23)):
        assert new[number] == old[number]
    for number in (10, 13):
        left, top, width, height = new[number]["bbox"]
        assert [left, top, left + width, top + height] == pytest.approx(TRUTH, abs=3)
        assert "snap" not in new[number]
        for name in old[number].keys() - {"bbox", "snap"}:
            assert new[number][name] == old[number][name]
    told = new[11].pop("snap")
    assert new[11] == old[11]
    assert told["rough"] == BLANK
    assert told["kept"] == told["review"] == ["left", "top", "right", "bottom"]
    assert len(told["confidences"]) == 4
    assert max(told["confidences"]) < 0.3
    assert (cleaned.annotations, cleaned.moved, cleaned.review) == (13, 2, 1)
    assert cleaned.left == {"crowd": 1, "bad_box": 2, "small": 1, "outside": 1, "unreadable": 4, "no_image": 1}
    assert cleaned.faults == 8


def test_what_is_to_be_reviewed_is_listed(snapper: Snapper, paths: CleanPaths) -> None:
    lines = clean(snapper, paths).lines()
    told = json.loads((paths.out.parent / "clean.review.json").read_text())
    assert told["edges"] == ["left", "top", "right", "bottom"]
    (one,) = told["review"]
    assert (one["annotation_id"], one["image_id"], one["file_name"], one["bbox"], one["rough"]) == (11, 1, "a.png", BLANK, BLANK)
    assert told["left"]["unreadable"] == {"why": "its image can't be read", "annotation_ids": [18, 19, 20, 21]}
    assert told["counts"]["moved"] == 2
    assert told["counts"]["left_crowd"] == 1
    assert lines[0] == "13 annotations: 2 moved, 1 stay where they were, 1 to be reviewed"
    fault = "its bbox isn't four finite numbers with a positive width and height"
    assert f"  2 left as they are, each {fault}: 14, 15" in lines


def test_edges_that_stay_are_where_they_were_to_the_last_bit(folder: Path, paths: CleanPaths) -> None:
    clean(Snapper(folder, "cpu", policy=Policy(1.0, 1.0)), paths)
    before, after = (json.loads(path.read_text())["annotations"] for path in (paths.coco, paths.out))
    assert [item["bbox"] for item in before] == [item["bbox"] for item in after]


def test_a_stopped_run_goes_on(snapper: Snapper, paths: CleanPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    clean(snapper, paths)
    expected = paths.out.read_bytes()
    paths.out.unlink()
    seen = list[int]()
    plain = cleaning._snap_image

    def once(*arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - as they come
        if seen:
            raise KeyboardInterrupt
        seen.append(arguments[2])
        return plain(*arguments)

    monkeypatch.setattr(cleaning, "_snap_image", once)
    with pytest.raises(KeyboardInterrupt):
        clean(snapper, paths)
    assert not paths.out.exists()
    with paths.journal.open("ab") as file:
        file.write(b'{"image": 1, "boxes": [[')
    again = list[int]()

    def counted(*arguments: Any) -> Any:  # noqa: ANN401 - of the function that it stands for
        again.append(arguments[2])
        return plain(*arguments)

    monkeypatch.setattr(cleaning, "_snap_image", counted)
    clean(snapper, paths)
    assert paths.out.read_bytes() == expected
    assert not set(seen) & set(again)
    assert again
    assert not paths.journal.exists()


def test_a_journal_gives_what_was_whole_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "run.work"
    with Journal(path, {"run": 1}) as journal:
        assert list(journal.found()) == []
        journal.add({"image": 0})
        journal.add([1, "\u00e9"])
        assert list(journal.found()) == []
    with path.open("ab") as file:
        file.write(b'{"image"')
    with Journal(path, {"run": 1}) as again:
        again.add(2)
        assert list(again.found()) == [{"image": 0}, [1, "\u00e9"]]
    with Journal(path, {"run": 2}) as other:
        assert list(other.found()) == []


def test_two_runs_with_the_same_out_are_kept_apart(snapper: Snapper, paths: CleanPaths) -> None:
    with Journal(paths.journal, {"run": 1}) as first:
        first.add({"image": 0})
        before = paths.journal.read_bytes()
        with pytest.raises(
            WorkBusyError, match=r"\.work: another run writes to the same --out; wait for it, or give another --out"
        ):
            clean(snapper, paths)
        assert paths.journal.read_bytes() == before
        assert not paths.out.exists()
    assert clean(snapper, paths).moved == 2


def test_a_journal_that_the_run_before_has_just_removed_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.work"

    def removed(*_: object) -> None:
        path.unlink()

    monkeypatch.setattr("roiseg.snap.journal.fcntl.flock", removed)
    with pytest.raises(WorkBusyError, match=r"another run writes"):
        Journal(path, {"run": 1})


def test_another_run_begins_anew(snapper: Snapper, paths: CleanPaths) -> None:
    paths.out.parent.mkdir()
    paths.journal.write_text('{"annotations_sha256": "of others"}\n{"image": 0, "boxes": [], "outside": []}\n')
    assert clean(snapper, paths).moved == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"isn't a file of COCO annotations \('the end' where \{ should be\)"),
        ("[]", r"\('\[' where \{ should be\)"),
        ('{"images": [], "annotations": [{', "isn't a file of COCO annotations"),
        ('{"images": [], "annotations": [1]}', "'1' stands among its annotations, expected COCO records"),
        ('{"images": 3}', "has no list images and no list annotations"),
        ('{"images": [] "annotations": []}', r"where , or \} should be"),
        ("\xff", "isn't text in UTF-8"),
    ],
)
def test_files_that_are_no_annotations(snapper: Snapper, paths: CleanPaths, text: str, message: str) -> None:
    paths.coco.write_bytes(text.encode("latin-1"))
    with pytest.raises(AnnotationError, match=message):
        clean(snapper, paths)
    assert not paths.out.exists()


def test_paths_that_cannot_be(snapper: Snapper, paths: CleanPaths, tmp_path: Path) -> None:
    with pytest.raises(UnwritableError, match=r"is .*rough\.json itself, which is only read; give another --out"):
        CleanPaths(paths.coco, paths.images, tmp_path / "images" / ".." / "rough.json")
    with pytest.raises(AnnotationError, match="nowhere: no such folder"):
        CleanPaths(paths.coco, tmp_path / "nowhere", paths.out)
    with pytest.raises(AnnotationError, match="no such file of annotations"):
        clean(snapper, CleanPaths(tmp_path / "gone.json", paths.images, paths.out))
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableError, match="can't be written"):
        clean(snapper, CleanPaths(paths.coco, paths.images, tmp_path / "file" / "clean.json"))


def test_ids_that_are_no_whole_numbers(snapper: Snapper, paths: CleanPaths) -> None:
    images = [{"id": 1.0, "file_name": "a.png"}, {"id": 2.0, "file_name": "gone.png"}, {"file_name": "b.png"}]
    boxes = [annotation(1, [35, 35, 63, 60], 1.0), annotation(2, [35, 35, 63, 60], 2), annotation(3, [35, 35, 63, 60], None)]
    boxes.append(annotation(4, [35, 35, 10**400, 60]))
    paths.coco.write_text(json.dumps({"images": images, "annotations": boxes}))
    cleaned = clean(snapper, paths)
    assert cleaned.moved == 1
    assert cleaned.ids == {"unreadable": [2], "no_image": [3], "bad_box": [4]}


def test_an_image_id_of_two_images_is_refused(snapper: Snapper, paths: CleanPaths) -> None:
    same = {"id": 1, "file_name": "a.png"}
    boxes = [annotation(1, [35, 35, 63, 60])]
    paths.coco.write_text(json.dumps({"images": [same, same], "annotations": boxes}))
    assert clean(snapper, paths).moved == 1
    paths.coco.write_text(json.dumps({"images": [same, {"id": 1, "file_name": "b.png"}], "annotations": boxes}))
    with pytest.raises(AnnotationError, match="image id 1 stands for more than one image"):
        clean(snapper, paths)
    paths.coco.write_text('{"images": [], "annotations": [], "annotations": []}')
    with pytest.raises(AnnotationError, match="has more than one list annotations"):
        clean(snapper, paths)


def test_what_the_border_leaves_too_little_of_stays(snapper: Snapper, paths: CleanPaths) -> None:
    boxes = [annotation(1, [219.9999, 35, 63, 60]), annotation(2, [100, 147.5, 60, 60]), annotation(3, [35, 35, 63, 60])]
    paths.coco.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": boxes}))
    cleaned = clean(snapper, paths)
    assert (cleaned.moved, cleaned.left, cleaned.faults) == (1, {"small": 2}, 0)
    assert json.loads(paths.out.read_text())["annotations"][:2] == boxes[:2]


def test_outputs_that_would_hit_the_input_or_a_folder(paths: CleanPaths, tmp_path: Path) -> None:
    for name in ("clean.json.partial", "clean.review.json.partial", "clean.json.work"):
        given = tmp_path / name
        given.write_text("{}")
        with pytest.raises(UnwritableError, match="itself, which is only read; give another --out"):
            CleanPaths(given, paths.images, tmp_path / "clean.json")
    for folder in (tmp_path, Path()):
        with pytest.raises(UnwritableError, match="a folder, expected a file; give one such as"):
            CleanPaths(paths.coco, paths.images, folder)


def test_without_annotations(snapper: Snapper, paths: CleanPaths) -> None:
    paths.coco.write_text('{"images": [], "annotations": []}')
    assert clean(snapper, paths).lines() == ["0 annotations: 0 moved, 0 stay where they were, 0 to be reviewed"]
    assert json.loads(paths.out.read_text()) == {"images": [], "annotations": []}
    assert json.loads(paths.review.read_text())["review"] == []


# --- the command line ---


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["snap", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_command_cleans(folder: Path, paths: CleanPaths) -> None:
    status, output = run("--coco", paths.coco, "--images", paths.images, "--out", paths.out, "--model", folder, "--provider", "cpu")
    assert status == 1, output
    assert paths.out.is_file()
    assert "13 annotations: 2 moved" in output
    assert "clean.review.json" in output


def test_the_command_snaps_an_image(folder: Path, paths: CleanPaths, tmp_path: Path) -> None:
    image, out = paths.images / "a.png", tmp_path / "snapped"
    status, output = run(
        image, "--box", "35,35,63,60", "--box", "-5,-5,30,30", "--out", out, "--model", folder, "--provider", "cpu"
    )
    assert status == 0, output
    assert "35,35,63,60 -> " in output
    assert "clipped to the image" in output
    assert len(json.loads((out / "a.snapped.json").read_text())["boxes"]) == 2
    drawn = cv2.imread(str(out / "a.snapped.png"))
    assert drawn is not None
    assert drawn.shape == (150, 220, 3)


def test_the_command_names_a_video(folder: Path, tmp_path: Path) -> None:
    status, output = run(tmp_path / "film.mp4", "--box", "35,35,63,60", "--model", folder, "--provider", "cpu")
    assert status == 1, output
    assert "film.mp4: a video, expected an image" in output


@pytest.mark.parametrize(("flag", "kind"), [(cv2.IMREAD_GRAYSCALE, "uint8"), (cv2.IMREAD_COLOR, "uint16")])
def test_grey_and_16_bit_files(folder: Path, paths: CleanPaths, tmp_path: Path, flag: int, kind: str) -> None:
    pixels = cv2.imread(str(paths.images / "a.png"), flag)
    assert pixels is not None
    cv2.imwrite(str(tmp_path / "c.png"), pixels if kind == "uint8" else pixels.astype("uint16") * 257)
    status, output = run(tmp_path / "c.png", "--box", "35,35,63,60", "--out", tmp_path, "--model", folder, "--provider", "cpu")
    assert status == 0, output
    (box,) = json.loads((tmp_path / "c.snapped.json").read_text())["boxes"]
    assert box["box"] == pytest.approx([40, 30, 50, 70], abs=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected either an image with --box, or --coco"),
        (["a.png", "--coco", "b.json"], "expected either an image with --box, or --coco"),
        (["a.png"], "snap a.png: expected --box left,top,width,height at least once"),
        (["--coco", "b.json", "--out", "c.json"], "expected --images FOLDER and --out FILE"),
        (["a.png", "--box", "1,2,3"], "--box '1,2,3': expected four finite numbers"),
        (["a.png", "--box", "1,2,3,nan"], "expected four finite numbers"),
        (["a.png", "--box", "1,2,0,4"], "width 0, height 4, expected more than 0"),
    ],
)
def test_commands_that_cannot_be(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, output = run(*arguments)
    assert status == 1
    assert message in " ".join(output.split())
