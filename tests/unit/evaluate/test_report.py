"""Tests of roiseg.evaluate.report: what stands on the page, what is said in place of what is missing, and the same bytes."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from case_factory import empty_report, full_report, roi_case

from roiseg.evaluate.cases import EXTREMES, PER_CELL
from roiseg.evaluate.report import BASELINES, Report, ap_rows, headline, write_report
from roiseg.evaluate.strata import CROWDEDNESS, SIZES


def page_of(report: Report, folder: Path) -> str:
    write_report(folder / "reports" / "default.html", report)
    return (folder / "reports" / "default.html").read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(full_report(), tmp_path_factory.mktemp("report"))


class Tags(HTMLParser):
    """All start tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.text += " " if tag in ("td", "th", "dt", "dd", "code") else ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


# --- tables ---


def test_headline_rows_by_hand() -> None:
    rows = headline({"rois": 2, "miou_fg_roi": 0.5, "miou_fg_roi_low": 0.4, "miou_fg_roi_high": 0.6, "ellipse_miou_fg_roi": 0.3})
    assert [(row["name"], row["value"], row["interval"], row["baselines"]) for row in rows] == [
        ("miou_fg_roi", 0.5, (0.4, 0.6), [None, 0.3, None])
    ]
    assert list(BASELINES) == ["whole_box", "ellipse", "never_class_2"]
    rows = headline({"rois": 2, "pixel_accuracy": 0.5, "iou_target_roi": 0.25})
    assert [(row["name"], row["interval"]) for row in rows] == [("iou_target_roi", None), ("pixel_accuracy", None)]
    assert headline({"rois": 0, "miou_fg_roi": 0.0}) == []


def test_ap_rows_by_hand() -> None:
    found = ap_rows(
        {
            "oracle_box_boundary_ap": 0.1,
            "oracle_box_ap50": 0.2,
            "oracle_box_ap": 0.3,
            "oracle_box_ap_low": 0.2,
            "oracle_box_ap_high": 0.4,
            "detector_box_ap": 0.0,
            "detector_box_new_thing": 0.5,
            "whole_box_oracle_box_ap": 0.7,
        }
    )
    assert [(row["label"], row["oracle"], row["detector"]) for row in found] == [
        ("AP", 0.3, 0.0),
        ("AP at IoU 0.5", 0.2, None),
        ("boundary AP", 0.1, None),
        ("NEW THING", None, 0.5),
    ]


def test_page_says_what_was_evaluated(page: str) -> None:
    text = " ".join(Tags(page).text.split())
    assert "Checkpoint best_model.pth, epoch 12 on 12 images with 40 ROIs of the validation split." in text
    assert "That isn't comparable with the AP of detectors" in text
    assert re.search(r"mean IoU of target and other people miou_fg_roi 0\.600 0\.550 to 0\.650 0\.300 0\.350 0\.400", text)
    assert "AP at IoU 0.5 0.800 –" in text
    assert "small 12 6 – 0.500 – – – –" in text
    assert "under 10 % others 0 0 – – – – – –" in text


# --- ROIs ---


def test_every_case_has_its_anchor_and_its_record(page: str) -> None:
    tags = Tags(page)
    ids = Counter(attributes["id"] for _, attributes in tags.found if "id" in attributes)
    assert set(ids.values()) == {1}
    cards = tags.all("article")
    assert [card["id"] for card in cards] == [f"annotation-{1000 + number}" for number in reversed(range(24))], "worst first"
    links = Counter(item["href"] for item in tags.all("a"))
    for card in cards:
        assert links[f"#{card['id']}"] == 2
    for link in links:
        assert link is not None
        assert link.removeprefix("#") in ids
    assert "image 5, 1003.jpg box 30 x 40 px at 10, 20 kind small, over 30 % others, whole" in " ".join(tags.text.split())


def test_every_picture_has_a_text_in_its_place(page: str) -> None:
    pictures = Tags(page).all("img")
    assert len(pictures) == 25
    assert all(item["alt"] for item in pictures)
    assert "Annotation 1003: crop, annotation, prediction, errors. Of the ROI: 12% missed target." in {
        item["alt"] for item in pictures
    }


def test_names_are_escaped(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>&\"'.jpg"
    report = replace(full_report(0), head=name, checkpoint=name, charts=[], cases=[roi_case(7, file_name=name)])
    page = page_of(report, tmp_path)
    assert "<img src=x" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;&amp;&#34;&#39;.jpg") == 4
    assert Tags(page).text.count(name) == 4


# --- the file ---


def test_page_asks_nobody_for_anything(page: str) -> None:
    sources = re.findall(r'\b(?:src|href)="([^"#][^"]{0,30})', page)
    assert sources
    assert all(item.startswith("data:") for item in sources)
    assert set(re.findall(r'https?://[^"\s]*', page)) == {"http://www.w3.org/1999/xlink"}
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_same_bytes_each_time(page: str, tmp_path: Path) -> None:
    assert page_of(full_report(), tmp_path) == page
    assert page_of(replace(full_report(), charts=[]), tmp_path) != page


def test_largest_page_has_a_few_mb(tmp_path: Path) -> None:
    """Of as many cases as are ever chosen; an eighth of them is drawn, all with crops as rich as photographs are."""
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (176, 132, 3), dtype=np.uint8), (0, 0), 1.0)
    most = 2 * EXTREMES + PER_CELL * len(SIZES) * len(CROWDEDNESS)
    report = replace(full_report(0), charts=[], cases=[roi_case(number, crop=noise) for number in range(most // 8)])
    assert len(page_of(report, tmp_path)) * 8 < 8e6


# --- what is missing ---


def test_empty_split_gives_a_whole_page(tmp_path: Path) -> None:
    page = page_of(empty_report(), tmp_path)
    text = " ".join(Tags(page).text.split())
    for sentence in (
        "on 0 images with 0 ROIs of the validation split.",
        "Nothing was measured: the validation split has no ROIs.",
        "No AP was computed.",
        "There are no detector boxes, so nothing here compares with the AP of detectors.",
        "There are no ROIs to break down.",
        "There are no fixed validation images to draw.",
        "There are no ROIs to show.",
        "Precision and recall of masks. There are no curves",
    ):
        assert sentence in text, sentence
    assert not Tags(page).all("img")
    assert page.rstrip().endswith("</html>")


def test_one_image_with_one_roi(tmp_path: Path) -> None:
    report = replace(full_report(1), charts=[])
    text = " ".join(Tags(page_of(replace(report, figures={**report.figures, "images": 1, "rois": 1}), tmp_path)).text.split())
    assert "on 1 image with 1 ROI of the validation split." in text
    assert "1 of 1." in text
    assert "There are no detector boxes" not in text, "0 of them found anybody, which is a figure"
