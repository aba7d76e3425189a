"""Masks of people in images, from the files that `export` writes; needs neither torch nor the training side of roiseg."""

from roiseg.predict.predictor import PersonMask, Predictor

__all__ = ["PersonMask", "Predictor"]
