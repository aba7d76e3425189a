"""Noise on features, in training only."""

import torch
from torch import Tensor


class FeatureNoise:
    """Adds Gaussian noise to features, in proportion to how much each channel varies in the batch.

    The measure is taken from the batch, since the scale of an int8 channel follows its outliers and float16 has none; a channel
    that is the same everywhere stays so.
    """

    def __init__(self, strength: float) -> None:
        """Set up.

        Args:
            strength: standard deviation of the noise over that of the channel; 0 adds nothing and draws nothing.
        """
        self._strength = strength
        self._drawn: dict[str, Tensor] = {}

    def add(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add to features in place; draws from the global generator of their device.

        Args:
            features: layer -> (B, C, H, W) float32.

        Returns:
            The same.
        """
        if self._strength:
            for name, values in features.items():
                deviation = values.std(dim=(0, 2, 3), correction=0)[:, None, None]
                # One image's worth of memory, which stays: noise for all of them would double what a batch takes.
                if name not in self._drawn:
                    self._drawn[name] = torch.empty_like(values[0])
                for image in values:
                    image.addcmul_(self._drawn[name].normal_(), deviation, value=self._strength)
        return features
