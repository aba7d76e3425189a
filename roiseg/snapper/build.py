"""Both models behind one contract: `module(features, windows) -> logits (R, 4, n)`."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from roiseg.snapper.cached_model import CachedSnapper
from roiseg.snapper.checks import check_model, snapper_layers
from roiseg.snapper.crop_model import CropSnapper
from roiseg.snapper.maps import MapShape
from roiseg.snapper.params import CropModelParams, SnapModelParams
from roiseg.snapper.weights import NO_WEIGHTS, load_resnet
from roiseg.train.checkpoint import load_checkpoint
from roiseg.trained import load_weights
from roiseg.types import HW, IMAGE, FeatureSpec


def build_snapper(model: SnapModelParams, specs: Mapping[str, FeatureSpec], image_hw: HW, *, weights: bool = True) -> nn.Module:
    """A model; fresh weights are drawn from torch's generator.

    Args:
        model: sub-section `snapper.model`.
        specs: what the store holds.
        image_hw: size of the network input.
        weights: false for a model that gets its weights from a checkpoint of this run: nothing is read or fetched.

    Returns:
        features: layer -> (B, C, H, W) float32, windows (R, 5) of image number and xyxy in the unit frame -> logits (R, 4, n).

    Raises:
        ParamsError: see `check_model`.
        CheckpointError: see `load_resnet`.
    """
    check_model(model)
    shapes = {name: MapShape.of(specs[name], image_hw) for name in snapper_layers(model)}
    if isinstance(model, CropModelParams):
        return CropSnapper(model, shapes[IMAGE], load_resnet(model.backbone, model.weights if weights else NO_WEIGHTS))
    return CachedSnapper(model, shapes)


def load_snapper(path: Path, model: SnapModelParams, specs: Mapping[str, FeatureSpec], image_hw: HW) -> nn.Module:
    """A trained model in eval mode, on the CPU.

    Args:
        path: checkpoint of roiseg.
        model: what it is.
        specs: what the store holds.
        image_hw: size of the network input.

    Raises:
        CheckpointError: it isn't there, or is of another model.
    """
    module = build_snapper(model, specs, image_hw, weights=False)
    remedy = "give the section `snapper.model` that it was trained with, or run `dvc repro snapper_train`"
    load_weights(module, load_checkpoint(path).model, path, remedy)
    return module.eval()
