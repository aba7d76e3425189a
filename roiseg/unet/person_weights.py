"""Weights that a U-net of people starts from: files of several makers, read without running code in them."""

import math
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from roiseg.errors import CheckpointError
from roiseg.unet.person_unet_params import IMAGENET, NO_WEIGHTS, UnetModelParams

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Fields under which trainers keep the weights beside the rest; `model` is roiseg's own."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What parallel, compiled and wrapping modules put before the names of weights."""

ENCODER = "encoder."
CLASSIFIER, ALIGNMENT = "classifier.", "alignment."
"""Of ImageNet's classes, in files of an encoder alone."""

UNREAD = ("conv_head.", "bn2.")
"""Parts of an encoder behind the last map that a U-net reads; a file may lack them."""

COUNTED = "num_batches_tracked"
"""Of norms, which old versions of torch didn't count."""

SHOWN = 4
"""Faults that a message spells out."""

STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Blocks in each stage of B0; the other encoders have a multiple of it, rounded up."""

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class _Asked:
    """What messages say of a file.

    Attributes:
        path: the file.
        key: dotted param that names it.
        encoder: that the net has.
        where: dotted path of the net's params.
    """

    path: Path
    key: str
    encoder: str
    where: str


def load_start(net: smp.Unet, params: UnetModelParams, where: str) -> None:
    """Give a fresh net the weights that its params ask for: of a whole net, of its encoder, or none.

    Args:
        net: `smp.Unet`, on the CPU; it is changed.
        params: of the net; with a checkpoint, `encoder_weights` is not looked at.
        where: dotted path of the params, for messages.

    Raises:
        CheckpointError: a file is missing, torn, or of another net; or ImageNet's weights can't be fetched.
    """
    if params.starts_whole:
        asked = _Asked(Path(params.checkpoint), f"{where}.checkpoint", params.encoder, where)
        _fill(net, read_weights(asked.path, asked.key), asked)
    elif params.encoder_weights == IMAGENET:
        net.encoder.load_state_dict(_imagenet(params.encoder, where))
    elif params.encoder_weights != NO_WEIGHTS:
        asked = _Asked(Path(params.encoder_weights), f"{where}.encoder_weights", params.encoder, where)
        found = read_weights(asked.path, asked.key)
        inside = {name.removeprefix(ENCODER): item for name, item in found.items() if name.startswith(ENCODER)}
        _fill(net.encoder, inside or found, asked)


def read_weights(path: Path, key: str) -> Weights:
    """Weights by their names within `smp.Unet` or its encoder, whatever they are wrapped in.

    Args:
        path: written by torch, or `.safetensors`.
        key: dotted param that names it, for messages.

    Raises:
        CheckpointError: missing, torn, or without weights.
    """
    data = _read(path, key)
    while isinstance(data, Mapping):
        inner = next((data[name] for name in WRAPPERS if isinstance(data.get(name), Mapping)), None)
        if inner is None:
            break
        data = inner
    tensors = {name: item for name, item in data.items() if isinstance(item, Tensor)} if isinstance(data, Mapping) else {}
    found: Weights = {}
    for name, item in tensors.items():
        bare = _bare(str(name))
        if bare in found:
            raise CheckpointError(
                f"{path} ({key}): holds {bare} twice, under other prefixes; expected the weights of one net: take the other out"
            )
        if not bare.startswith((CLASSIFIER, ALIGNMENT)):
            found[bare] = item
    if not found:
        fields = ", ".join(map(str, list(data)[:8])) if isinstance(data, Mapping) else ""
        held = f"a {type(data).__name__}" + f" of {fields}" * bool(fields)
        raise CheckpointError(
            f"{path} ({key}): holds no weights but {held}, expected tensors by name, bare or under "
            f"{', '.join(WRAPPERS)}; name another file"
        )
    return found


def _bare(name: str) -> str:
    """The name of a weight within its net."""
    while prefix := next((item for item in PREFIXES if name.startswith(item)), ""):
        name = name.removeprefix(prefix)
    return name


def _read(path: Path, key: str) -> Any:  # noqa: ANN401 - a file holds anything
    if not path.is_file():
        raise CheckpointError(f"{path} ({key}): no such file; fetch it (`dvc pull`, or a copy of yours), or name the right one")
    try:
        if path.suffix == ".safetensors":
            return load_file(path, device="cpu")
        with warnings.catch_warnings():
            # of old formats, which are read all the same
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        # What torch says is advice to load it unsafely, or nothing.
        raise CheckpointError(
            f"{path} ({key}): can't be read as weights (torn, not written by torch, or with more in it than tensors and plain "
            "values); fetch it again, or save its state dict alone by torch.save"
        ) from error


def _imagenet(encoder: str, where: str) -> Weights:
    """Weights of an encoder from the hub, or from the hub's folder on this machine."""
    try:
        with warnings.catch_warnings():
            # the name's deprecation, and that nobody is logged in
            warnings.simplefilter("ignore")
            found: Weights = smp.encoders.get_encoder(encoder, weights=IMAGENET).state_dict()
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        source = smp.encoders.encoders[encoder]["pretrained_settings"][IMAGENET]["repo_id"]
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise CheckpointError(
            f"{where}.encoder_weights is 'imagenet', but the weights of {encoder} can't be fetched from https://huggingface.co/"
            f"{source} ({reason}); without a network, fetch model.safetensors of that page elsewhere and give "
            "its PATH, or set it to 'none' and train the encoder from nothing (freeze_encoder false)"
        ) from error
    return found


