"""The one place that makes an onnxruntime session, so that no model ever runs where nobody asked for it.

torch isn't needed. Where it is installed, it says whether there is a CUDA device and brings the CUDA libraries, and so must be
loaded before the session that uses them; elsewhere the driver says so, and onnxruntime loads the libraries of NVIDIA's wheels.
"""

import ctypes
import importlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import onnxruntime
from numpy.typing import NDArray

from roiseg.errors import GraphError, ProviderError
from roiseg.types import Precision, Provider

logger = logging.getLogger(__name__)

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider", "cpu": "CPUExecutionProvider"}

_STATE = onnxruntime.capi.onnxruntime_pybind11_state

ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    UnicodeDecodeError,  # where its message quotes the bytes of a damaged file
    *(item for item in vars(_STATE).values() if isinstance(item, type) and issubclass(item, Exception)),
)
"""All that onnxruntime raises: its exceptions share no base but `Exception`."""

_GRAPH_ERRORS = (_STATE.InvalidProtobuf, _STATE.InvalidGraph, _STATE.NoSuchFile, _STATE.NotImplemented, _STATE.InvalidArgument)
"""Those that lie with the file wherever it should run; on the processor, which is always there, every error does."""

_EXTERNAL = re.compile(r"external (data|initializer)", re.IGNORECASE)
"""Words for weights in other files, for which onnxruntime has no error of their own."""

_DRIVERS = ("libcuda.so.1", "nvcuda.dll")


@dataclass(frozen=True)
class Runtime:
    """What a session really runs on; recorded in the store, and compared when a resume appends to one.

    Attributes:
        provider: `cpu`, `cuda` or `tensorrt`.
        precision: arithmetic of the convolutions.
        onnxruntime: version.
        device: name of the GPU, or `cpu`.
    """

    provider: str
    precision: str
    onnxruntime: str
    device: str


def _torch() -> ModuleType | None:
    """torch, where it is installed; its import takes seconds, so nobody who runs on the processor asks."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


def _driver_device() -> str | None:
    """Name of the first CUDA device that the driver lets this process see, or None."""
    for name in _DRIVERS:
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count, text = ctypes.c_int(0), ctypes.create_string_buffer(256)
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
            return None
        return None if driver.cuDeviceGetName(text, len(text), 0) else text.value.decode()
    return None


def cuda_device() -> str | None:
    """Name of the CUDA device that a session would run on, or None; torch says so where it is installed, else the driver."""
    torch = _torch()
    if torch is not None:
        return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return _driver_device() if PROVIDERS["cuda"] in onnxruntime.get_available_providers() else None


def choose_provider(provider: Provider) -> str:
    """`auto` made definite: a CUDA device if there is one, else the CPU.

    Raises:
        ProviderError: a GPU provider was asked for and there is no CUDA device, or none is called so.
    """
    if provider == "cpu":
        return provider
    if provider not in get_args(Provider):
        raise ProviderError(f"provider is {provider!r}, expected one of {', '.join(get_args(Provider))}")
    found = cuda_device()
    if provider == "auto":
        return "cuda" if found else "cpu"
    if not found:
        raise ProviderError(
            f"provider {provider!r} was asked for, but there is no CUDA device here that onnxruntime "
            f"{onnxruntime.__version__} could use; mend the driver, or set extractor.provider (or --provider) to 'auto' or 'cpu' "
            "to run on the processor"
        )
    return provider


def engine_folder() -> Path:
    """Where TensorRT's engines are kept from run to run: they belong to this machine's GPU, and to no data."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "roiseg" / "tensorrt"


def _cuda_options(precision: Precision, *, whole: bool) -> dict[str, str]:
    # A backbone has one batch shape, so the exhaustive search runs once and the choice can't change in the middle of a store.
    # Heads see another number of ROIs each time, and would be searched for anew.
    return {
        "cudnn_conv_algo_search": "EXHAUSTIVE" if whole else "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "use_tf32": str(int(precision == "tf32")),
    }


def _settings(chosen: str, precision: Precision, *, whole: bool) -> list[tuple[str, dict[str, str]]]:
    """Providers in the order in which they take nodes, with their options.

    Raises:
        ProviderError: the provider hasn't got the precision.
    """
    behind: list[tuple[str, dict[str, str]]] = [] if whole else [(PROVIDERS["cpu"], {})]
    if chosen == "cuda":
        if precision == "float16":
            raise ProviderError("extractor.precision is 'float16', which only 'tensorrt' has; use 'float32' or 'tf32' on 'cuda'")
        return [(PROVIDERS["cuda"], _cuda_options(precision, whole=whole)), *behind]
    if chosen == "tensorrt":
        folder = engine_folder()
        folder.mkdir(parents=True, exist_ok=True)
        options = {
            "trt_fp16_enable": str(precision == "float16"),
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(folder),
        }
        # What TensorRT has no layer for stays on the GPU.
        return [
            (PROVIDERS["tensorrt"], options),
            (PROVIDERS["cuda"], _cuda_options("tf32" if precision == "float16" else precision, whole=whole)),
            *behind,
        ]
    if precision != "float32":
        raise ProviderError(f"extractor.precision is {precision!r}, but the processor computes in 'float32' only")
    return [(PROVIDERS["cpu"], {})]


