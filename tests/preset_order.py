"""Presets that are laid over another one."""

from collections.abc import Mapping
from typing import Any

from roiseg.types import IMAGE

OF_CROPS = ("concat", "per_scale", "fpn_a", "fpn_b", "deeper_decoders", "learned_upsampling")


def below(name: str) -> list[str]:
    """What a preset wants below it."""
    if name.startswith("real-"):
        return ["real"]
    return ["snapper_original"] if name in {f"snapper_{of}" for of in OF_CROPS} else []


def reads_images(values: Mapping[str, Any]) -> bool:
    """Whether the main head or Snapper reads the stored images."""
    return IMAGE in values["model"].get("layers", []) or values["snapper"]["model"]["kind"] == "crop"
