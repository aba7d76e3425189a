"""What the ROIs of an image know of each other.

Symbols: R ROIs, C channels, (h, w) cells, A attention heads.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RoiAttention(nn.Module):
    """Attention over the ROIs of one image, never across images (after Relation networks, section 3, and Transformer, section 3.2).

    An ROI speaks with the mean over its cells and with where its box lies; what it hears is added to all its cells. Time and memory
    grow with the square of the ROIs in a step.
    """

    def __init__(self, channels: int, *, heads: int, dropout: float) -> None:
        """Build the block.

        Args:
            channels: C, a multiple of `heads`.
            heads: A.
            dropout: share of the attention weights that training drops.
        """
        super().__init__()
        self.place = nn.Linear(4, channels)
        self.norm = nn.LayerNorm(channels)
        # A key's bias adds the same to all scores of a query, which softmax doesn't see.
        self.query, self.key = nn.Linear(channels, channels), nn.Linear(channels, channels, bias=False)
        self.value, self.out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)
        self._split = (heads, channels // heads)

    def forward(self, x: Tensor, boxes: Tensor) -> Tensor:
        """Every ROI, told of the others.

        Args:
            x: (R, C, h, w).
            boxes: (R, 5) of image number and xyxy in the unit frame.

        Returns:
            (R, C, h, w).
        """
        # onnxruntime's fused kernels divide by the number of ROIs, so one of no image, whom nobody hears, stands in front.
        boxes = F.pad(boxes, (0, 0, 1, 0), value=-1.0)
        said = F.pad(x.mean(dim=(2, 3)), (0, 0, 1, 0))
        tokens = self.norm(said + self.place(_centre_and_size(boxes)))  # [1 + R, C]
        query, key, value = (
            torch.unflatten(part, 1, self._split).transpose(0, 1)
            for part in (self.query(tokens), self.key(tokens), self.value(tokens))
        )  # [A, 1 + R, C / A]
        scores = torch.matmul(query, key.transpose(1, 2)) * self._split[1] ** -0.5  # [A, 1 + R, 1 + R]
        apart = boxes[:, 0][:, None] != boxes[:, 0][None, :]
        shares = self.dropout(scores.masked_fill(apart, float("-inf")).softmax(dim=2))
        heard = self.out(torch.matmul(shares, value).transpose(0, 1).flatten(1))  # [1 + R, C]
        told: Tensor = x + heard[1:, :, None, None]
        return told


def _centre_and_size(boxes: Tensor) -> Tensor:
    """(R, 4) of x and y of the centre, width and height, unit frame."""
    low, high = boxes[:, 1:3], boxes[:, 3:5]
    return torch.cat([(low + high) / 2, high - low], dim=1)
