"""Learning a net that tells people from background in whole images."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from roiseg.batches import Loading, dequantise
from roiseg.cache.source import FeatureSource
from roiseg.evaluate.overlays import Picture
from roiseg.evaluate.pictures import FixedPicture
from roiseg.train.task import Task
from roiseg.types import HW, IMAGE, TEACHER
from roiseg.unet.augment import Augment
from roiseg.unet.data import PersonBatch, PersonDataset, training_batches, whole_batches
from roiseg.unet.metrics import LEAD, PersonMetrics
from roiseg.unet.person_loss import PersonLoss
from roiseg.unet.pictures import draw_people


class NetTask(Task):
    """A net, its loss, and the images that it learns from.

    Attributes:
        loss: returns its total and parts.
        train: training split.
        val: validation split.
    """

    lead, unit = LEAD, "images"
    thrift = "model.input_hw or model.decoder_channels in the section of the net, or take a smaller encoder"

    def __init__(
        self,
        fresh: Callable[[], nn.Module],
        loss: PersonLoss,
        train: PersonDataset,
        val: PersonDataset,
        augment: Augment,
        fixed: Sequence[FixedPicture] = (),
    ) -> None:
        """Put the task together.

        Args:
            fresh: makes the net: images -> logits.
            loss: see the class.
            train: see the class.
            val: see the class.
            augment: what happens to the colours of what is learnt from.
            fixed: pictures drawn each epoch.
        """
        self._fresh, self.loss, self.train, self.val = fresh, loss, train, val
        self._augment, self._fixed = augment, tuple(fixed)

    @property
    def stores(self) -> Mapping[str, FeatureSource]:
        """See `Task`."""
        return {"train": self.train.store, "val": self.val.store}

    @property
    def layers(self) -> Sequence[str]:
        """See `Task`."""
        return self.train.layers

    @property
    def mask_hw(self) -> HW:
        """See `Task`."""
        return self.train.mask_hw

    @property
    def images(self) -> int:
        """See `Task`."""
        return len(self.train.rows)

    @property
    def known_figures(self) -> Sequence[str]:
        """See `Task`."""
        return [LEAD, "miou_2class_pooled"]

    def build(self) -> nn.Module:
        """See `Task`."""
        return self._fresh()

    def batches(self, loading: Loading, seed: int, epoch: int) -> Iterator[PersonBatch]:
        """See `Task`."""
        return training_batches(self.train, loading, seed=seed, epoch=epoch, views=None, augment=self._augment)

    def largest(self, images: int) -> PersonBatch:
        """See `Task`."""
        shapes = self.train.store.shapes
        features = {name: torch.zeros((images, *shapes[name]), dtype=torch.int8) for name in self.layers}
        return PersonBatch([], features, torch.zeros(images, 1, *self.mask_hw))

    def losses(self, module: nn.Module, features: dict[str, Tensor], batch: PersonBatch, device: torch.device) -> dict[str, Tensor]:
        """See `Task`."""
        return self.loss(module(features[IMAGE]), batch.masks.to(device))

    def _logits(self, module: nn.Module, features: Mapping[str, Tensor]) -> Tensor:
        """(B, 1, h, w) of a module that `build` made."""
        logits: Tensor = module(features[IMAGE])
        return logits

    def _floats(self, batch: PersonBatch, device: torch.device, floats: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        scales = {name: torch.from_numpy(values) for name, values in self.val.store.scales.items()}
        return dequantise(batch.features, scales, device, floats)

    @torch.no_grad()
    def score(self, module: nn.Module, device: torch.device, loading: Loading) -> PersonMetrics:
        """See `Task`."""
        metrics, floats = PersonMetrics(), dict[str, Tensor]()
        for batch in whole_batches(self.val, loading):
            features = self._floats(batch, device, floats)
            metrics.add(self._logits(module, features), batch.masks.to(device))
        return metrics

    def figures(self, parts: Sequence[PersonMetrics]) -> dict[str, float]:
        """See `Task`."""
        return PersonMetrics.together(parts).figures()

    def draw(self, module: nn.Module, device: torch.device, title: str) -> Picture | None:
        """See `Task`."""
        if not self._fixed:
            return None

        def probability(batch: PersonBatch) -> Tensor:
            return self._logits(module, self._floats(batch, device)).sigmoid()

        def taught(batch: PersonBatch) -> Tensor:
            return self._floats(batch, device)[TEACHER].sigmoid()

        return draw_people(probability, self.val, self._fixed, title, taught if TEACHER in self.layers else None)
