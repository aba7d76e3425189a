"""U-nets that tell people from background in a whole image: EfficientNet encoders behind their own normalisation.

Symbols: N images, (H, W) pixels of an image, (h, w) pixels of the net's input, C channels.
"""

import warnings
from collections.abc import Sequence
from itertools import chain

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from roiseg.errors import ParamsError, StoreMismatchError
from roiseg.types import HW
from roiseg.unet.grid import axis_weights
from roiseg.unet.person_unet_params import UnetModelParams, check_start
from roiseg.unet.person_weights import load_start

TAPS = range(1, 6)
"""Maps of the encoder that can be tapped, from stride 2 to stride 32; 0 would be the image."""


class PersonUnet(nn.Module):
    """One logit a pixel: is a person there?

    Parts whose parameters all stand still are in eval mode even in training: a norm that goes on counting, or a block that is
    dropped at random, would change what the others learn on.

    Attributes:
        net: encoder, decoder and one logit; its parameters are all that the module has.
        image_hw: (H, W) of the images that are given.
        input_hw: (h, w) that the net sees them at, and of its logits.
    """

    net: smp.Unet
    mean: Tensor
    std: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, net: smp.Unet, image_hw: HW, input_hw: HW, mean: Sequence[float], std: Sequence[float]) -> None:
        """Put a net behind the way from the image to its input.

        Args:
            net: `smp.Unet` of one class.
            image_hw: (H, W).
            input_hw: (h, w).
            mean: of the normalisation, for R, G and B in [0, 1].
            std: of the same.
        """
        super().__init__()
        self.net, self.image_hw, self.input_hw = net, image_hw, input_hw
        # Not part of the weights: params say them.
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1), persistent=False)
        self._resized = tuple(there != here for there, here in zip(image_hw, input_hw, strict=True))
        for name, there, here in zip(("rows", "columns"), image_hw, input_hw, strict=True):
            self.register_buffer(name, axis_weights(there, here).clone() if there != here else torch.empty(0), persistent=False)
        # Behind the last map that a U-net reads: never used, so never learnt.
        for part in (net.encoder.conv_head, net.encoder.bn2):
            part.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of people.

        Args:
            image: (N, 3, H, W) float32 RGB in [0, 1].

        Returns:
            (N, 1, h, w).

        Raises:
            StoreMismatchError: the image has another size than the net was built for.
        """
        logits, _ = self.taps(image, ())
        return logits

    def taps(self, image: Tensor, indices: Sequence[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """Logits, and maps of the encoder from the same pass.

        Args:
            image: (N, 3, H, W) float32 RGB in [0, 1].
            indices: of the maps, 1 to 5: map i has stride 2 ** i of the net's input, see `tap_channels`.

        Returns:
            (N, 1, h, w); and index -> (N, C, h / 2 ** index, w / 2 ** index).

        Raises:
            StoreMismatchError: the image has another size than the net was built for.
        """
        maps = self.net.encoder(self._input(image))
        logits: Tensor = self.net.segmentation_head(self.net.decoder(maps))
        return logits, {index: maps[index] for index in indices}

    def tap_channels(self, index: int) -> int:
        """C of a map of the encoder.

        Raises:
            ParamsError: there is no such map.
        """
        if index not in TAPS:
            raise ParamsError(
                f"tap {index}: the encoder has no such map, expected {TAPS[0]} (stride 2) to {TAPS[-1]} (stride 32); "
                "3 is the map of stride 8"
            )
        return int(self.net.encoder.out_channels[index])

    def _input(self, image: Tensor) -> Tensor:
        """What the net itself takes: (N, 3, H, W) in [0, 1] -> (N, 3, h, w), normalised."""
        image_hw = (image.shape[2], image.shape[3])
        if image_hw != self.image_hw:
            raise StoreMismatchError(
                f"the U-net was built for images of {list(self.image_hw)} and is given {list(image_hw)}; build it for the size "
                "of the network input of the store (extractor.input_hw)"
            )
        if self._resized[0]:
            image = self.rows @ image
        if self._resized[1]:
            image = image @ self.columns.T
        return (image - self.mean) / self.std

    def encoder_blocks(self) -> list[nn.Module]:
        """The seven blocks of the encoder, deepest first."""
        return list(self.net.encoder.blocks)[::-1]

    def stem(self) -> list[nn.Module]:
        """What comes before the blocks: a convolution and its norm."""
        return [self.net.encoder.conv_stem, self.net.encoder.bn1]

    def freeze_encoder(self) -> None:
        """Let the encoder stand still, norms too."""
        self.net.encoder.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "PersonUnet":
        """As torch's, but that what stands still stays in eval mode."""
        super().train(mode)
        for part in chain(self.stem(), self.encoder_blocks(), (self.net.decoder, self.net.segmentation_head)):
            if not any(item.requires_grad for item in part.parameters()):
                part.eval()
        return self


def build_person_unet(
    params: UnetModelParams, image_hw: HW, *, where: str, unfrozen_later: bool = False, weights: bool = True
) -> PersonUnet:
    """A U-net with the weights that it starts from; fresh ones are drawn from torch's generator.

    Args:
        params: of the net.
        image_hw: size of the images that it will be given.
        where: dotted path of the params, for messages.
        unfrozen_later: whether training unfreezes what starts frozen.
        weights: false for a net that gets its weights from a checkpoint of this run: nothing is read or fetched.

    Raises:
        ParamsError: an encoder that never learnt, and never will.
        CheckpointError: see `roiseg.unet.person_weights.load_start`.
    """
    if weights:
        check_start(params, where, unfrozen_later=unfrozen_later)
    with warnings.catch_warnings():
        # The names are those of the published weights; the version is pinned.
        warnings.filterwarnings("ignore", "`timm-` encoders are deprecated", DeprecationWarning)
        net = smp.Unet(params.encoder, encoder_weights=None, decoder_channels=params.decoder_channels, classes=1)
    if weights:
        load_start(net, params, where)
    unet = PersonUnet(net, image_hw, params.input_hw, params.mean, params.std)
    if params.freeze_encoder:
        unet.freeze_encoder()
    return unet
