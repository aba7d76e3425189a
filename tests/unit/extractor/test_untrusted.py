"""Tests of roiseg.extractor.graph and roiseg.runtime on ONNX files from anywhere: nothing outside their folder is read."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_factory import INPUT_HW, LAYER_34, LAYERS, make_detector
from untrusted import PLACES, SECRET, fill, keep_outside

from roiseg import runtime
from roiseg.backbone import make_backbone
from roiseg.errors import GraphError
from roiseg.extractor.graph import load_graph
from roiseg.extractor.params import DetectionParams
from roiseg.extractor.session import Backbone
from roiseg.runtime import make_session

BOXES = DetectionParams(output="detections", person_class=0, min_score=0.0)
DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _data: b"",
    "text": lambda _data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "noise": lambda data: np.random.default_rng(3).bytes(len(data)),
    "half": lambda data: data[: len(data) // 2],
    "its head": lambda data: data[:40],
}
"""What it is -> what is left of an ONNX's bytes."""


def back(source: Path, out: Path) -> None:
    make_backbone(source, LAYERS, INPUT_HW, "int8", BOXES, out)


def without_nodes(path: Path) -> Path:
    model = onnx.load(path)
    model.graph.ClearField("node")
    path.write_bytes(model.SerializeToString())
    return path


# --- weights in other files ---


@pytest.mark.parametrize("place", PLACES)
def test_a_detector_with_weights_elsewhere(tmp_path: Path, place: str) -> None:
    source = keep_outside(make_detector(fill(tmp_path) / "d.onnx", detections=True), "stem.weight", PLACES[place])
    named = re.escape(repr(PLACES[place].format(outside=tmp_path / "secret.bin")))
    message = (
        rf"d\.onnx: keeps weights in {named}, which can't be taken \(.+\); expected plain files in .*models or below, no links: "
    )
    with pytest.raises(GraphError, match=f"{message}put copies of them there, or export the detector as one file"):
        back(source, tmp_path / "out" / "backbone.onnx")
    assert not (tmp_path / "out").exists()


def test_a_hard_link_is_no_plain_file(tmp_path: Path) -> None:
    """It may be anybody's, and whoever writes there changes the model."""
    source = keep_outside(make_detector(fill(tmp_path) / "d.onnx"), "stem.weight", "hard.bin")
    (source.parent / "hard.bin").hardlink_to(tmp_path / "secret.bin")
    with pytest.raises(GraphError, match=r"keeps weights in 'hard\.bin', which can't be taken .*no links: put copies"):
        load_graph(source)
    (source.parent / "hard.bin").unlink()
    shutil.copy(tmp_path / "secret.bin", source.parent / "hard.bin")
    load_graph(source)


