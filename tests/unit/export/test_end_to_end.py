"""Tests of roiseg.export.end_to_end: the file's masks are those of the single steps, whatever comes in."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from end_to_end_factory import FOUND, Encoded, StepByStep, backbone, head, int8_scales, metadata, people, photo
from numpy.typing import NDArray
from onnx import helper

from roiseg.errors import GraphError
from roiseg.export.end_to_end import INTERFACE, EndToEnd, export_end_to_end
from roiseg.export.graph_writer import GraphWriter
from roiseg.network_input import Pixels
from roiseg.onnx_names import METADATA_KEY
from roiseg.types import StoredType

BOXES = EndToEnd("boxes", preprocess=True)
DETECTOR = EndToEnd("detector", preprocess=True)


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


class Case:
    """A file and the single steps of the same parts."""

    def __init__(self, folder: Path, choice: EndToEnd, layers: tuple[str, ...] = ("layer_34",), **changes: object) -> None:
        dtype: StoredType = "int8" if "scales" in changes else "float16"
        self.parts = head(layers), backbone(dtype), metadata(layers, **changes)
        self.path = folder / "end_to_end.onnx"
        self.model = export_end_to_end(*self.parts, choice, self.path)
        self.session = session_of(self.model)
        self.steps = StepByStep(*self.parts)

    def run(self, **feeds: NDArray[Any]) -> dict[str, NDArray[Any]]:
        values = self.session.run(None, feeds)
        return {item.name: value for item, value in zip(self.session.get_outputs(), values, strict=True)}

    def expected(self, encoded: Encoded, boxes: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        found = self.steps.masks(encoded, boxes)
        masks = np.array([item.mask for item in found], dtype=np.uint8).reshape(-1, *encoded.image_hw)
        return masks, np.array([item.score for item in found], dtype=np.float32)

    def check(self, images: list[Pixels], boxes: list[NDArray[np.float64]]) -> int:
        """Compare masks and scores; returns how many pixels are somebody's."""
        numbered = [np.concatenate([np.full((len(item), 1), place), item], axis=1) for place, item in enumerate(boxes)]
        got = self.run(images=np.stack(images), boxes=np.concatenate(numbered).astype(np.float32))
        wanted = [self.expected(*pair) for pair in zip(self.steps.encode(images), boxes, strict=True)]
        np.testing.assert_array_equal(got["masks"], np.concatenate([item[0] for item in wanted]))
        np.testing.assert_allclose(got["scores"], np.concatenate([item[1] for item in wanted]), atol=1e-5)
        return int(got["masks"].sum())


def test_a_head_on_pixels_with_given_boxes_needs_no_backbone(tmp_path: Path) -> None:
    case = Case(tmp_path, BOXES, ("image",))
    strides = [list(item.ints) for node in case.model.graph.node for item in node.attribute if item.name == "strides"]
    assert [8, 8] not in strides, "a layer of the backbone"
    assert case.check([photo((75, 130), 1)], [people((75, 130), 3, seed=1)]) > 0


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("boxes"), BOXES)


@pytest.fixture(scope="module")
def detecting(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("detector"), DETECTOR)


@pytest.mark.parametrize("image_hw", [(75, 130), (64, 96), (200, 90), (31, 47), (5, 9)], ids=str)
def test_masks_are_those_of_the_single_steps(case: Case, image_hw: tuple[int, int]) -> None:
    assert case.check([photo(image_hw, 1)], [people(image_hw, 7, 2)]) > 0


def test_images_of_a_batch_stand_alone(case: Case) -> None:
    """Among them one without people, and boxes that aren't sorted by image."""
    images = [photo((75, 130), seed) for seed in range(3)]
    boxes = [people((75, 130), count, count) for count in (4, 0, 7)]
    assert case.check(images, boxes) > 0
    rows = np.concatenate([np.concatenate([np.full((len(item), 1), place), item], axis=1) for place, item in enumerate(boxes)])
    sorted_masks = case.run(images=np.stack(images), boxes=rows.astype(np.float32))["masks"]
    swapped = np.concatenate([np.arange(4, 11), np.arange(4)])
    moved = case.run(images=np.stack(images), boxes=rows[swapped].astype(np.float32))["masks"]
    np.testing.assert_array_equal(moved, sorted_masks[swapped])


