"""Losses: each returns its total and every part by name."""

from roiseg.losses.mask_loss import LossParams, MaskLoss, class_weights

__all__ = ["LossParams", "MaskLoss", "class_weights"]
