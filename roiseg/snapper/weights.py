"""Weights that the ResNet of the crop model starts from: torchvision's, or a file of them, read without running code in it."""

import re
from collections.abc import Mapping
from pathlib import Path

import torchvision
from torch import Tensor

from roiseg.errors import CheckpointError
from roiseg.unet.person_weights import COUNTED, SHOWN, read_weights

IMAGENET = "imagenet"
NO_WEIGHTS = "none"
KEY = "snapper.model.weights"
CLASSIFIER = "fc."

BLOCKS = {
    (False, 2): "resnet18",
    (False, 6): "resnet34",
    (True, 6): "resnet50",
    (True, 23): "resnet101",
    (True, 36): "resnet152",
}
"""Whether blocks are bottlenecks, and blocks in layer3, which tell the ResNets apart."""


def load_resnet(backbone: str, weights: str) -> torchvision.models.ResNet:
    """A ResNet with the weights that the params ask for; fresh ones are drawn from torch's generator.

    Args:
        backbone: such as `resnet50`.
        weights: `imagenet`, `none`, or a file.

    Raises:
        CheckpointError: a file is missing, torn, or of another net; or ImageNet's weights can't be fetched.
    """
    net: torchvision.models.ResNet = getattr(torchvision.models, backbone)(weights=None)
    if weights == IMAGENET:
        net.load_state_dict(_imagenet(backbone))
    elif weights != NO_WEIGHTS:
        path = Path(weights)
        _fill(net, read_weights(path, KEY), path, backbone)
    return net


def _imagenet(backbone: str) -> Mapping[str, Tensor]:
    """Weights from torchvision's page, or from its folder on this machine."""
    published = torchvision.models.get_model_weights(backbone).IMAGENET1K_V1
    try:
        found: Mapping[str, Tensor] = published.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise CheckpointError(
            f"{KEY} is 'imagenet', but the weights of {backbone} can't be fetched from {published.url} ({reason}); without a "
            "network, fetch that file elsewhere and give its PATH, or set it to 'none' and train from nothing"
        ) from error
    return found


def _fill(net: torchvision.models.ResNet, found: Mapping[str, Tensor], path: Path, backbone: str) -> None:
    """Put weights into a net, all of them but the classifier's.

    Raises:
        CheckpointError: names differ, or shapes.
    """
    here = {name: item for name, item in net.state_dict().items() if not name.startswith(CLASSIFIER)}
    inside = {name: item for name, item in found.items() if not name.startswith(CLASSIFIER)}
    faults = [
        f"{name} is {list(inside[name].shape)} there and {list(item.shape)} here"
        for name, item in here.items()
        if name in inside and inside[name].shape != item.shape
    ]
    lacking = [name for name in here if name not in inside and not name.endswith(COUNTED)]
    faults += [f"lacks {name} {list(here[name].shape)}" for name in lacking]
    faults += [f"holds {name} {list(inside[name].shape)}, which is unknown here" for name in inside if name not in here]
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        guess = guess_resnet(inside)
        advice = (
            f"The file seems to be of {guess}: set snapper.model.backbone to it, or name a file of {backbone}"
            if guess not in (None, backbone)
            else f"Name a file of torchvision's {backbone}"
        )
        raise CheckpointError(f"{path} ({KEY}): isn't of {backbone}: {'; '.join(faults[:SHOWN])}{more}. {advice}")
    net.load_state_dict({**net.state_dict(), **inside})


def guess_resnet(found: Mapping[str, Tensor]) -> str | None:
    """The ResNet whose blocks weights have, or None.

    Args:
        found: by torchvision's names.
    """
    blocks = {match[1] for name in found if (match := re.match(r"layer3\.(\d+)\.", name))}
    return BLOCKS.get(("layer1.0.conv3.weight" in found, len(blocks)))
