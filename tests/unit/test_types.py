"""Tests of roiseg.types."""

import dataclasses

import pytest

from roiseg.types import FeatureSpec


def test_feature_spec_holds_its_values() -> None:
    spec = FeatureSpec("layer_34", 1024, (8.0, 16.0))
    assert (spec.name, spec.channels, spec.stride_hw) == ("layer_34", 1024, (8.0, 16.0))
    assert spec == FeatureSpec("layer_34", 1024, (8.0, 16.0))


def test_feature_spec_cannot_be_changed() -> None:
    spec = FeatureSpec("layer_34", 1024, (8.0, 8.0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.channels = 3  # type: ignore[misc]


@pytest.mark.parametrize("channels", [0, -4])
def test_feature_spec_without_channels_is_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=rf"'layer_3': channels is {channels}, expected at least 1"):
        FeatureSpec("layer_3", channels, (8.0, 8.0))
