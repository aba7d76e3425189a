"""How wrong four distributions are (spec 21.5).

Symbols: R boxes, n positions along a window.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from roiseg.snapper.edges import decide
from roiseg.snapper.params import DecisionParams, SnapLossParams
from roiseg.snapper.targets import edge_targets


class SnapLoss:
    """Loss of the edges, summed over the four, and of the box that they make; means over boxes."""

    def __init__(self, params: SnapLossParams, decision: DecisionParams) -> None:
        """Take the params.

        Args:
            params: sub-section `snapper.loss`.
            decision: its reach says which box the distributions make; always by expectation, since an arg-max has no gradient.
        """
        self._params = params
        self._decision = decision.model_copy(update={"rule": "expectation"})

    def __call__(self, logits: Tensor, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Losses.

        Args:
            logits: (R, 4, n), R > 0.
            targets: (R, 4) true edges, window frame, in [0, 1].
            weights: (R,) of the boxes. A loss is the mean over R of weight times loss, so that boxes of less weight make it smaller
                rather than the others larger.

        Returns:
            `total`; `edges`, and `giou` where there is such a term, without their coefficients.
        """
        wanted = edge_targets(targets, logits.shape[-1], self._params)
        if self._params.form == "bce":
            each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=-1)  # [R, 4]
        else:
            each = -(wanted * logits.log_softmax(dim=-1)).sum(dim=-1)
        edges = (each.sum(dim=-1) * weights).mean()
        if not self._params.giou:
            return {"total": edges, "edges": edges}
        giou = (box_giou_loss(decide(logits, self._decision).edges, targets) * weights).mean()
        return {"total": edges + self._params.giou * giou, "edges": edges, "giou": giou}


def box_giou_loss(boxes: Tensor, truth: Tensor) -> Tensor:
    """1 minus the generalised IoU (Rezatofighi et al. 2019, algorithm 1) of boxes one with one.

    Args:
        boxes: (R, 4) left, top, right, bottom of any frame; edges that have changed sides are taken as the box between them.
        truth: (R, 4) xyxy of the same frame.

    Returns:
        (R,) in [0, 2].
    """
    low, high = torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])
    loss: Tensor = generalized_box_iou_loss(torch.cat([low, high], dim=1), truth)
    return loss
