"""Losses: each returns its total and every part by name."""

from roiseg.losses.class_weights import class_weights
from roiseg.losses.mask_loss import MaskLoss
from roiseg.losses.outputs import check_outputs, needed_aux, needs_frames, taught_outputs
from roiseg.losses.params import LossParams

__all__ = ["LossParams", "MaskLoss", "check_outputs", "class_weights", "needed_aux", "needs_frames", "taught_outputs"]
