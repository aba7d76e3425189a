"""`roiseg doctor`: what this machine has, what the params ask for, and whether the two fit. Changes nothing."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime
import pandas as pd
import torch
from onnx import TensorProto, helper

from roiseg.cache.layout import stored_arrays
from roiseg.cache.params import CacheParams
from roiseg.cache.space import check_space, estimate_bytes, links_into
from roiseg.coco import DataParams
from roiseg.distill.params import DistillParams
from roiseg.errors import DiskSpaceError, ProviderError, RoisegError
from roiseg.extractor.graph import load_graph, read_metadata
from roiseg.extractor.params import ExtractorParams
from roiseg.params import PARAMS_FILE, load_section, read_yaml
from roiseg.runtime import PROVIDERS, make_session
from roiseg.schema import check_params
from roiseg.trained import FEATURES, INDEX
from roiseg.unet.params import UnetParams
from roiseg.work import dvc_cache

State = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: `bad` stops a run, `note` may surprise.
        what: the thing.
        text: what was found, and the remedy.
    """

    state: State
    what: str
    text: str


def examine() -> Iterator[Finding]:
    """Look at everything, in the order in which a run would meet it; a fault of one part hides no other."""
    checks: list[Callable[[], Iterator[Finding]]] = [_versions, _gpu, _providers, _params, _files, _dvc, _space]
    for check in checks:
        try:
            yield from check()
        except RoisegError as error:
            yield Finding("bad", check.__name__.strip("_"), f"{type(error).__name__}: {error}")


def _versions() -> Iterator[Finding]:
    parts = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}
    spelled = ", ".join(f"{name} {value}" for name, value in parts.items())
    yield Finding("good", "python", f"{platform.python_version()}, {spelled}")


def _gpu() -> Iterator[Finding]:
    ours, theirs = torch.version.cuda, getattr(onnxruntime, "cuda_version", "") or None
    if not torch.cuda.is_available():
        yield Finding("note", "gpu", f"torch (CUDA {ours}) finds none; everything runs on the processor")
        return
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    room = f"{free / 1e9:.0f} of {total / 1e9:.0f} GB free"
    yield Finding("good", "gpu", f"{name}, {room}; torch is built for CUDA {ours}, onnxruntime for {theirs or 'none'}")
    if theirs and str(ours).split(".")[0] != str(theirs).split(".")[0]:
        yield Finding("bad", "gpu", "their CUDA major versions differ; install wheels of one")


def _tiny_model() -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "tiny", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def _providers() -> Iterator[Finding]:
    """Providers that a session really gets; onnxruntime also lists those whose libraries are missing."""
    wanted = load_section(ExtractorParams, "extractor").provider
    loaded = []
    faults = {}
    for name in PROVIDERS:
        try:
            make_session(_tiny_model(), name, "float32")  # type: ignore[arg-type]
            loaded.append(name)
        except ProviderError as error:
            faults[name] = str(error)
    yield Finding("good", "providers", f"{', '.join(loaded)} load; extractor.provider is {wanted!r}")
    if wanted != "auto" and wanted not in loaded:
        yield Finding("bad", "providers", faults[wanted])


def _params() -> Iterator[Finding]:
    check_params(read_yaml(PARAMS_FILE))
    yield Finding("good", "params", f"{PARAMS_FILE}: no fault")


def _files() -> Iterator[Finding]:
    data, extractor = load_section(DataParams, "data"), load_section(ExtractorParams, "extractor")
    wanted = {"extractor.onnx": extractor.onnx}
    for split in ("train", "val"):
        wanted |= {f"data.{split}.images": data.split(split).images, f"data.{split}.annotations": data.split(split).annotations}
    nets = {"unet": load_section(UnetParams, "unet").model, "distill": load_section(DistillParams, "distill").model}
    for section, model in nets.items():
        wanted |= {f"{section}.model.{key}": path for key, path in model.start_paths.items()}
    for key, path in wanted.items():
        if Path(path).exists():
            continue
        if Path(path).is_relative_to("data/sample"):
            yield Finding("note", "files", f"{key}: {path} isn't there yet; `dvc repro` draws it")
            continue
        yield Finding("bad", "files", f"{key}: {path} isn't there; put it there, or set {key} in {PARAMS_FILE}")
    found = [key for key, path in wanted.items() if Path(path).exists()]
    yield Finding("good", "files", f"there: {', '.join(found) or 'none'}")


def _dvc() -> Iterator[Finding]:
    cache = dvc_cache()
    if not Path(".dvc").is_dir():
        yield Finding("bad", "dvc", "no .dvc folder here; run from the root of the repository")
    elif links_into(cache, Path()):
        yield Finding("good", "dvc", f"{cache}: hard links work, `dvc repro` copies no features")
    else:
        text = f"{cache} is on another file system: DVC copies every out; set cache.dir to a folder beside the repository"
        yield Finding("note", "dvc", text)


def _space() -> Iterator[Finding]:
    backbone, cache = Path("data/backbone.onnx"), load_section(CacheParams, "cache")
    if not backbone.is_file():
        yield Finding(
            "note", "space", f"{backbone} isn't there yet, so the size of the stores isn't known; run `dvc repro backbone`"
        )
        return
    info = read_metadata(load_graph(backbone), backbone)
    arrays = stored_arrays(info.layers, info.input_hw, cache)
    copies = 1 if links_into(dvc_cache(), Path()) else 2
    sizes: dict[str, Any] = {}
    for split in ("train", "val"):
        table, store = INDEX / split / "images.parquet", FEATURES / f"{split}.zarr"
        if table.is_file() and not store.is_dir():
            sizes[split] = estimate_bytes(arrays, len(pd.read_parquet(table, columns=["row"])), cache)
    if not sizes:
        yield Finding("good", "space", "no store is left to be written")
        return
    spelled = ", ".join(f"{split} {size / 1e9:.2f} GB" for split, size in sizes.items())
    try:
        check_space(Path(), sum(sizes.values()), copies)
    except DiskSpaceError as error:
        yield Finding("bad", "space", str(error))
        return
    yield Finding("good", "space", f"stores to be written: {spelled}; they fit")