def test_no_byte_outside_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file outside can't be read, and the message doesn't change."""
    source = keep_outside(make_detector(fill(tmp_path) / "d.onnx"), "stem.weight", PLACES["above"])
    with pytest.raises(GraphError) as readable:
        load_graph(source)
    (tmp_path / "secret.bin").unlink()
    (tmp_path / "secret.bin").mkdir()
    with pytest.raises(GraphError) as unreadable:
        load_graph(source)
    assert str(readable.value) == str(unreadable.value)


def test_many_places_are_named_in_few_words(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx", detections=True)
    model = onnx.load(source)
    for number, tensor in enumerate(model.graph.initializer):
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"weights{number}.bin")
    source.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match=r"keeps weights in 'weights0\.bin', 'weights1\.bin', 'weights2\.bin' and others, which"):
        load_graph(source)


@pytest.mark.parametrize("below", [".", "weights/of the detector"])
def test_weights_beside_the_detector_are_taken(tmp_path: Path, below: str) -> None:
    """As exporters write those that one file can't hold; the cut doesn't show how they came."""
    single = make_detector(tmp_path / "single.onnx", detections=True)
    apart = tmp_path / "apart" / "d.onnx"
    (apart.parent / below).mkdir(parents=True)
    onnx.save(
        onnx.load(single),
        apart,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{below}/d.onnx.data".removeprefix("./"),
        size_threshold=0,
        convert_attribute=False,
    )
    assert (apart.parent / below / "d.onnx.data").stat().st_size > SECRET.nbytes
    assert b"d.onnx.data" in apart.read_bytes()
    back(single, tmp_path / "single.cut")
    back(apart, tmp_path / "apart.cut")
    assert (tmp_path / "single.cut").read_bytes() == (tmp_path / "apart.cut").read_bytes()


@pytest.mark.parametrize("place", PLACES)
def test_a_session_of_weights_elsewhere(tmp_path: Path, place: str) -> None:
    source = keep_outside(make_detector(fill(tmp_path) / "d.onnx"), "stem.weight", PLACES[place])
    message = r"d\.onnx: onnxruntime \S+ can't take the weights that it keeps in other files: .*expected whole files in the folder"
    with pytest.raises(GraphError, match=message):
        make_session(source, "cpu", "float32")


@pytest.mark.parametrize("place", ["above", "absolute"])
def test_a_cut_graph_with_weights_elsewhere(tmp_path: Path, place: str) -> None:
    folder = fill(tmp_path)
    make_backbone(make_detector(folder / "d.onnx"), {"p5": LAYER_34}, INPUT_HW, "float16", None, folder / "backbone.onnx")
    keep_outside(folder / "backbone.onnx", "stem.weight", PLACES[place])
    with pytest.raises(GraphError, match=r"backbone\.onnx: keeps weights in "):
        Backbone(folder / "backbone.onnx", "cpu", "float32")


def test_weights_elsewhere_are_the_files_fault_on_a_gpu_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise onnxruntime.capi.onnxruntime_pybind11_state.Fail("External data path escapes model directory")

    monkeypatch.setattr(runtime, "cuda_device", lambda: "Some GPU")
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(GraphError, match="can't take the weights that it keeps in other files: External data path escapes"):
        make_session(make_detector(tmp_path / "d.onnx"), "cuda", "float32")


# --- damage ---


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_detector(tmp_path: Path, damage: str) -> None:
    source = make_detector(tmp_path / "d.onnx")
    source.write_bytes(DAMAGED[damage](source.read_bytes()))
    with pytest.raises(GraphError, match=r"d\.onnx: (not an ONNX file \(.*\); is the download whole\?|holds no graph, expected)"):
        back(source, tmp_path / "out.onnx")
    assert [item.name for item in tmp_path.iterdir()] == ["d.onnx"]


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_session_of_a_damaged_file(tmp_path: Path, damage: str) -> None:
    source = make_detector(tmp_path / "d.onnx")
    source.write_bytes(DAMAGED[damage](source.read_bytes()))
    with pytest.raises(
        GraphError, match=r"d\.onnx: onnxruntime \S+ can't read it: .*; is the file whole\? Fetch or export it again"
    ):
        make_session(source, "cpu", "float32")


def test_no_nodes(tmp_path: Path) -> None:
    source = without_nodes(make_detector(tmp_path / "d.onnx"))
    with pytest.raises(GraphError, match=r"d\.onnx: holds no graph"):
        load_graph(source)
    with pytest.raises(GraphError, match=r"d\.onnx: onnxruntime \S+ can't read it"):
        make_session(source, "cpu", "float32")


@pytest.mark.parametrize("ending", [".json", ".textproto", ".onnxtxt"])
def test_the_ending_of_the_name_says_nothing(tmp_path: Path, ending: str) -> None:
    source = make_detector(tmp_path / f"d{ending}")
    assert load_graph(source).graph.node
    source.write_text("{}")
    with pytest.raises(GraphError, match="not an ONNX file"):
        load_graph(source)


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="no such ONNX file"):
        load_graph(tmp_path)
    with pytest.raises(GraphError, match="no such ONNX file"):
        make_session(tmp_path, "cpu", "float32")


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(onnx, "load", refuse)
    with pytest.raises(GraphError, match=r"d\.onnx: can't be read \(Permission denied\); give yourself the right to"):
        load_graph(make_detector(tmp_path / "d.onnx"))


def test_a_graph_that_contradicts_itself(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx", detections=True)
    model = onnx.load(source)
    model.graph.node.append(onnx.helper.make_node("MatMul", [], ["of nothing"]))
    source.write_bytes(model.SerializeToString())
    message = (
        r"d\.onnx: its graph contradicts itself \(.*Input 0 is out of bounds.*\); is the file whole\? export the detector anew"
    )
    with pytest.raises(GraphError, match=message):
        back(source, tmp_path / "out.onnx")


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx")
    source.write_bytes(source.read_bytes().replace(b"stem.bias", b"stem.\xff\xfeas"))
    with pytest.raises(GraphError, match=r"d\.onnx: b'stem\.\\xff\\xfeas' is no name, expected text; is the download whole\?"):
        load_graph(source)


def test_an_input_of_no_known_type(tmp_path: Path) -> None:
    source = make_detector(tmp_path / "d.onnx")
    model = onnx.load(source)
    model.graph.input[0].type.tensor_type.elem_type = 48
    source.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match=r"input 'images' is 48 \['N', 3, 'h', 'w'\], expected FLOAT"):
        back(source, tmp_path / "out.onnx")


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_whatever_the_bytes_it_is_a_cut_or_a_graph_error(tmp_path: Path, seed: int) -> None:
    """A few changed bytes at random places of the file; the slow run tries many more."""
    source, out = make_detector(tmp_path / "d.onnx", detections=True), tmp_path / "out.onnx"
    whole, random = source.read_bytes(), np.random.default_rng(seed)
    messages, written, rounds = list[str](), 0, 150 if seed == 1 else 10_000
    for _ in range(rounds):
        data = np.frombuffer(whole, dtype=np.uint8).copy()
        places = random.integers(len(data), size=random.integers(1, 5))
        data[places] = random.integers(256, size=len(places))
        source.write_bytes(data.tobytes())
        try:
            back(source, out)
        except GraphError as error:
            messages.append(str(error))
            written += out.exists()
        out.unlink(missing_ok=True)
    assert not written
    assert all(message.startswith(f"{source}: ") for message in messages)
    assert rounds // 4 < len(messages) < rounds  # or the places say nothing
