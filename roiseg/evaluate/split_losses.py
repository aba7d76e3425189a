"""What a head loses on a whole split, outside of training.

Symbols: R ROIs, (h, w) cells of the mask.
"""

from collections.abc import Mapping

import torch
from torch import nn

from roiseg.batches import Loading, dequantise, whole_batches
from roiseg.classes import NON_TARGET, TARGET
from roiseg.dataset import RoiDataset
from roiseg.errors import PredictionError
from roiseg.evaluate.infer import head_outputs
from roiseg.losses import LossParams, MaskLoss, class_weights, needed_aux
from roiseg.losses.cascade import EARLIER
from roiseg.losses.region import cross_entropy_map, dice
from roiseg.progress import progress
from roiseg.train.checkpoint import Checkpoint
from roiseg.train.step import Sums

TRAINING_ONLY = ("full_map",)
"""Terms whose outputs a head gives only while it trains: it decodes the whole map then."""

PLAIN_SMOOTH = 1.0
"""Added above and below the fraction of the plain Dice loss, in mask pixels, whatever a head's own loss adds."""


def own_loss(params: LossParams, checkpoint: Checkpoint, statistics: Mapping[str, object], epochs: int) -> MaskLoss:
    """The loss of a checkpoint as it stood in its epoch, but for what only training can have.

    Args:
        params: section `loss`; `TRAINING_ONLY` is left out.
        checkpoint: gives the epoch.
        statistics: data_analyze.json, for the class weights.
        epochs: of the run that it comes from.
    """
    loss = MaskLoss(params.model_copy(update=dict.fromkeys(TRAINING_ONLY)), class_weights(params.class_weights, statistics))
    loss.begin_epoch(min(max(checkpoint.epoch - 1, 0) / max(epochs - 1, 1), 1.0))
    return loss


@torch.no_grad()
def split_losses(
    head: nn.Module,
    dataset: RoiDataset,
    loss: MaskLoss,
    params: LossParams,
    seen: Mapping[str, float],
    device: torch.device,
    loading: Loading,
) -> dict[str, float]:
    """Mean losses over the ROIs of a split.

    Args:
        head: on `device`, in eval mode.
        dataset: the split.
        loss: see `own_loss`.
        params: section `loss`.
        seen: what the loss has seen of its run, see `MaskLoss.state`; each batch begins with it, so that their order says nothing.
        device: where the head is.
        loading: batch size and threads.

    Returns:
        `loss_total`, by the loss of the run, whose weights differ from run to run; and two that compare across runs: `loss_ce`, the
        mean of -log p[y] over pixels, and `loss_dice`, the mean over ROIs and the classes 1 and 2 of 1 - Dice. Empty for no ROIs.

    Raises:
        PredictionError: one of them isn't finite.
    """
    scales = {name: torch.from_numpy(values) for name, values in dataset.store.scales.items()}
    wanted, sums, floats = [*sorted(needed_aux(params)), *EARLIER], Sums(), dict[str, torch.Tensor]()
    with progress("losses", int(dataset.index.rois_per_image[dataset.rows].sum())) as tick:
        for batch in whole_batches(dataset, loading):
            features = dequantise(batch.features, scales, device, floats)
            output, labels = head_outputs(head, features, batch.boxes.to(device), wanted), batch.targets.labels
            loss.load_state(seen)
            values = {
                "loss_total": loss(output, batch.targets)["total"],
                "loss_ce": cross_entropy_map(output.mask_logits, labels).mean(),
                "loss_dice": dice(output.mask_logits, labels, (TARGET, NON_TARGET), PLAIN_SMOOTH),
            }
            wrong = [f"{name} is {float(value)}" for name, value in values.items() if not bool(torch.isfinite(value))]
            if wrong:
                images = ", ".join(str(dataset.index.image_ids[row]) for row in batch.rows)
                raise PredictionError(
                    f"{', '.join(wrong)} on the images with ids {images}, expected numbers; the weights are spoilt: take an "
                    "earlier checkpoint, or train again with a lower train.lr"
                )
            sums.add(values, len(batch.numbers))
            tick(len(batch.numbers))
    return sums.means()
