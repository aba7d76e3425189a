"""The one place that makes an onnxruntime session, so that no model ever runs where nobody asked for it."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch  # loaded before onnxruntime makes a session: it brings the CUDA libraries
from numpy.typing import NDArray

from roiseg.errors import GraphError, ProviderError
from roiseg.extractor.graph import ORT_ERRORS, CutGraph, load_graph, read_metadata, tensor_digest
from roiseg.extractor.params import Precision, Provider

logger = logging.getLogger(__name__)

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider", "cpu": "CPUExecutionProvider"}


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


def choose_provider(provider: Provider) -> str:
    """`auto` made definite: a CUDA device if torch sees one, else the CPU.

    Raises:
        ProviderError: a GPU provider was asked for and there is no CUDA device.
    """
    has_cuda = torch.cuda.is_available()
    if provider == "auto":
        return "cuda" if has_cuda else "cpu"
    if provider != "cpu" and not has_cuda:
        raise ProviderError(
            f"extractor.provider is {provider!r}, but torch finds no CUDA device here; "
            "mend the driver, or set extractor.provider to 'auto' or 'cpu' to run on the processor"
        )
    return provider


def _provider_options(provider: str, precision: Precision) -> dict[str, str]:
    if provider == "cuda":
        if precision == "float16":
            raise ProviderError("extractor.precision is 'float16', which only 'tensorrt' has; use 'float32' or 'tf32' on 'cuda'")
        # One fixed batch shape, so the exhaustive search runs once and the choice can't change in the middle of a store.
        return {
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "cudnn_conv_use_max_workspace": "1",
            "use_tf32": str(int(precision == "tf32")),
        }
    if provider == "tensorrt":
        return {"trt_fp16_enable": str(precision == "float16")}
    if precision != "float32":
        raise ProviderError(f"extractor.precision is {precision!r}, but the processor computes in 'float32' only")
    return {}


def make_session(
    model: bytes | Path, provider: Provider, precision: Precision, side_by_side: int = 1
) -> tuple[onnxruntime.InferenceSession, Runtime]:
    """A session on the asked provider and no other.

    Args:
        model: serialised ONNX, or its file.
        provider: where to run.
        precision: arithmetic; `float32` is the only one of the CPU.
        side_by_side: how many runs share the processor's cores.

    Raises:
        ProviderError: the session would run somewhere else.
    """
    chosen = choose_provider(provider)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if chosen == "cpu":
        options.intra_op_num_threads = max(1, (os.cpu_count() or 1) // side_by_side)
        # Threads that wait by spinning take the cores from those that decode and compress.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    else:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    source = str(model) if isinstance(model, Path) else model
    settings = [(PROVIDERS[chosen], _provider_options(chosen, precision))]
    try:
        session = onnxruntime.InferenceSession(source, sess_options=options, providers=settings)
    except ORT_ERRORS as error:
        raise ProviderError(f"onnxruntime {onnxruntime.__version__} can't make a session on {chosen!r}: {error}") from error
    used = session.get_providers()[0]
    if used != PROVIDERS[chosen]:
        raise ProviderError(
            f"asked for {PROVIDERS[chosen]}, but onnxruntime runs on {used}; "
            "its CUDA major and torch's must be equal (`roiseg doctor` shows both)"
        )
    device = torch.cuda.get_device_name() if chosen != "cpu" else "cpu"
    return session, Runtime(chosen, precision, onnxruntime.__version__, device)


class Backbone:
    """A cut detector, ready to run. Runs may overlap in several threads."""

    def __init__(
        self,
        path: Path,
        provider: Provider,
        precision: Precision,
        scales: Mapping[str, NDArray[np.float32]] | None = None,
        side_by_side: int = 1,
    ) -> None:
        """Open a file that `roiseg.extractor.graph.cut` made.

        Args:
            path: the ONNX.
            provider: where to run.
            precision: arithmetic.
            scales: layer name -> (C,) float32, where the graph takes them as inputs (int8).
            side_by_side: runs that share the processor's cores; a GPU takes them one after the other.

        Raises:
            GraphError: not a cut graph, or int8 without scales for every layer.
            ProviderError: see `make_session`.
        """
        model = load_graph(path)
        self.info: CutGraph = read_metadata(model, path)
        self.digests = {layer.name: tensor_digest(model, layer.name) for layer in self.info.layers}
        self._scales = _scale_feeds(model, self.info, scales or {}, path)
        self._session, self.runtime = make_session(path, provider, precision, side_by_side)
        self.side_by_side = side_by_side if self.runtime.provider == "cpu" else 1

    def buffers(self, layers: Iterable[str], images: int) -> dict[str, NDArray[Any]]:
        """Layer -> (images, C, H, W) of the stored type, not filled; page-locked for a GPU, so that it writes there itself."""
        wanted = set(layers)
        kind = {"float16": torch.float16, "int8": torch.int8}[self.info.dtype]
        pinned = self.runtime.provider != "cpu"
        return {
            layer.name: torch.empty((images, layer.channels, *layer.hw), dtype=kind, pin_memory=pinned).numpy()
            for layer in self.info.layers
            if layer.name in wanted
        }

    def run_into(self, images: NDArray[np.float32], out: Mapping[str, NDArray[Any]], *, detect: bool) -> NDArray[Any] | None:
        """Run a batch into buffers; on a GPU nothing but their bytes comes back over the bus.

        Args:
            images: (N, 3, H, W) float32, as the input rule makes them.
            out: layer -> (N, C, H, W) of the stored type, contiguous; filled. Layers that aren't in it aren't computed.
            detect: whether the detector's own boxes are wanted.

        Returns:
            The raw detections, where the graph has them and they are wanted.
        """
        binding = self._session.io_binding()
        inputs = {self.info.input_name: np.ascontiguousarray(images), **self._scales}
        for name, values in inputs.items():
            binding.bind_input(name, "cpu", 0, values.dtype.type, values.shape, values.ctypes.data)
        for name, values in out.items():
            binding.bind_output(name, "cpu", 0, values.dtype.type, values.shape, values.ctypes.data)
        detections = self.info.detections if detect else None
        if detections:
            binding.bind_output(detections, "cpu")
        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = len(out) < len(self.info.layers)
        self._session.run_with_iobinding(binding, options)
        return np.asarray(binding.get_outputs()[-1].numpy()) if detections else None

    def __call__(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Run a batch.

        Args:
            images: (N, 3, H, W) float32, as the input rule makes them.

        Returns:
            Layer name -> (N, C, H, W) of the stored type; and the raw detections where the graph has them.
        """
        out = self.buffers(self.digests, len(images))
        detections = self.run_into(images, out, detect=True)
        return out | ({self.info.detections: detections} if self.info.detections and detections is not None else {})


def _scale_feeds(
    model: onnx.ModelProto, info: CutGraph, scales: Mapping[str, NDArray[np.float32]], path: Path
) -> dict[str, NDArray[np.float32]]:
    wanted = {item.name for item in model.graph.input if item.name != info.input_name}
    feeds = {f"{name}_scale": values.reshape(1, -1, 1, 1) for name, values in scales.items()}
    missing = wanted - set(feeds)
    if missing:
        raise GraphError(f"{path}: wants {', '.join(sorted(missing))}, which the scales lack; run `dvc repro calibrate`")
    return {name: values for name, values in feeds.items() if name in wanted}
