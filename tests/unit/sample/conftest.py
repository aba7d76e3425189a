"""What the tests of the sample share."""

import pytest

from roiseg.sample.params import SampleParams


@pytest.fixture(scope="session")
def small_params() -> SampleParams:
    """A few small pictures, and a backbone that isn't trained."""
    return SampleParams(
        seed=3,
        train_images=8,
        val_images=8,
        image_hw=(240, 320),
        max_people=8,
        backbone_width=0.0625,
        backbone_images=1,
        backbone_steps=0,
    )
