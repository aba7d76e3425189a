"""roiseg: train light segmentation heads on the cached features of a frozen person detector."""

__version__ = "0.1.0"
