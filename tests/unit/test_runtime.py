"""Tests of roiseg.runtime: a session runs where it was asked for, with torch and without, or says why not."""

import ctypes
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from roiseg import runtime
from roiseg.errors import GraphError, ProviderError
from roiseg.runtime import choose_provider, engine_folder, make_session
from roiseg.types import Precision, Provider

Settings = Sequence[tuple[str, dict[str, str]]]

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
STATE = onnxruntime.capi.onnxruntime_pybind11_state


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = -x."""
    value, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "tiny", [value], [result])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    return tmp_path / "model.onnx"


def with_torch(monkeypatch: pytest.MonkeyPatch, *, there: bool) -> None:
    """torch is installed, and sees a GPU or none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")


def without_torch(monkeypatch: pytest.MonkeyPatch, *, devices: int | None) -> list[str]:
    """torch isn't installed; the driver sees so many GPUs, or isn't there. Returns what is done, in order."""
    done: list[str] = []

    class Driver:
        def cuInit(self, _flags: int) -> int:
            return 0

        def cuDeviceGetCount(self, count: Any) -> int:  # noqa: ANN401
            count._obj.value = devices or 0
            return 0

        def cuDeviceGetName(self, text: ctypes.Array[ctypes.c_char], _length: int, _device: int) -> int:
            text.value = b"Other GPU"
            return 0

    def load(name: str) -> Driver:
        if devices is None:
            raise OSError(name)
        return Driver()

    monkeypatch.setattr(runtime, "_torch", lambda: None)
    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: done.append("libraries"))
    return done


class Session:
    """What onnxruntime would make of the settings where everything loads."""

    used: str | None = None

    def __init__(self, _model: object, sess_options: onnxruntime.SessionOptions, providers: Settings, enable_fallback: int) -> None:
        assert not enable_fallback
        self.options, self.providers = sess_options, providers

    def get_providers(self) -> list[str]:
        return [self.used or self.providers[0][0]]


class Fallen(Session):
    """A session that runs on the processor whatever was asked for, as onnxruntime does when its CUDA libraries don't load."""

    used = CPU


def failing(error: Exception) -> Callable[..., None]:
    def make(*_arguments: object, **_options: object) -> None:
        raise error

    return make


# --- which provider ---


@pytest.mark.parametrize(
    ("asked", "there", "chosen"),
    [
        ("auto", False, "cpu"),
        ("auto", True, "cuda"),
        ("cpu", False, "cpu"),
        ("cpu", True, "cpu"),
        ("cuda", True, "cuda"),
        ("tensorrt", True, "tensorrt"),
    ],
)
def test_choose_provider(monkeypatch: pytest.MonkeyPatch, asked: Provider, there: bool, chosen: str) -> None:
    with monkeypatch.context() as patch:
        with_torch(patch, there=there)
        assert choose_provider(asked) == chosen
    without_torch(monkeypatch, devices=2 if there else 0)
    assert choose_provider(asked) == chosen


def test_a_provider_of_no_known_name() -> None:
    with pytest.raises(ProviderError, match=r"provider is 'gpu', expected one of auto, cuda, tensorrt, cpu"):
        choose_provider("gpu")  # type: ignore[arg-type]


def test_no_driver_and_no_cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch(monkeypatch, devices=None)
    assert choose_provider("auto") == "cpu"
    without_torch(monkeypatch, devices=1)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    assert choose_provider("auto") == "cpu"


@pytest.mark.parametrize("asked", ["cuda", "tensorrt"])
def test_a_gpu_that_is_not_there(model: Path, monkeypatch: pytest.MonkeyPatch, asked: Provider) -> None:
    with_torch(monkeypatch, there=False)
    with pytest.raises(ProviderError, match=rf"provider '{asked}' was asked for, but there is no CUDA device .* 'auto' or 'cpu'"):
        make_session(model, asked, "float32")


