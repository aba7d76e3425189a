"""The built-in sample: an invented data set in COCO format, and a small backbone with the layers of YOLOv9-E."""

from roiseg.sample.complexity import count_gflops
from roiseg.sample.generate import generate
from roiseg.sample.params import SampleParams

__all__ = ["SampleParams", "count_gflops", "generate"]
