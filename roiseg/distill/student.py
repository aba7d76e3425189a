"""The net that is distilled, with what is there only while it learns."""

from collections.abc import Mapping

from torch import Tensor, nn

from roiseg.distill.features import FeatureAlignment
from roiseg.types import IMAGE
from roiseg.unet.person_unet import PersonUnet


class Student(nn.Module):
    """A net, and the alignment of its maps to the detector's, which is left out where the net is used.

    Attributes:
        net: the student itself.
        alignment: None where nothing is aligned.
    """

    def __init__(self, net: PersonUnet, alignment: FeatureAlignment | None) -> None:
        """Put both together.

        Args:
            net: see the class.
            alignment: see the class.
        """
        super().__init__()
        self.net, self.alignment = net, alignment

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits, and how far the maps are from the detector's.

        Args:
            features: `image` (B, 3, H, W) in [0, 1], and the detector's layers that are aligned to.

        Returns:
            (B, 1, h, w), and what `FeatureAlignment` says; nothing without one.
        """
        if self.alignment is None:
            return self.net(features[IMAGE]), {}
        logits, taps = self.net.taps(features[IMAGE], self.alignment.taps)
        return logits, self.alignment(taps, features)
