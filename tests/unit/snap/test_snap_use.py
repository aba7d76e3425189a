"""Snapping by an exported file, and what its thresholds do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper
from steps_snapper import INPUT_HW, SPEC, bright_boxes, snapper_told, steps_inference, write_snapper

from roiseg.errors import BoxError, GraphError, NoImageError, ParamsError, PixelsError, PredictionError
from roiseg.export.half import make_half
from roiseg.export.onnx import example_inputs
from roiseg.geometry import box_iou
from roiseg.snap import Policy, SnappedBox, Snapper
from roiseg.snap.document import document
from roiseg.snap.drawing import draw_snapped
from roiseg.snapper.onnx import OnnxSnapper, with_rough

TRUTH = np.array([[40.0, 30.0, 90.0, 100.0], [120.0, 60.0, 200.0, 140.0]])
ROUGH = np.array([[35.0, 35.0, 98.0, 95.0], [128.0, 50.0, 190.0, 149.0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapper(tmp_path_factory.mktemp("snapper"))


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return bright_boxes((150, 220), [(40, 30, 90, 100), (120, 60, 200, 140)])


@pytest.fixture
def snapper(folder: Path, pixels: NDArray[np.uint8]) -> Snapper:
    found = Snapper(folder, "cpu")
    found.set_image(pixels)
    return found


def as_array(boxes: Sequence[SnappedBox]) -> NDArray[np.float64]:
    return np.array([box.box_image for box in boxes])


def test_boxes_are_snapped(snapper: Snapper) -> None:
    found = snapper.snap(ROUGH)
    assert np.diag(box_iou(as_array(found), TRUTH)).min() > 0.88 > np.diag(box_iou(ROUGH, TRUTH)).max()
    for box, rough in zip(found, ROUGH, strict=True):
        assert box.confidences.min() > 0.9
        assert not box.kept.any()
        assert not box.review.any()
        assert not box.clipped
        np.testing.assert_array_equal(box.rough_image, rough)


def test_formats_frames_and_no_boxes(snapper: Snapper) -> None:
    expected = as_array(snapper.snap(ROUGH))
    centres = np.concatenate([(ROUGH[:, :2] + ROUGH[:, 2:]) / 2, ROUGH[:, 2:] - ROUGH[:, :2]], axis=1)
    np.testing.assert_allclose(as_array(snapper.snap(centres, "cxcywh")), expected, atol=1e-3)
    np.testing.assert_allclose(as_array(snapper.snap(ROUGH / [220, 150, 220, 150], frame="unit")), expected, atol=1e-3)
    assert snapper.snap([]) == []


def test_many_boxes_go_through_in_parts(snapper: Snapper) -> None:
    np.testing.assert_allclose(
        as_array(snapper.snap(np.tile(ROUGH, (20, 1)))), np.tile(as_array(snapper.snap(ROUGH)), (20, 1)), atol=1e-4
    )


def test_boxes_beyond_the_image_are_clipped(snapper: Snapper, pixels: NDArray[np.uint8]) -> None:
    (beyond,) = snapper.snap([[130, 50, 300, 400]])
    assert beyond.clipped
    np.testing.assert_array_equal(beyond.rough_image, [130, 50, 220, 150])
    (whole,) = snapper.snap([[-500, -500, 900, 900]])
    np.testing.assert_array_equal(whole.rough_image, [0, 0, 220, 150])
    for box in (beyond, whole):
        assert (box.box_image >= 0).all()
        assert (box.box_image <= [220, 150, 220, 150]).all()


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([300, 10, 320, 30], r"box 0 is \(300, 10, 320, 30\), which lies outside the image of 220x150 pixels"),
        ([-20, 10, 0, 30], "lies outside the image"),
        ([10, 10, 10, 30], "expected x0 < x1 and y0 < y1"),
        ([10, 30, 40, 10], "expected x0 < x1 and y0 < y1"),
        ([10, np.nan, 40, 30], "expected finite numbers"),
        ([0, 0, np.inf, 30], "expected finite numbers"),
    ],
)
def test_boxes_that_nothing_can_be_made_of(snapper: Snapper, pixels: NDArray[np.uint8], box: list[float], message: str) -> None:
    (encoded,) = snapper.encode([pixels])
    with pytest.raises(BoxError, match=message):
        snapper.snap([box])
    with pytest.raises(BoxError, match=message):
        snapper.snap_encoded(encoded, [box], "here")
    with pytest.raises(BoxError, match=r"here: boxes have the shape \[4\], expected \(R, 4\)"):
        snapper.snap_encoded(encoded, [1.0, 2.0, 3.0, 4.0], "here")


def test_a_box_of_one_pixel(snapper: Snapper, pixels: NDArray[np.uint8]) -> None:
    (encoded,) = snapper.encode([pixels])
    (found,) = snapper.snap_encoded(encoded, [[0, 0, 1, 1]])
    assert ((found.box_image[2:] - found.box_image[:2]) > 0).all()
    with pytest.raises(BoxError, match="look like shares"):
        snapper.snap([[0, 0, 1, 1]])


def test_a_sliver_at_the_border_of_the_image_stays_and_is_marked(snapper: Snapper) -> None:
    (expected,) = snapper.snap(ROUGH[:1])
    sliver, other = snapper.snap([[219.999999, 35, 260, 80], ROUGH[0]])
    np.testing.assert_array_equal(sliver.box_image, [219.999999, 35, 220, 80])
    np.testing.assert_array_equal(sliver.proposed_image, sliver.rough_image)
    assert not sliver.confidences.any()
    assert sliver.kept.all()
    assert sliver.review.all()
    np.testing.assert_allclose(other.box_image, expected.box_image, atol=1e-4)


def test_images_of_other_kinds(snapper: Snapper, pixels: NDArray[np.uint8]) -> None:
    for image, message in (
        (pixels[:, :, 0], "a grey image"),
        (pixels.astype(np.uint16), "uint16"),
        (np.dstack([pixels, pixels[:, :, :1]]), "transparency"),
    ):
        with pytest.raises(PixelsError, match=message):
            snapper.set_image(image)  # type: ignore[arg-type]
        with pytest.raises(NoImageError, match=r"snap was called before set_image, .* call set_image\(pixels\)"):
            snapper.snap(ROUGH)


def test_thresholds(folder: Path, pixels: NDArray[np.uint8]) -> None:
    never = Snapper(folder, "cpu", policy=Policy(1.0, 1.0))
    never.set_image(pixels)
    for box, rough in zip(never.snap(ROUGH), ROUGH, strict=True):
        np.testing.assert_array_equal(box.box_image, rough)
        assert box.kept.all()
        assert box.review.all()
        assert (box.proposed_image != rough).all()
    with pytest.raises(
        ParamsError, match=r"keep_below is 0\.7 and review_below 0\.5, expected 0 <= keep_below <= review_below <= 1"
    ):
        Policy(0.7, 0.5)
    with pytest.raises(ParamsError, match="keep_below is nan"):
        Policy(float("nan"), 0.5)


def test_each_edge_is_decided_on_its_own() -> None:
    rough, proposed = np.array([[10.0, 10, 50, 60]]), np.array([[12.0, 14, 48, 66]])
    found = Policy(0.3, 0.6).decide(rough, proposed, np.array([[0.1, 0.3, 0.59, 0.6]]))
    np.testing.assert_array_equal(found.boxes_image, [[10, 14, 48, 66]])
    np.testing.assert_array_equal(found.kept, [[True, False, False, False]])
    np.testing.assert_array_equal(found.review, [[True, True, True, False]])


def test_edges_that_cross_stay_and_are_marked() -> None:
    rough, proposed = np.array([[10.0, 10, 50, 60], [10, 10, 50, 60]]), np.array([[40.0, 12, 38, 58], [49.6, 11, 55, 59]])
    found = Policy(0.3, 0.6).decide(rough, proposed, np.array([[0.9] * 4, [0.9, 0.9, 0.1, 0.9]]))
    np.testing.assert_array_equal(found.boxes_image, [[10, 12, 50, 58], [10, 11, 50, 59]])
    np.testing.assert_array_equal(found.kept, [[True, False, True, False]] * 2)
    np.testing.assert_array_equal(found.review, found.kept)


def test_a_sliver_may_stay_one() -> None:
    rough = np.array([[10.0, 10, 10.2, 60]])
    found = Policy(0.3, 0.6).decide(rough, rough, np.full((1, 4), 0.9))
    assert not found.kept.any()


# --- files ---


def test_files_of_something_else(folder: Path, tmp_path: Path) -> None:
    def changed(told: str | None) -> Path:
        model = onnx.load(folder / "snapper.onnx")
        del model.metadata_props[:]
        if told is not None:
            helper.set_model_props(model, {"roiseg": told})
        onnx.save(model, tmp_path / "snapper.onnx")
        return tmp_path

    def told(**changes: Any) -> str:  # noqa: ANN401 - any value of metadata
        return json.dumps(snapper_told(**changes))

    without_buffer = {name: value for name, value in snapper_told().items() if name != "buffer"}
    for text, message in (
        (None, r"snapper\.onnx: has no 'roiseg' metadata, expected a Snapper that roiseg exported"),
        ("{", "metadata isn't JSON"),
        ("[]", r"metadata is '\[\]', no mapping"),
        (json.dumps(without_buffer), "metadata lacks buffer, expected"),
        (
            told(layers={"layer_9": {}}),
            r"takes features_image, windows and gives boxes, confidences, .* it takes features_layer_9, windows",
        ),
        (told(buffer=0.5), r"metadata can't be used \(ValueError: buffer is 0\.5\), .* run `dvc repro snapper_export`"),
        (told(confidence={"keep_below": 0.9, "review_below": 0.1}), r"can't be used \(ParamsError: keep_below is 0\.9"),
        (told(confidence={}), r"can't be used \(KeyError: 'keep_below'\)"),
    ):
        with pytest.raises(GraphError, match=message):
            Snapper(changed(text), "cpu")
    with pytest.raises(GraphError, match=r"gone/snapper\.onnx: no such ONNX file"):
        Snapper(tmp_path / "gone", "cpu")


def test_features_of_another_model(snapper: Snapper, pixels: NDArray[np.uint8]) -> None:
    (encoded,) = snapper.encode([pixels])
    other = type(encoded)({"features_layer_3": np.zeros((1, 4, 8, 8), np.float32)}, encoded.image_hw, None)
    with pytest.raises(
        GraphError, match=r"the encoded image has no features_image, but features_layer_3; expected what `Snapper.encode`"
    ):
        snapper.snap_encoded(other, ROUGH)


def test_answers_that_are_no_numbers(snapper: Snapper, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def run(self, _names: Sequence[str], feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
            return [np.full((len(feeds["windows"]), 4), np.nan, dtype=np.float32)] * 2

    monkeypatch.setattr(snapper, "_session", Broken())
    with pytest.raises(PredictionError, match=r"snapper\.onnx: its edges or confidences aren't numbers"):
        snapper.snap(ROUGH)


def test_whose_features_can_be_shared(snapper: Snapper) -> None:
    told = snapper_told()
    assert snapper.same_backbone(told)
    assert snapper.same_backbone({**told, "fingerprints": {}})
    assert not snapper.same_backbone({**told, "input": {**told["input"], "resize": "stretch"}})


@pytest.mark.parametrize("counts", [(1, 1), (3, 7), (3, 0), (2, 17)])
def test_the_file_says_what_torch_says(folder: Path, counts: tuple[int, int]) -> None:
    """Random rectangles; noise has draws between positions."""
    images = np.stack([bright_boxes(INPUT_HW, [(30 + 4 * number, 20, 90, 70)]) for number in range(counts[0])])
    _, windows = with_rough(example_inputs([SPEC], INPUT_HW, *counts, seed=sum(counts)))
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)), windows
    with torch.no_grad():
        expected = steps_inference()(*inputs)
    for found, want in zip(OnnxSnapper(folder / "snapper.onnx")(*inputs), expected, strict=True):
        assert found.shape == want.shape == (counts[1], 4)
    half = folder / "half.onnx"
    make_half(folder / "snapper.onnx", half, exact_answers=True)
    assert len(OnnxSnapper(half)(*inputs)[0]) == counts[1]


# --- picture and JSON ---


def test_the_picture(snapper: Snapper, pixels: NDArray[np.uint8]) -> None:
    sure, other = snapper.snap(ROUGH)
    weak = SnappedBox(
        sure.given_image,
        sure.rough_image,
        sure.proposed_image,
        np.array([60.0, 20, 110, 120]),
        sure.confidences,
        sure.kept,
        np.array([True, False, False, False]),
    )
    drawn = draw_snapped(pixels, [weak])
    red = (drawn == (40, 40, 230)).all(axis=2)
    assert red[20, 60:110].all()
    assert red[119, 60:110].all()
    assert red[20:120, 109].all()
    left = red[21:119, 60]
    assert 0.3 < left.mean() < 0.7
    assert np.abs(np.diff(left.astype(int))).sum() > 6
    green = (drawn == (60, 220, 60)).all(axis=2)
    assert green[35, 35:60].all()
    assert not green[100, 35:60].any()
    np.testing.assert_array_equal(draw_snapped(pixels, []), pixels)
    assert (draw_snapped(pixels, [other]) != pixels).any()


def test_the_document(snapper: Snapper) -> None:
    told = document("a.png", (150, 220), snapper.snap([[-5, 35, 98, 95]]))
    (box,) = told["boxes"]
    assert (told["image"], told["width"], told["height"], told["edges"]) == ("a.png", 220, 150, ["left", "top", "right", "bottom"])
    assert box["rough"] == [-5, 35, 103, 60]
    assert box["clipped"]
    assert len(box["confidences"]) == 4
    assert json.loads(json.dumps(told)) == told
    assert set(box["kept"]) <= set(box["review"]) <= set(told["edges"])


def test_torch_is_not_needed(folder: Path, tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    import subprocess
    import sys

    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    script = Path(__file__).parents[2] / "without_torch.py"
    code = (
        f"import sys; sys.path.insert(0, {str(script.parent)!r})\n"
        "from without_torch import Refused; sys.meta_path.insert(0, Refused())\n"
        "import cv2, json\nfrom roiseg.snap import Snapper\n"
        f"snapper = Snapper({str(folder)!r}, 'cpu'); snapper.set_image(cv2.imread({str(tmp_path / 'a.png')!r}))\n"
        f"boxes = snapper.snap({ROUGH.tolist()!r})\n"
        "sys.stdout.write(json.dumps([box.box_image.tolist() for box in boxes]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.diag(box_iou(np.array(json.loads(done.stdout)), TRUTH)).min() > 0.88
