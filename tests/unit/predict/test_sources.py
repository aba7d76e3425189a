"""Tests of roiseg.predict.sources: what files, folders and patterns stand for, and names that never meet."""

from pathlib import Path

import pytest

from roiseg.errors import MissingImageError
from roiseg.predict.sources import Source, find_sources


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names(found: list[Source]) -> list[str]:
    return [source.name for source in found]


def keys(found: list[Source]) -> list[str]:
    return [source.key for source in found]


def test_a_folder_holds_all_below_it(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.PNG", "below/deep/c.webp", "clip.MP4", "notes.txt", "a.json", "d.jpg/inside.png")
    found = find_sources([str(tmp_path)])
    assert names(found) == ["a.PNG", "b.jpg", "below/deep/c.webp", "clip.MP4", "d.jpg/inside.png"]
    assert keys(found) == ["a", "b", "below/deep/c", "clip", "d.jpg/inside"]
    assert [source.is_video for source in found] == [False, False, False, True, False]
    assert [source.path for source in found] == [tmp_path / name for name in names(found)]


def test_the_outputs_of_the_last_run_are_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg", "out/overlays/a.jpg", "out/masks/deep/a_001.png", "out/b.jpg", "masks/c.png")
    monkeypatch.chdir(tmp_path)
    leave_out = [Path("out/overlays"), Path("out/masks")]
    for text in (".", "**/*.*"):
        assert names(find_sources([text], leave_out)) == ["a.jpg", "masks/c.png", "out/b.jpg"]
    assert names(find_sources(["out/overlays"], leave_out)) == ["a.jpg"], "asked for"
    assert names(find_sources(["out/masks/deep/a_001.png"], leave_out)) == ["a_001.png"]


def test_files_come_in_their_order_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "b.jpg", "a.jpg", "c.dat")
    monkeypatch.chdir(tmp_path)
    found = find_sources(["c.dat", "b.jpg", str(tmp_path / "b.jpg"), ".", "./a.jpg"])
    assert names(found) == ["c.dat", "b.jpg", "a.jpg"], "what is named may have any ending"


def test_names_begin_at_the_folder_that_all_share(tmp_path: Path) -> None:
    touch(tmp_path, "x/one/1.jpg", "x/two/1.jpg", "x/two/deep/2.jpg")
    one, two = str(tmp_path / "x/one/1.jpg"), str(tmp_path / "x/two")
    assert names(find_sources([one])) == ["1.jpg"]
    assert names(find_sources([two])) == ["1.jpg", "deep/2.jpg"]
    both = find_sources([one, two])
    assert names(both) == ["one/1.jpg", "two/1.jpg", "two/deep/2.jpg"]
    assert keys(both) == ["one/1", "two/1", "two/deep/2"]


def test_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "a1.jpg", "a2.jpg", "b1.jpg", "a3.txt", "deep/er/a4.png")
    assert names(find_sources([str(tmp_path / "a*")])) == ["a1.jpg", "a2.jpg"]
    assert names(find_sources([str(tmp_path / "**" / "a*")])) == ["a1.jpg", "a2.jpg", "deep/er/a4.png"]
    assert names(find_sources([str(tmp_path / "d*" / "er" / "*.png")])) == ["deep/er/a4.png"]


def test_a_file_with_the_signs_of_a_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].jpg", "a1.jpg")
    assert names(find_sources([str(tmp_path / "a[1].jpg")])) == ["a[1].jpg"]


def test_outputs_of_equal_stems_keep_apart(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png", "a.jpg.png", "b.png", "none")
    found = find_sources([str(tmp_path), str(tmp_path / "none")])
    assert dict(zip(names(found), keys(found), strict=True)) == {
        "a.jpg": "a.jpg+",
        "a.jpg.png": "a.jpg",
        "a.png": "a.png",
        "b.png": "b",
        "none": "none",
    }


def test_a_missing_file_is_left_to_its_reader(tmp_path: Path) -> None:
    assert names(find_sources([str(tmp_path / "gone.png")])) == ["gone.png"]


@pytest.mark.parametrize("text", ["empty", "*.jpg", "empty/**/*"])
def test_nothing_there(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "empty/notes.txt", "a.png")
    with pytest.raises(
        MissingImageError, match=r"no image or video there; expected a file, a pattern, or a folder with \.avi \.bmp"
    ):
        find_sources([str(tmp_path / "a.png"), str(tmp_path / text)])
