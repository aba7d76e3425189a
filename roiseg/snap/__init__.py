"""Rough boxes snapped to what they are around, by the files that `snapper_export` writes; neither torch nor training code."""

from roiseg.snap.snapper import SnappedBox, Snapper
from roiseg.snapper.policy import Policy

__all__ = ["Policy", "SnappedBox", "Snapper"]
