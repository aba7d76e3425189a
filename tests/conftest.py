"""What all tiers of tests share: one thread each, and hypothesis runs that are the same every time."""

import cv2
import pytest
import torch
from hypothesis import settings

cv2.setNumThreads(1)
torch.set_num_threads(1)

settings.register_profile("roiseg", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("roiseg")


def pytest_configure(config: pytest.Config) -> None:
    """Let pass the one warning that a dependency gives at each call: `pycocotools.mask.decode` predates numpy 2."""
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