def _fill(module: nn.Module, found: Weights, asked: _Asked) -> None:
    """Put weights into a module, all of them.

    Raises:
        CheckpointError: names differ, or shapes.
    """
    here = module.state_dict()
    faults = [
        f"{name} is {list(found[name].shape)} there and {list(item.shape)} here"
        for name, item in here.items()
        if name in found and found[name].shape != item.shape
    ]
    spare = tuple(prefix + name for prefix in ("", ENCODER) for name in UNREAD)
    lacking = [name for name in here if name not in found and not name.startswith(spare) and not name.endswith(COUNTED)]
    unknown = [name for name in found if name not in here]
    faults += [f"lacks {name} {list(here[name].shape)}" for name in lacking]
    faults += [f"holds {name} {list(found[name].shape)}, which is unknown here" for name in unknown]
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise CheckpointError(
            f"{asked.path} ({asked.key}): isn't of this net, whose encoder is {asked.encoder}: {'; '.join(faults[:SHOWN])}{more}. "
            + _advice(found, asked)
        )
    module.load_state_dict({**here, **found})


def _advice(found: Weights, asked: _Asked) -> str:
    encoder = guess_encoder(found)
    if encoder not in (None, asked.encoder):
        return f"The file seems to be of {encoder}: set {asked.where}.encoder to it, or name a file of {asked.encoder}"
    if encoder is not None and asked.key.endswith(".checkpoint") and not any(name.startswith(ENCODER) for name in found):
        return f"The file holds an encoder alone: name it in {asked.where}.encoder_weights instead"
    if encoder is not None:
        return f"Its encoder is right: set {asked.where}.decoder_channels to the file's, or name another file"
    return f"Name a file of a segmentation-models-pytorch U-net with {asked.encoder} and one class"


def guess_encoder(found: Mapping[str, Tensor]) -> str | None:
    """The encoder whose widths and depth the weights have, or None.

    Args:
        found: weights of a net or of an encoder, see `read_weights`.
    """
    inside = {name.removeprefix(ENCODER): item for name, item in found.items()}
    stem, last = inside.get("conv_stem.weight"), inside.get(f"blocks.{len(STAGES) - 1}.0.bn3.weight")
    if stem is None or last is None:
        return None
    depth = len({tuple(name.split(".")[1:3]) for name in inside if name.startswith("blocks.")})
    for name, known in smp.encoders.encoders.items():
        if name.startswith("timm-efficientnet-b"):
            params = known["params"]
            blocks = sum(math.ceil(count * params["depth_multiplier"]) for count in STAGES)
            if (len(stem), len(last), depth) == (params["out_channels"][1], params["out_channels"][-1], blocks):
                return str(name)
    return None
