"""Statistics of the training people: what ROIs are made of, overlaps, sizes, and the class weights that follow."""

from roiseg.analyze.measure import ImageStats, measure_image, roi_windows
from roiseg.analyze.run import AnalyzeParams, analyze
from roiseg.analyze.summary import summarise
from roiseg.analyze.weights import frequency_class_weights, log_class_weights, separation_aware_weights

__all__ = [
    "AnalyzeParams",
    "ImageStats",
    "analyze",
    "frequency_class_weights",
    "log_class_weights",
    "measure_image",
    "roi_windows",
    "separation_aware_weights",
    "summarise",
]
