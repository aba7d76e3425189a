"""Snapping on cached features of the detector: next to nothing beside the detector's own work.

Symbols: B images, R windows, C channels, (H, W) cells of a stored map, (h, w) cells of a window, n positions along it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from roiseg.nn.norms import GroupNorm
from roiseg.nn.roi_align import roi_align
from roiseg.snapper.decoders import EdgeDecoders, pool_means_and_peaks
from roiseg.snapper.maps import MapShape, check_maps
from roiseg.snapper.params import CachedModelParams
from roiseg.snapper.prior import RoughPrior


class CachedSnapper(nn.Module):
    """Stored maps, seen through windows, to four distributions.

    Attributes:
        shapes: layer -> shape of the maps that it takes.
    """

    def __init__(self, params: CachedModelParams, shapes: Mapping[str, MapShape]) -> None:
        """Build the model.

        Args:
            params: sub-section `snapper.model`.
            shapes: of each of its layers.
        """
        super().__init__()
        self.shapes = {name: shapes[name] for name in params.layers}
        self._roi_hw, self._sampling_ratio = params.roi_hw, params.sampling_ratio
        self.reduce = nn.ModuleList(nn.Conv2d(shapes[name].channels, params.layer_channels, 1) for name in params.layers)
        width = params.layer_channels * len(params.layers)
        layers: list[nn.Module] = [GroupNorm(len(params.layers), width), nn.ReLU()]
        for _ in range(params.convolutions):
            layers += [
                nn.Conv2d(width, params.mid_channels, 3, padding=1, bias=False),
                GroupNorm(params.groups, params.mid_channels),
                nn.ReLU(),
            ]
            width = params.mid_channels
        self.mix = nn.Sequential(*layers, nn.Dropout2d(params.dropout))
        self.decode = EdgeDecoders(2 * width, params.decoder_channels, params.roi_hw, params.positions)
        self.prior = RoughPrior(params.positions) if params.prior == "rough" else None

    def forward(self, features: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        """Logits.

        Args:
            features: layer -> (B, C, H, W) float32.
            windows: (R, 5 or 9), see `rough_edges`.

        Returns:
            (R, 4, n).

        Raises:
            StoreMismatchError: a map has another shape than the model was built for.
        """
        check_maps(features, self.shapes)
        parts = [
            roi_align(reduce(features[name]), windows[:, :5], self._roi_hw, self._sampling_ratio)
            for name, reduce in zip(self.shapes, self.reduce, strict=True)
        ]
        seen = self.mix(torch.cat(parts, dim=1))  # [R, C, h, w]
        logits: Tensor = self.decode(*pool_means_and_peaks(seen))
        return logits if self.prior is None else logits + self.prior(windows)
