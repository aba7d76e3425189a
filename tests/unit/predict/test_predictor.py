"""Tests of roiseg.predict: masks as `evaluate` makes them, the backbone once for many boxes, and errors that say what to do."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_factory import Exported, run_export, shared_export
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pooling_factory import write_pooling
from pycocotools import mask as coco_mask
from store_factory import MODEL, make_project

from roiseg.batches import Loading
from roiseg.errors import BoxError, GraphError, NoImageError, PredictionError
from roiseg.evaluate.infer import predictions
from roiseg.evaluate.measures import measure
from roiseg.evaluate.results import mask_result
from roiseg.geometry import xywh_to_xyxy, xyxy_to_cxcywh
from roiseg.overlap import resolve
from roiseg.placed import Pasted, Placed
from roiseg.predict import PersonMask, Predictor
from roiseg.predict import predictor as module

BOXES = np.array([[5.0, 6.0, 40.0, 45.0], [30.0, 2.0, 69.5, 49.0], [0.0, 0.0, 20.0, 20.0]])
"""In an image of 50 x 70 pixels; the first two overlap."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return shared_export(tmp_path_factory)


@pytest.fixture(scope="module")
def predictor(exported: Exported) -> Predictor:
    return Predictor(exported.folder, "cpu")


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


class Counted:
    """A session that counts its runs."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session, self.sizes = session, list[int]()

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        self.sizes.append(len(list(feeds.values())[-1]))
        found: list[NDArray[Any]] = self.session.run(names, feeds)
        return found


def assert_same(first: Sequence[PersonMask], second: Sequence[PersonMask]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_array_equal(one.box_image, other.box_image)
        assert one.score == other.score


# --- masks ---


def answers(predictor: Predictor, pixels: NDArray[np.uint8], boxes: NDArray[np.float64]) -> list[PersonMask]:
    (encoded,) = predictor.encode([pixels])
    return predictor.masks(encoded, boxes)


def both_ways(exported: Exported, predictor: Predictor) -> Iterator[tuple[PersonMask, dict[str, Any]]]:
    """Prediction from image files and pixels, and COCO's result of the same person from cached features and torch."""
    project, val = exported.project, exported.inputs.val
    people = project.people("val")
    boxes = {item["id"]: item["bbox"] for item in people.annotations}
    names = {item["id"]: str(item["file_name"]) for item in people.images}
    found = predictions(exported.inputs.head, val, torch.device("cpu"), Loading(2, 1, 1))
    expected = [
        mask_result(int(image_id), 1, pasted.score, pasted.placed.whole(measured.image.image_hw), int(annotation_id))
        for prediction in found
        for measured in measure(prediction, val)
        for image_id, annotation_id, pasted in zip(
            measured.table.image_ids, measured.table.annotation_ids, measured.image.predicted, strict=True
        )
    ]
    assert expected
    for result in expected:
        pixels = np.asarray(cv2.imread(str(project.image("val", names[result["image_id"]]))), dtype=np.uint8)
        (person,) = answers(predictor, pixels, xywh_to_xyxy(np.array([boxes[result["annotation_id"]]])))
        yield person, result


def test_prediction_is_what_evaluate_finds(exported: Exported, predictor: Predictor) -> None:
    """Cached float16 features, torch, and ROIs of the index, against image file, onnxruntime and boxes in pixels."""
    for person, result in both_ways(exported, predictor):
        mask = coco_mask.decode(result["segmentation"]).astype(bool)
        assert (person.mask != mask).mean() < 0.01
        assert person.score == pytest.approx(result["score"], abs=0.02)


def test_a_head_that_reads_the_image(tmp_path: Path) -> None:
    """The stored image and the one that prediction makes are the same layer."""
    project = make_project(tmp_path / "project", image=True)
    exported = run_export(project, tmp_path / "export", {**MODEL, "layers": ["layer_3", "image"]})
    assert "image" not in json.loads((exported.folder / "head.json").read_text())["tensors"]
    for person, result in both_ways(exported, Predictor(exported.folder, "cpu")):
        assert (person.mask != coco_mask.decode(result["segmentation"]).astype(bool)).mean() < 0.01


def test_masks_lie_in_their_boxes(predictor: Predictor, pixels: NDArray[np.uint8]) -> None:
    generator = np.random.default_rng(1)
    corner = generator.uniform(0, 30, (12, 2))
    people = answers(predictor, pixels, np.concatenate([corner, corner + generator.uniform(10, 20, (12, 2))], axis=1))
    assert {person.mask.shape for person in people} == {(50, 70)}
    found = [person for person in people if person.mask.any()]
    assert len(found) > 3, "the head is random, yet it finds somebody"
    for person in found:
        rows, columns = np.nonzero(person.mask)
        x0, y0, x1, y1 = person.box_image.tolist()
        assert y0 - 0.5 <= rows.min() <= rows.max() + 0.5 <= y1
        assert x0 - 0.5 <= columns.min() <= columns.max() + 0.5 <= x1
        assert 0 < person.score <= 1


