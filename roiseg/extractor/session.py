"""A cut detector in an onnxruntime session."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from roiseg.cut_graph import CutGraph
from roiseg.errors import GraphError
from roiseg.extractor.graph import load_graph, read_metadata, tensor_digest
from roiseg.runtime import make_session
from roiseg.types import Precision, Provider


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