def test_nobody(case: Case) -> None:
    got = case.run(images=np.stack([photo((20, 30), 1)] * 3), boxes=np.zeros((0, 5), dtype=np.float32))
    assert got["masks"].shape == (0, 20, 30)
    assert got["masks"].dtype == np.uint8
    assert got["scores"].shape == (0,)


def test_no_two_masks_share_a_pixel_and_equal_people_go_to_the_first(case: Case) -> None:
    box = [0, 10.0, 5.0, 80.0, 60.0]
    got = case.run(images=photo((75, 130), 1)[None], boxes=np.array([box, box, [0, 30, 10, 120, 70]], dtype=np.float32))
    assert got["masks"].sum(axis=0).max() == 1
    assert got["masks"][0].any()
    assert not got["masks"][1].any()
    assert got["scores"][0] == got["scores"][1] > 0


def test_a_box_without_area_is_nobody_and_spoils_nobody(case: Case) -> None:
    good = people((75, 130), 4, 2)
    bad = np.array([[200, 10, 240, 40], [30.5, 10, 30.5, 40], [50, 40, 20, 60], [-9, -9, 0, 0]])
    rows = np.concatenate([np.zeros((8, 1)), np.concatenate([good, bad])], axis=1).astype(np.float32)
    got = case.run(images=photo((75, 130), 1)[None], boxes=rows)
    alone = case.run(images=photo((75, 130), 1)[None], boxes=rows[:4])
    np.testing.assert_array_equal(got["masks"][:4], alone["masks"])
    assert not got["masks"][4:].any()
    assert got["scores"][4:].tolist() == [0, 0, 0, 0]


LAYERS = ("layer_34", "layer_3", "image")


@pytest.mark.parametrize(
    "changes",
    [
        {"roi_padding": 0.2, "resize": "letterbox"},
        {"scales": int8_scales(LAYERS), "resize": "letterbox", "color": "bgr", "pixel_max": 255.0},
        {"color": "bgr", "roi_padding": 0.1},
    ],
    ids=["letterbox", "int8_bgr", "padding"],
)
@pytest.mark.parametrize("preprocess", [True, False], ids=["images", "network_images"])
def test_input_rules_and_stored_types(tmp_path: Path, changes: dict[str, Any], *, preprocess: bool) -> None:
    """With the image itself among the head's inputs."""
    rule = metadata()["input"] | {key: changes[key] for key in ("resize", "color", "pixel_max") if key in changes}
    rest = {key: value for key, value in changes.items() if key not in rule}
    case = Case(tmp_path, EndToEnd("boxes", preprocess=preprocess), LAYERS, input=rule, **rest)
    pixels, boxes = photo((75, 101), 4), people((75, 101), 6, 3)
    if preprocess:
        assert case.check([pixels, pixels[::-1]], [boxes, boxes[:2]]) > 0
        return
    shown = photo((64, 96), 4)
    (encoded,) = case.steps.encode([shown])
    planes = (shown if rule["color"] == "bgr" else shown[:, :, ::-1]).transpose(2, 0, 1)
    boxes = people((64, 96), 6, 3)
    got = case.run(
        network_images=(planes[None] * np.float32(rule["pixel_max"] / 255)).astype(np.float32),
        boxes=np.concatenate([np.zeros((6, 1)), boxes], axis=1).astype(np.float32),
    )
    np.testing.assert_array_equal(got["masks"], case.expected(encoded, boxes)[0])
    assert got["masks"].any()


# --- the detector's own boxes ---


