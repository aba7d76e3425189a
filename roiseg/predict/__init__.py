"""Masks of people in images, from the files that `export` writes; needs neither torch nor the training side of roiseg."""

from roiseg.predict.encoder import Encoded
from roiseg.predict.person import Detections, PersonMask
from roiseg.predict.predictor import Predictor

__all__ = ["Detections", "Encoded", "PersonMask", "Predictor"]
