"""What a model makes of the boxes of a split."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from roiseg.batches import Loading, dequantise
from roiseg.geometry import Floats
from roiseg.snapper.data import SnapBatch, SnapDataset, whole_batches
from roiseg.snapper.edges import EdgeDecision, decide
from roiseg.snapper.params import DecisionParams
from roiseg.snapper.results import SnapResults
from roiseg.snapper.windows import out_of_windows, to_image
from roiseg.types import MAX_ROIS


@torch.no_grad()
def edge_decisions(module: nn.Module, features: Mapping[str, Tensor], windows: Tensor, decision: DecisionParams) -> EdgeDecision:
    """Edges of all windows, in passes of at most `MAX_ROIS`, on the CPU.

    Args:
        module: in eval mode.
        features: layer -> (B, C, H, W) float32, on the module's device.
        windows: (R, 9), on the same.
        decision: sub-section `snapper.decision`.
    """
    parts = [decide(module(features, part).float(), decision) for part in torch.split(windows, MAX_ROIS)]
    found = (torch.cat([getattr(part, name) for part in parts]).cpu() for name in ("edges", "peak", "entropy"))
    return EdgeDecision(*found)


def snap_results(
    module: nn.Module,
    dataset: SnapDataset,
    decision: DecisionParams,
    device: torch.device,
    loading: Loading,
    rows: Sequence[int] | None = None,
) -> Iterator[SnapResults]:
    """Results of every batch of a split, in row order; features are read once.

    Args:
        module: on `device`, in eval mode.
        dataset: the split.
        decision: sub-section `snapper.decision`.
        device: where the model is.
        loading: batch size, threads, share.
        rows: which images; None: those that have boxes.
    """
    scales = {name: torch.from_numpy(values) for name, values in dataset.store.scales.items()}
    floats: dict[str, Tensor] = {}
    for batch in whole_batches(dataset, loading, rows):
        features = dequantise(batch.features, scales, device, floats)
        yield results_of(dataset, batch, edge_decisions(module, features, batch.windows.to(device), decision))


def results_of(dataset: SnapDataset, batch: SnapBatch, found: EdgeDecision) -> SnapResults:
    """A batch of plain views and what a model decided of it, in the image frame.

    Args:
        dataset: it is of.
        batch: of R boxes.
        found: of the same.
    """
    counts = [len(sample.truth) for sample in batch.samples]
    hws = [dataset.index.resize(sample.row).image_hw for sample in batch.samples]

    def in_image(parts: Sequence[Floats]) -> Floats:
        return np.concatenate([to_image(part, hw) for part, hw in zip(parts, hws, strict=True)])

    windows = in_image([sample.windows for sample in batch.samples])
    return SnapResults(
        np.repeat(np.array([sample.row for sample in batch.samples], dtype=np.int64), counts),
        np.concatenate([sample.annotation_ids for sample in batch.samples]),
        np.repeat(np.array(hws, dtype=np.int64), counts, axis=0),
        in_image([sample.truth for sample in batch.samples]),
        in_image([sample.rough for sample in batch.samples]),
        windows,
        out_of_windows(found.edges.double().numpy(), windows),
        found.peak.double().numpy(),
        found.entropy.double().numpy(),
    )
