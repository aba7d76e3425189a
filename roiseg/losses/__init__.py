"""Losses: each returns its total and every part by name."""

from roiseg.losses.class_weights import class_weights
from roiseg.losses.mask_loss import MaskLoss
from roiseg.losses.params import LossParams, needed_aux

__all__ = ["LossParams", "MaskLoss", "class_weights", "needed_aux"]
