"""Tests of roiseg.evaluate.pictures: what the panels of the fixed images show, from arrays made by hand."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from head_factory import fresh_head
from store_factory import MODEL, Project, shared_project
from torch import Tensor, nn

from roiseg.dataset import RoiDataset
from roiseg.evaluate import pictures
from roiseg.evaluate.labels import SHEET_PX
from roiseg.evaluate.overlays import MASK_ALPHA, Person, Picture, draw_heat
from roiseg.evaluate.palette import GREEN, RED, YELLOW, instance_colour
from roiseg.evaluate.pictures import (
    CLAIMED_ALPHA,
    DECISION_ALPHA,
    FOREGROUND,
    LAYOUTS,
    WRONG_ALPHA,
    Answered,
    FixedPicture,
    Layout,
    draw_faults,
    draw_validation,
    four_panel,
    load_fixed,
    paste_largest,
    two_row,
)
from roiseg.evaluate.sheets import GAP, LINE_PX
from roiseg.heads import parse_model
from roiseg.nn.outputs import HeadOutput

CPU = torch.device("cpu")
HW = (SHEET_PX, 400)
GREY = 100


def block(rows: slice, columns: slice) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask = np.zeros(HW, dtype=bool)
    mask[rows, columns] = True
    return mask


def person(number: int, rows: slice, columns: slice) -> Person:
    return Person(block(rows, columns), np.array([columns.start, rows.start, columns.stop, rows.stop], dtype=np.float64), number)


@pytest.fixture
def answered() -> Answered:
    """Person 1 is predicted 40 columns too far to the right, into person 2, who is predicted as annotated."""
    first, second = (slice(100, 200), slice(50, 150)), (slice(100, 200), slice(150, 250))
    moved = (slice(100, 200), slice(90, 190))
    return Answered(
        pixels=np.full((*HW, 3), GREY, dtype=np.uint8),
        annotated=[person(1, *first), person(2, *second)],
        predicted=[person(1, *moved), person(2, *second)],
        anybody=block(*first) | block(*second),
        asked=block(slice(90, 210), slice(50, 250)),
        probability=block(*moved).astype(np.float32) * 0.5,
        source="mask",
        foreground=block(*moved) | block(*second),
    )


def laid(*layers: tuple[tuple[int, int, int], float]) -> list[int]:
    """Grey under some colours, rounded after each as 8-bit pictures are."""
    value = np.full(3, float(GREY))
    for colour, alpha in layers:
        value = np.round(value * (1 - alpha) + np.array(colour) * alpha)
    return [int(item) for item in value]


ONE, TWO = (instance_colour(1), MASK_ALPHA), (instance_colour(2), MASK_ALPHA)


@pytest.mark.parametrize(
    ("y", "x", "expected"),
    [
        pytest.param(150, 120, laid(ONE), id="one person, rightly"),
        pytest.param(150, 220, laid(TWO), id="another person, rightly"),
        pytest.param(150, 170, laid(ONE, TWO, (YELLOW, CLAIMED_ALPHA)), id="claimed by both"),
        pytest.param(150, 70, laid((RED, WRONG_ALPHA)), id="a person taken for background"),
        pytest.param(95, 120, laid(), id="background in an ROI"),
        pytest.param(20, 20, laid(), id="outside all ROIs"),
    ],
)
def test_faults_by_hand(answered: Answered, y: int, x: int, expected: list[int]) -> None:
    np.testing.assert_allclose(draw_faults(answered)[y, x].astype(int), expected, atol=1)


def test_the_border_of_a_claim_is_yellow(answered: Answered) -> None:
    drawn = draw_faults(answered)
    assert drawn[150, 150].tolist() == drawn[150, 189].tolist() == list(YELLOW)


def test_background_taken_for_a_person_is_wrong_too(answered: Answered) -> None:
    found = draw_faults(replace(answered, foreground=answered.foreground | block(slice(90, 100), slice(50, 250))))
    np.testing.assert_allclose(found[95, 120].astype(int), laid((RED, WRONG_ALPHA)), atol=1)


def test_nothing_is_wrong_where_nothing_was_asked(answered: Answered) -> None:
    found = draw_faults(replace(answered, anybody=np.ones(HW, dtype=bool)))
    assert (found[~answered.asked] == GREY).all()


def test_an_image_without_people(answered: Answered) -> None:
    nothing = np.zeros(HW, dtype=bool)
    empty = replace(answered, annotated=[], predicted=[], anybody=nothing, asked=nothing, foreground=nothing)
    assert (draw_faults(empty) == GREY).all()


def columns_of(sheet: Picture) -> list[Picture]:
    """The four pictures of the first row."""
    top = 2 * (LINE_PX + GAP)
    row = sheet[top : top + SHEET_PX]
    bar = sheet.shape[1] - 4 * HW[1] - 3 * GAP
    starts = (0, HW[1] + GAP, 2 * (HW[1] + GAP) + bar, 3 * (HW[1] + GAP) + bar)
    return [row[:, start : start + HW[1]] for start in starts]


def test_the_four_panels(answered: Answered) -> None:
    first, second, third, fourth = columns_of(four_panel([answered], "epoch 3: miou_fg_roi 0.5000"))
    assert (first == np.array(RED)).all(axis=2).any()
    np.testing.assert_allclose(first[150, 100].astype(int), laid(ONE), atol=1)
    np.testing.assert_array_equal(second, draw_heat(answered.probability))
    np.testing.assert_allclose(third[150, 120].astype(int), laid((GREEN, DECISION_ALPHA)), atol=1)
    assert (third[~answered.foreground] == GREY).all()
    np.testing.assert_array_equal(fourth, draw_faults(answered))


def test_four_panels_have_a_title_a_row_for_each_image_and_a_legend(answered: Answered) -> None:
    one, two = (four_panel([answered] * count, "epoch 3") for count in (1, 2))
    assert two.shape[0] - one.shape[0] == SHEET_PX + GAP
    assert two.shape[1] == one.shape[1]
    other = four_panel([answered], "epoch 4")
    assert (other[:LINE_PX] != one[:LINE_PX]).any()
    np.testing.assert_array_equal(other[LINE_PX:], one[LINE_PX:])
    line = one[-LINE_PX - GAP :]
    assert all((line == np.array(colour)).all(axis=2).any() for colour in (GREEN, RED, YELLOW))


def test_the_caption_says_what_the_probability_is_of(answered: Answered) -> None:
    mask, branch = (four_panel([replace(answered, source=name)], "t") for name in ("mask", "auxiliary branch"))
    captions = slice(LINE_PX + GAP, 2 * LINE_PX + GAP)
    assert (mask[captions] != branch[captions]).any()


def test_two_rows_have_boxes_above_only(answered: Answered) -> None:
    top, bottom = np.split(two_row([answered, answered], "epoch 3"), 2)
    red = [(part == np.array(RED)).all(axis=2).sum() for part in (top, bottom)]
    assert red[0] > 500
    assert red[1] == 0
    np.testing.assert_allclose(bottom[LINE_PX + GAP + 150, 120].astype(int), laid(ONE), atol=1)


def test_paste_largest_by_hand() -> None:
    maps = np.array([[[0.2, 0.9]], [[0.5, 0.1]]], dtype=np.float32)
    boxes = np.array([[0.0, 0.0, 2.0, 1.0], [1.0, 0.0, 3.0, 1.0]])
    np.testing.assert_allclose(paste_largest(maps, boxes, (1, 4)), [[0.2, 0.9, 0.1, 0.0]])
    assert (paste_largest(maps[:0], boxes[:0], (1, 4)) == 0).all()


# --- heads ---


class WithBranch(nn.Module):
    """A head with a branch that is sure of foreground, at a size of its own."""

    def __init__(self, head: nn.Module, logit: float) -> None:
        super().__init__()
        self.head, self.logit = head, logit

    def forward(self, features: dict[str, Tensor], boxes: Tensor) -> HeadOutput:
        output: HeadOutput = self.head(features, boxes)
        branch = torch.full((len(boxes), 1, 7, 5), self.logit)
        return HeadOutput(output.mask_logits, {FOREGROUND: branch, "else": torch.zeros(1)})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_project(tmp_path_factory)


@pytest.fixture(scope="module")
def scene(project: Project) -> tuple[nn.Module, RoiDataset, list[FixedPicture]]:
    dataset = project.open("val")
    head = fresh_head(parse_model(MODEL), dataset.store.specs)
    return head, dataset, load_fixed(project.index / "val" / "pictures", dataset)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_pictures_have_the_same_bytes_each_time(scene: tuple[nn.Module, RoiDataset, list[FixedPicture]], layout: Layout) -> None:
    first, second = (draw_validation(*scene, CPU, "epoch 1", layout) for _ in range(2))
    assert cv2.imencode(".png", first)[1].tobytes() == cv2.imencode(".png", second)[1].tobytes()


def answers_of(
    head: nn.Module, scene: tuple[nn.Module, RoiDataset, list[FixedPicture]], monkeypatch: pytest.MonkeyPatch
) -> list[Answered]:
    kept: list[Answered] = []

    def keep(answers: list[Answered], title: str) -> Picture:
        kept.extend(answers)
        return np.zeros((1, 1, 3), dtype=np.uint8)

    monkeypatch.setattr(pictures, "LAYOUTS", {"two_row": keep})
    draw_validation(head, *scene[1:], CPU, "", "two_row")
    return kept


def test_the_branch_is_shown_where_a_head_has_one(
    scene: tuple[nn.Module, RoiDataset, list[FixedPicture]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = answers_of(scene[0], scene, monkeypatch)
    branch = answers_of(WithBranch(scene[0], 2.0), scene, monkeypatch)
    assert {answer.source for answer in plain} == {"mask"}
    assert {answer.source for answer in branch} == {"auxiliary branch"}
    for without, found in zip(plain, branch, strict=True):
        np.testing.assert_array_equal(found.foreground, without.foreground)
        np.testing.assert_allclose(found.probability, found.asked * 0.880797, atol=1e-5)
        assert (without.probability[~without.asked] == 0).all()
        np.testing.assert_array_equal(without.probability > 0.5, without.foreground)


def test_answers_lie_where_the_people_are(
    scene: tuple[nn.Module, RoiDataset, list[FixedPicture]], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The annotation on the sheet is the one of the image, drawn at the sheet's size."""
    _, dataset, fixed = scene
    for answer, picture in zip(answers_of(scene[0], scene, monkeypatch), fixed, strict=True):
        hw = answer.pixels.shape[:2]
        assert hw[0] == SHEET_PX
        people = dataset.index.people(picture.row)
        resize = dataset.index.resize(picture.row)
        whole = resize.boxes_to_unit(np.array([[0.0, 0.0, resize.image_hw[1], resize.image_hw[0]]]))[0]
        assert len(answer.annotated) == len(answer.predicted) == len(dataset.whole_sample(picture.row).numbers)
        seen = np.logical_or.reduce([item.rasterise(whole, resize.image_hw) for item in people.segmentations])
        scaled = cv2.resize(seen.astype(np.float32), (hw[1], hw[0]), interpolation=cv2.INTER_LINEAR) > 0.5
        assert (scaled != answer.anybody).mean() < 0.02
        for person_ in answer.annotated:
            rows, columns = np.nonzero(person_.mask)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(box, person_.box_canvas, atol=0.05 * hw[0])
            assert answer.asked[person_.mask].mean() > 0.9