def test_detected_people(detecting: Case) -> None:
    """Two images of which the darker one has lower scores, so that fewer people are found."""
    images = [photo((75, 130), 1), photo((75, 130), 2) // 2]
    got = detecting.run(images=np.stack(images))
    start = 0
    for number, encoded in enumerate(detecting.steps.encode(images)):
        found = detecting.steps.detect(encoded)
        end = start + len(found.boxes_image)
        assert got["boxes"][start:end, 0].tolist() == [number] * len(found.boxes_image)
        np.testing.assert_allclose(got["boxes"][start:end, 1:], found.boxes_image, atol=1e-4)
        np.testing.assert_allclose(got["box_scores"][start:end], found.scores, atol=1e-6)
        masks, scores = detecting.expected(encoded, found.boxes_image)
        np.testing.assert_array_equal(got["masks"][start:end], masks)
        np.testing.assert_allclose(got["scores"][start:end], scores, atol=1e-5)
        start = end
    assert start == len(got["masks"]) == 6, "the second image lacks two"
    assert np.diff(got["box_scores"][:4]).max() <= 0
    assert got["masks"].any()


def test_nobody_detected(detecting: Case) -> None:
    got = detecting.run(images=np.zeros((2, 40, 50, 3), dtype=np.uint8))
    assert {name: value.shape for name, value in got.items()} == {
        "masks": (0, 40, 50),
        "scores": (0,),
        "boxes": (0, 5),
        "box_scores": (0,),
    }
    assert FOUND[:, 1].min() > 0


def test_nobody_detected_for_convolutions_of_two_layers(tmp_path: Path) -> None:
    """onnxruntime adds them without broadcasting only where it knows that both layers have the same ROIs."""
    case = Case(tmp_path, DETECTOR, ("layer_34", "layer_3"))
    assert case.run(images=np.zeros((1, 40, 50, 3), dtype=np.uint8))["masks"].shape == (0, 40, 50)
    declared = {
        item.name: [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in case.model.graph.value_info
    }
    assert list(declared.values()) == [["rois", 5]]


# --- filter ---


def grown(reach: int) -> onnx.ModelProto:
    """A filter that adds `reach` pixels to every side of a mask, and says so."""
    writer = GraphWriter(18)
    maps = writer.input("input", np.float32, ["n", 1, "h", "w"])
    side = 2 * reach + 1
    writer.output("output", writer.op("MaxPool", maps, kernel_shape=[side, side], pads=[reach] * 4), ["n", 1, "h", "w"])
    model = writer.model("filter")
    helper.set_model_props(model, {METADATA_KEY: json.dumps({"reach_px": reach})})
    return model


def test_filtered_claims_may_leave_the_roi(case: Case, tmp_path: Path) -> None:
    """Beyond every ROI the first to claim a pixel has it; inside, what isn't claimed by others only grows."""
    image_hw = (75, 130)
    path = tmp_path / "filtered.onnx"
    session = session_of(export_end_to_end(*case.parts, EndToEnd("boxes", preprocess=True, smoothing=grown(6)), path))
    boxes = np.array([[0, 20, 10, 60, 60], [0, 62, 10, 100, 60]], dtype=np.float32)
    feeds = {"images": photo(image_hw, 1)[None], "boxes": boxes}
    before = [item.mask for item in case.steps.masks(case.steps.encode([photo(image_hw, 1)])[0], boxes[:, 1:].astype(float))]
    masks = session.run(["masks"], feeds)[0].astype(bool)
    grew = []
    for mask in before:
        wide = np.zeros_like(mask)
        for row, column in np.argwhere(mask):
            wide[max(row - 6, 0) : row + 7, max(column - 6, 0) : column + 7] = True
        grew.append(wide)
    np.testing.assert_array_equal(masks.any(axis=0), grew[0] | grew[1])
    np.testing.assert_array_equal(masks[0] & ~grew[1], grew[0] & ~grew[1])
    between = grew[0] & grew[1]
    between[:, 20:60] = between[:, 62:100] = False
    assert between.any(), "columns 60 and 61 are in no ROI"
    assert masks[0][between].all()
    assert masks.sum(axis=0).max() == 1


# --- the file ---


@pytest.mark.parametrize("choice", [BOXES, DETECTOR, EndToEnd("boxes", preprocess=False)], ids=["boxes", "detector", "network"])
def test_interface_operators_and_metadata(tmp_path: Path, choice: EndToEnd) -> None:
    case = Case(tmp_path, choice)
    stored = onnx.load(case.path)
    onnx.checker.check_model(stored, full_check=True)
    assert stored.SerializeToString(deterministic=True) == case.path.read_bytes()
    assert {node.domain for node in stored.graph.node} == {""}
    assert not {node.op_type for node in stored.graph.node} & {"If", "Loop", "Scan"}
    assert [(item.domain, item.version) for item in stored.opset_import] == [("", 18)]
    (text,) = [item.value for item in stored.metadata_props if item.key == "roiseg"]
    told = json.loads(text)
    inputs = {item.name for item in case.session.get_inputs()}
    outputs = {item.name for item in case.session.get_outputs()}
    assert (set(told["inputs"]), set(told["outputs"]), told["opset"]) == (inputs, outputs, 18)
    assert told["outputs"]["masks"]["shape"] == ["rois", "height", "width"]
    assert told["convention"] == {name: INTERFACE[name] for name in inputs | outputs}
    assert told["mask_hw"] == [12, 10]
    detector = choice.boxes == "detector"
    assert inputs == {"images" if choice.preprocess else "network_images"} | (set() if detector else {"boxes"})
    assert outputs == {"masks", "scores"} | ({"boxes", "box_scores"} if detector else set())
    assert any(node.name.startswith("backbone/") for node in stored.graph.node)
    again = export_end_to_end(*case.parts, choice, tmp_path / "again.onnx")
    assert again.SerializeToString(deterministic=True) == case.path.read_bytes()


def test_a_backbone_of_one_batch_size_fixes_that_of_the_file(tmp_path: Path) -> None:
    model = export_end_to_end(head(), backbone(batch=2), metadata(), BOXES, tmp_path / "e.onnx")
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value or dim.dim_param for dim in shape] == [2, "height", "width", 3]


def test_no_detections(tmp_path: Path) -> None:
    given = head(), backbone(detections=False), metadata()
    with pytest.raises(GraphError, match=r"end\.onnx: boxes are to come from the detector, .* name their output in extractor\.det"):
        export_end_to_end(*given, DETECTOR, tmp_path / "end.onnx")
    with pytest.raises(GraphError, match=r"leave 'detector' out of export\.end_to_end"):
        export_end_to_end(head(), backbone(), metadata(detections=None), DETECTOR, tmp_path / "end.onnx")
    assert not (tmp_path / "end.onnx").exists()


def test_operators_that_the_file_must_not_hold(tmp_path: Path) -> None:
    custom = backbone()
    conv = next(item for item in custom.graph.node if item.op_type == "Conv")
    conv.op_type, conv.domain = "FusedConv", "com.microsoft"
    custom.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(
        GraphError, match=r"end\.onnx: the graph holds com\.microsoft\.FusedConv, expected standard operators without"
    ):
        export_end_to_end(head(("layer_34", "layer_3")), custom, metadata(("layer_34", "layer_3")), BOXES, tmp_path / "end.onnx")


def test_an_opset_that_cannot_be_brought_to_the_others(tmp_path: Path) -> None:
    old = backbone()
    next(item for item in old.opset_import if not item.domain).version = 3
    with pytest.raises(
        GraphError, match=r"end\.onnx: a part of opset 3 can't be brought to 18, .* or set export\.end_to_end to \[\]"
    ):
        export_end_to_end(head(), old, metadata(), BOXES, tmp_path / "end.onnx")
