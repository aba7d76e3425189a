"""Masks of people in images, from the files that `export` writes; needs neither torch nor the training side of roiseg."""

from roiseg.predict.person import Detections, PersonMask
from roiseg.predict.predictor import Encoded, Predictor

__all__ = ["Detections", "Encoded", "PersonMask", "Predictor"]