def _options(chosen: str, side_by_side: int, *, whole: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if chosen == "cpu":
        options.intra_op_num_threads = max(1, (os.cpu_count() or 1) // side_by_side)
        # Threads that wait by spinning take the cores from those that decode and compress.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    elif whole:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def make_session(
    model: bytes | Path, provider: Provider, precision: Precision, side_by_side: int = 1, *, whole: bool = True
) -> tuple[onnxruntime.InferenceSession, Runtime]:
    """A session on the asked provider and no other.

    Args:
        model: serialised ONNX, or its file.
        provider: where to run. `auto` without torch falls back to the processor, with a warning, where a device is there but its
            libraries don't load.
        precision: arithmetic; `float32` is the only one of the CPU.
        side_by_side: how many runs share the processor's cores.
        whole: whether every node must run on the provider, as a backbone's must. Heads and end-to-end graphs compute shapes,
            which onnxruntime leaves to the processor: false.

    Raises:
        GraphError: the file isn't there, or onnxruntime can't read it.
        ProviderError: the session would run somewhere else.
    """
    chosen = choose_provider(provider)
    if provider == "auto" and chosen == "cuda" and _torch() is None:
        try:
            return _session_on(chosen, model, precision, side_by_side, whole=whole)
        except ProviderError as error:
            logger.warning("%s; everything runs on the processor", error)
            chosen = "cpu"
    return _session_on(chosen, model, precision, side_by_side, whole=whole)


def _session_on(
    chosen: str, model: bytes | Path, precision: Precision, side_by_side: int, *, whole: bool
) -> tuple[onnxruntime.InferenceSession, Runtime]:
    """See `make_session`; the provider is definite."""
    name = str(model) if isinstance(model, Path) else "the ONNX"
    if isinstance(model, Path) and not model.is_file():
        raise GraphError(f"{name}: no such ONNX file; run `dvc repro export`, or `dvc pull` it")
    settings = _settings(chosen, precision, whole=whole)
    if chosen != "cpu" and _torch() is None:
        onnxruntime.preload_dlls()
    try:
        session = onnxruntime.InferenceSession(
            str(model) if isinstance(model, Path) else model,
            sess_options=_options(chosen, side_by_side, whole=whole),
            providers=settings,
            # Its own second try elsewhere would be announced on stdout, and then refused here.
            enable_fallback=0,
        )
    except ORT_ERRORS as error:
        text = f"onnxruntime {onnxruntime.__version__}"
        if _EXTERNAL.search(str(error)):
            raise GraphError(
                f"{name}: {text} can't take the weights that it keeps in other files: {str(error).strip()}; expected whole "
                "files in the folder of the ONNX or below: put copies of them there, or export it as one file"
            ) from error
        if chosen == "cpu" or isinstance(error, _GRAPH_ERRORS):
            raise GraphError(f"{name}: {text} can't read it: {error}; is the file whole? Fetch or export it again") from error
        raise ProviderError(f"{name}: {text} can't make a session on {chosen!r}: {error}") from error
    used = session.get_providers()[0]
    if used != PROVIDERS[chosen]:
        raise ProviderError(
            f"{name}: asked for {PROVIDERS[chosen]}, but onnxruntime runs on {used}; its CUDA libraries don't load, or its CUDA "
            "major isn't torch's (`roiseg doctor` shows both)"
        )
    device = (cuda_device() or "unknown") if chosen != "cpu" else "cpu"
    return session, Runtime(chosen, precision, onnxruntime.__version__, device)


def run_model(
    session: onnxruntime.InferenceSession, path: Path, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """Run a session, and say which file it was where it doesn't come to an end.

    Args:
        session: of the file.
        path: the file, for messages.
        outputs: what is asked for; onnxruntime would take none for all.
        feeds: its inputs.

    Raises:
        GraphError: onnxruntime breaks off.
    """
    try:
        found: list[NDArray[Any]] = session.run(list(outputs), dict(feeds))
    except ORT_ERRORS as error:
        text = " ".join(str(error).split())
        given = ", ".join(f"{name} {list(values.shape)}" for name, values in feeds.items())
        raise GraphError(
            f"{path}: onnxruntime {onnxruntime.__version__} breaks off on {given}: {text}; expected files of one export, "
            "and memory for them: export them together again, or give fewer or smaller images"
        ) from error
    return found