def test_the_processor_needs_no_torch(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = without_torch(monkeypatch, devices=1)
    session, found = make_session(model, "cpu", "float32")
    np.testing.assert_array_equal(session.run(None, {"x": np.array([1, -2], dtype=np.float32)})[0], [-1, 2])
    assert (found.provider, found.precision, found.device) == ("cpu", "float32", "cpu")
    assert not done


def test_without_torch_onnxruntime_loads_the_libraries(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = without_torch(monkeypatch, devices=1)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    assert make_session(model, "cuda", "float32")[1].device == "Other GPU"
    assert done == ["libraries"]


# --- how it is set up ---


@pytest.mark.parametrize("precision", ["tf32", "float16"])
def test_precisions_that_the_processor_lacks(model: Path, precision: Precision) -> None:
    with pytest.raises(
        ProviderError, match=rf"extractor\.precision is '{precision}', but the processor computes in 'float32' only"
    ):
        make_session(model, "cpu", precision)


def test_float16_is_tensorrts(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_torch(monkeypatch, there=True)
    with pytest.raises(ProviderError, match=r"extractor\.precision is 'float16', which only 'tensorrt' has"):
        make_session(model, "cuda", "float16")


@pytest.mark.parametrize(("precision", "tf32"), [("float32", "0"), ("tf32", "1")])
def test_options_of_a_gpu(model: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, tf32: str) -> None:
    with_torch(monkeypatch, there=True)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    session, found = make_session(model, "auto", precision)
    assert (found.provider, found.device) == ("cuda", "Some GPU")
    assert [name for name, _ in session.providers] == [CUDA]
    assert session.providers[0][1]["use_tf32"] == tf32
    assert session.providers[0][1]["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    assert session.options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"


def test_a_head_may_compute_shapes_on_the_processor(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_torch(monkeypatch, there=True)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    session, _ = make_session(model, "cuda", "float32", whole=False)
    assert [name for name, _ in session.providers] == [CUDA, CPU]
    assert session.providers[0][1]["cudnn_conv_algo_search"] == "HEURISTIC"
    with pytest.raises(RuntimeError, match="disable_cpu_ep_fallback"):
        session.options.get_session_config_entry("session.disable_cpu_ep_fallback")


@pytest.mark.parametrize(("whole", "behind"), [(True, [CUDA]), (False, [CUDA, CPU])])
def test_tensorrt_leaves_what_it_lacks_to_cuda(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whole: bool, behind: list[str]
) -> None:
    """Engines are kept in the user's cache, which is made where it isn't there."""
    with_torch(monkeypatch, there=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    session, _ = make_session(model, "tensorrt", "float16", whole=whole)
    assert [name for name, _ in session.providers] == [TENSORRT, *behind]
    options = session.providers[0][1]
    assert options["trt_engine_cache_path"] == str(tmp_path / "cache" / "roiseg" / "tensorrt")
    assert options["trt_fp16_enable"] == options["trt_engine_cache_enable"] == "True"
    assert engine_folder().is_dir()
    assert session.providers[1][1]["use_tf32"] == "1"


def test_engines_lie_in_the_home_folder_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert engine_folder() == tmp_path / ".cache" / "roiseg" / "tensorrt"


# --- what goes wrong ---


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_fall_back_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch, asked: Provider) -> None:
    with_torch(monkeypatch, there=True)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Fallen)
    with pytest.raises(ProviderError, match=rf"model\.onnx: asked for {CUDA}, but onnxruntime runs on {CPU}"):
        make_session(model, asked, "float32")


def test_auto_without_torch_falls_back_aloud(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A GPU without CUDA's libraries is an ordinary laptop; who asks for the GPU is told."""
    without_torch(monkeypatch, devices=1)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Fallen)
    with caplog.at_level(logging.WARNING):
        assert make_session(model, "auto", "float32")[1].provider == "cpu"
    assert "CUDA libraries don't load" in caplog.text
    assert "everything runs on the processor" in caplog.text
    with pytest.raises(ProviderError, match="CUDA libraries don't load"):
        make_session(model, "cuda", "float32")


@pytest.mark.parametrize("error", [RuntimeError("no driver"), STATE.Fail("no driver")], ids=["builtin", "own"])
def test_a_gpu_session_that_cannot_be_made(model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with_torch(monkeypatch, there=True)
    monkeypatch.setattr(onnxruntime, "InferenceSession", failing(error))
    with pytest.raises(ProviderError, match=r"model\.onnx: onnxruntime \S+ can't make a session on 'cuda': no driver"):
        make_session(model, "cuda", "float32")


@pytest.mark.parametrize("content", [b"", b"not an ONNX", None], ids=["empty", "text", "half"])
@pytest.mark.parametrize("asked", ["cpu", "cuda"])
def test_a_broken_file_is_the_files_fault(
    model: Path, monkeypatch: pytest.MonkeyPatch, asked: Provider, content: bytes | None
) -> None:
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2] if content is None else content)
    if asked == "cuda":
        with_torch(monkeypatch, there=True)
        monkeypatch.setattr(onnxruntime, "InferenceSession", failing(STATE.InvalidProtobuf("parsing failed")))
    with pytest.raises(GraphError, match=r"model\.onnx: onnxruntime \S+ can't read it: .*; is the file whole\? Fetch"):
        make_session(model, asked, "float32")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"gone\.onnx: no such ONNX file; run `dvc repro export`, or `dvc pull` it"):
        make_session(tmp_path / "gone.onnx", "cpu", "float32")