def test_a_pixel_belongs_to_one_person(predictor: Predictor, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [answers(predictor, pixels, BOXES[number : number + 1])[0] for number in range(3)]
    claims = np.sum([person.mask for person in alone], axis=0)
    assert claims.max() > 1, "the case has to be there"
    together = answers(predictor, pixels, BOXES)
    owners = np.sum([person.mask for person in together], axis=0)
    np.testing.assert_array_equal(owners, np.minimum(claims, 1))
    asked: list[Sequence[Pasted]] = []

    def listening(people: Sequence[Pasted]) -> list[Placed]:
        asked.append(people)
        return resolve(people)

    monkeypatch.setattr(module, "resolve", listening)
    assert_same(answers(predictor, pixels, BOXES), together)
    for person, mine, pasted in zip(together, alone, asked[0], strict=True):
        np.testing.assert_array_equal(pasted.placed.whole((50, 70)), mine.mask)
        assert person.score == mine.score == pasted.score


def test_boxes_are_clipped_to_the_image(predictor: Predictor, pixels: NDArray[np.uint8]) -> None:
    (over,) = answers(predictor, pixels, np.array([[-10.0, 5.0, 90.0, 60.0]]))
    (inside,) = answers(predictor, pixels, np.array([[0.0, 5.0, 70.0, 50.0]]))
    assert_same([over], [inside])


def test_no_boxes_no_masks(predictor: Predictor, pixels: NDArray[np.uint8]) -> None:
    assert answers(predictor, pixels, np.zeros((0, 4))) == []
    predictor.set_image(pixels)
    assert predictor.predict([]) == []
    assert predictor.encode([]) == []


def test_crowds_go_through_the_head_in_passes(
    predictor: Predictor, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = np.repeat(BOXES, 22, axis=0)[:65]
    head = Counted(predictor._head)
    monkeypatch.setattr(predictor, "_head", head)
    people = answers(predictor, pixels, boxes)
    assert head.sizes == [64, 1]
    monkeypatch.setattr(module, "MAX_ROIS", 30)
    assert_same(answers(predictor, pixels, boxes), people)
    assert head.sizes[2:] == [30, 30, 5]


def test_masks_are_smoothed(exported: Exported, predictor: Predictor, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    """A filter that grows masks by 2 pixels, also beyond their boxes; the score stays that of the head."""
    write_pooling(tmp_path / "dilation.onnx", "MaxPool", 2)
    smooth = Predictor(exported.folder, "cpu", filter_file=tmp_path / "dilation.onnx")
    (rough,), (found,) = (answers(item, pixels, BOXES[:1]) for item in (predictor, smooth))
    expected = cv2.dilate(rough.mask.astype(np.uint8), np.ones((5, 5), dtype=np.uint8)) > 0
    np.testing.assert_array_equal(found.mask, expected)
    assert found.mask[:, :5].any() != rough.mask[:, :5].any()
    assert found.score == rough.score
    everybody = answers(smooth, pixels, BOXES)
    assert np.sum([person.mask for person in everybody], axis=0).max() == 1


def test_the_filter_of_the_export(exported: Exported, predictor: Predictor, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    """It is in the end-to-end file, and so it is here unless something else is asked for."""
    shutil.copytree(exported.folder, tmp_path / "head")
    write_pooling(tmp_path / "head" / "filter.onnx", "MaxPool", 2)
    write_pooling(tmp_path / "wider.onnx", "MaxPool", 3)
    own = answers(Predictor(str(tmp_path / "head"), "cpu"), pixels, BOXES)
    expected = Predictor(exported.folder, "cpu", filter_file=str(tmp_path / "head" / "filter.onnx"))
    assert_same(own, answers(expected, pixels, BOXES))
    rough = answers(Predictor(tmp_path / "head", "cpu", filter_file=None), pixels, BOXES)
    assert_same(rough, answers(predictor, pixels, BOXES))
    wider = answers(Predictor(tmp_path / "head", "cpu", filter_file=tmp_path / "wider.onnx"), pixels, BOXES)
    sizes = [[person.placed.pixels for person in people[2:]] for people in (rough, own, wider)]
    assert sizes[0] < sizes[1] < sizes[2]


# --- one image, many boxes ---


def test_an_image_is_encoded_once(predictor: Predictor, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    expected, alone = answers(predictor, pixels, BOXES), answers(predictor, pixels, BOXES[2:])
    backbone = Counted(predictor._encoder._session)
    monkeypatch.setattr(predictor._encoder, "_session", backbone)
    predictor.set_image(pixels)
    for _ in range(2):
        assert_same(predictor.predict(BOXES), expected)
    assert_same(predictor.predict(BOXES[2:].tolist()), alone)
    assert backbone.sizes == [1]
    predictor.set_image(pixels[:, ::-1])
    assert backbone.sizes == [1, 1]
    assert any((one.mask != other.mask).any() for one, other in zip(predictor.predict(BOXES), expected, strict=True))


def test_boxes_of_every_format_and_frame(predictor: Predictor, pixels: NDArray[np.uint8]) -> None:
    predictor.set_image(pixels)
    expected = predictor.predict(BOXES)
    size = np.array([70.0, 50.0, 70.0, 50.0])
    centres = xyxy_to_cxcywh(BOXES)
    for found in (
        predictor.predict(centres, "cxcywh"),
        predictor.predict(BOXES / size, "xyxy", "unit"),
        predictor.predict(centres / size, "cxcywh", "unit"),
    ):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.mask, other.mask)
            np.testing.assert_allclose(one.box_image, other.box_image)


def test_predict_before_set_image(exported: Exported, pixels: NDArray[np.uint8]) -> None:
    predictor = Predictor(exported.folder, "cpu")
    with pytest.raises(NoImageError, match=r"predict was called before set_image, .* call set_image\(pixels\)"):
        predictor.predict(BOXES)
    predictor.set_image(pixels)
    with pytest.raises(ValueError, match="got None"):
        predictor.set_image(None)  # type: ignore[arg-type]
    with pytest.raises(NoImageError, match="call set_image"):
        predictor.predict(BOXES)


def test_images_of_several_sizes_at_once(predictor: Predictor, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    images = [pixels, np.ascontiguousarray(pixels[:40, :44]), pixels[:, ::-1]]
    backbone = Counted(predictor._encoder._session)
    monkeypatch.setattr(predictor._encoder, "_session", backbone)
    together = predictor.encode(images)
    assert backbone.sizes == [3]
    box = BOXES[:1]
    for image, encoded in zip(images, together, strict=True):
        assert encoded.image_hw == image.shape[:2]
        assert_same(predictor.masks(encoded, box), answers(predictor, image, box))


# --- backbones ---


def changed_backbone(exported: Exported, folder: Path, batch: int | None = None, rows: Sequence[Sequence[float]] = ()) -> Path:
    """The exported folder with a backbone of a fixed batch, or with detections that are always these."""
    shutil.copytree(exported.folder, folder)
    backbone = onnx.load(folder / "backbone.onnx")
    if batch:
        backbone.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    if rows:
        backbone.graph.initializer.append(numpy_helper.from_array(np.array(rows, dtype=np.float32), "rows"))
        backbone.graph.node.append(helper.make_node("Identity", ["rows"], ["people"]))
        backbone.graph.output.append(helper.make_tensor_value_info("people", TensorProto.FLOAT, [None, 7]))
        with_metadata(folder, {"detections": {"output": "people", "person_class": 0, "min_score": 0.5}})
    onnx.save(backbone, folder / "backbone.onnx")
    return folder


def with_metadata(folder: Path, changes: Mapping[str, object]) -> None:
    head = onnx.load(folder / "head.onnx")
    told = json.loads(head.metadata_props[0].value) | changes
    helper.set_model_props(head, {"roiseg": json.dumps(told)})
    onnx.save(head, folder / "head.onnx")


def test_a_backbone_of_fixed_batches(
    exported: Exported, predictor: Predictor, pixels: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = Predictor(changed_backbone(exported, tmp_path / "fixed", batch=2), "cpu")
    backbone = Counted(fixed._encoder._session)
    monkeypatch.setattr(fixed._encoder, "_session", backbone)
    images = [pixels, pixels[::-1], pixels[:, ::-1]]
    found = fixed.encode(images)
    assert backbone.sizes == [2, 2]
    for image, encoded in zip(images, found, strict=True):
        assert_same(fixed.masks(encoded, BOXES), answers(predictor, image, BOXES))


def test_the_detectors_own_people(exported: Exported, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    rule = json.loads((exported.folder / "head.json").read_text())["input"]
    height, width = rule["hw"]
    rows = [
        [0, 0, 0.6, 0, 0, width / 2, height],
        [0, 0, 0.9, width / 2, -5, width, height / 2],
        [0, 1, 0.9, 0, 0, width, height],
        [0, 0, 0.4, 0, 0, width, height],
    ]
    detecting = Predictor(changed_backbone(exported, tmp_path / "detecting", rows=rows), "cpu")
    assert detecting.has_detector
    (encoded,) = detecting.encode([pixels])
    found = detecting.detect(encoded)
    np.testing.assert_allclose(found.boxes_image, [[35, 0, 70, 25], [0, 0, 35, 50]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.9, 0.6], atol=1e-6)
    assert len(detecting.masks(encoded, found.boxes_image)) == 2


def test_a_backbone_without_detections(predictor: Predictor, pixels: NDArray[np.uint8]) -> None:
    assert not predictor.has_detector
    (encoded,) = predictor.encode([pixels])
    with pytest.raises(GraphError, match=r"backbone\.onnx: has no detections of its own; give boxes, or set extractor\.detections"):
        predictor.detect(encoded)


# --- files that don't fit ---


def test_another_file_of_the_head(exported: Exported, predictor: Predictor, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    shutil.copytree(exported.folder, tmp_path / "head")
    (tmp_path / "head" / "head.onnx").rename(tmp_path / "head" / "head.int8.onnx")
    found = answers(Predictor(tmp_path / "head" / "head.int8.onnx", "cpu"), pixels, BOXES)
    assert_same(found, answers(predictor, pixels, BOXES))


def test_no_model_folder(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"gone/head\.onnx: no such ONNX file; run `dvc repro export`"):
        Predictor(tmp_path / "gone", "cpu")


def test_a_missing_backbone(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "head.onnx").write_bytes((exported.folder / "head.onnx").read_bytes())
    with pytest.raises(GraphError, match=r"backbone\.onnx: no such ONNX file"):
        Predictor(tmp_path, "cpu")


def test_models_of_something_else(exported: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "head"
    shutil.copytree(exported.folder, folder)
    with pytest.raises(GraphError, match=r"backbone\.onnx: its 'roiseg' metadata lacks input, scales, roi_padding, expected"):
        Predictor(folder / "backbone.onnx", "cpu")
    with_metadata(folder, {"layers": {"layer_9": {}}})
    with pytest.raises(GraphError, match=r"head\.onnx: takes boxes, features_.* which takes boxes, features_layer_9 and gives"):
        Predictor(folder, "cpu")
    head = onnx.load(folder / "head.onnx")
    head.metadata_props[0].value = "{"
    onnx.save(head, folder / "head.onnx")
    with pytest.raises(GraphError, match=r"head\.onnx: its 'roiseg' metadata isn't JSON"):
        Predictor(folder, "cpu")
    del head.metadata_props[:]
    onnx.save(head, folder / "head.onnx")
    with pytest.raises(GraphError, match=r"head\.onnx: has no 'roiseg' metadata, expected a head that roiseg exported"):
        Predictor(folder, "cpu")
    (folder / "head.onnx").write_bytes(b"not an ONNX")
    with pytest.raises(GraphError, match=r"head\.onnx: onnxruntime \S+ can't read it: .* is the file whole\?"):
        Predictor(folder, "cpu")


def test_a_backbone_of_another_export(exported: Exported, tmp_path: Path) -> None:
    folder = changed_backbone(exported, tmp_path / "head")
    with_metadata(folder, {"detections": {"output": "people", "person_class": 0, "min_score": 0.5}})
    with pytest.raises(GraphError, match=r"backbone\.onnx: has no output people, which head\.onnx reads, .* from one export"):
        Predictor(folder, "cpu")
    backbone = onnx.load(folder / "backbone.onnx")
    backbone.graph.input.append(helper.make_tensor_value_info("layer_3_scale", TensorProto.FLOAT, [1]))
    onnx.save(backbone, folder / "backbone.onnx")
    with pytest.raises(GraphError, match=r"backbone\.onnx: takes images, layer_3_scale, expected one image input"):
        Predictor(folder, "cpu")


def test_a_head_that_gives_no_numbers(predictor: Predictor, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def run(self, _names: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
            return [np.full((len(feeds["boxes"]), 3, 4, 4), np.nan, dtype=np.float32)]

    monkeypatch.setattr(predictor, "_head", Broken())
    with pytest.raises(PredictionError, match=r"head\.onnx: the head's probabilities aren't numbers"):
        answers(predictor, pixels, BOXES)


def test_bad_boxes_are_named_by_their_image(predictor: Predictor, pixels: NDArray[np.uint8]) -> None:
    (encoded,) = predictor.encode([pixels])
    with pytest.raises(BoxError, match=r"here: box 0 is \(80, 5, 90, 20\), which lies outside the image of 70x50 pixels"):
        predictor.masks(encoded, np.array([[80.0, 5.0, 90.0, 20.0]]), "here")
