"""An exported head that is called like a trained one, so that what scores a head scores a file too.

Symbols: N images, R ROIs, C channels, (H, W) cells of a layer, (h, w) cells of the mask.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from roiseg.errors import GraphError
from roiseg.nn.outputs import HeadOutput
from roiseg.onnx_names import BOXES, OUTPUT, feature_input
from roiseg.runtime import make_session
from roiseg.types import Provider


class OnnxHead(nn.Module):
    """A head file in onnxruntime behind the interface of a head; without weights of its own, without gradients."""

    def __init__(self, path: Path, provider: Provider = "cpu") -> None:
        """Open a file that `roiseg.export.onnx.export_head` made, or a variant of it.

        Args:
            path: the file.
            provider: where to run.

        Raises:
            GraphError: not the interface of a head.
            ProviderError: onnxruntime doesn't take the file, or would run it somewhere else.
        """
        super().__init__()
        self._session, self.runtime = make_session(path, provider, "float32", whole=False)
        self._inputs = [item.name for item in self._session.get_inputs()]
        outputs = [item.name for item in self._session.get_outputs()]
        prefix = feature_input("")
        if OUTPUT not in outputs or BOXES not in self._inputs or not all(n == BOXES or n.startswith(prefix) for n in self._inputs):
            raise GraphError(
                f"{path}: takes {', '.join(self._inputs)} and gives {', '.join(outputs)}, expected {prefix}LAYER of each layer and "
                f"{BOXES}, and {OUTPUT} among what it gives; take a file of models/onnx/HEAD that `dvc repro export` wrote"
            )
        self.layers = [name.removeprefix(prefix) for name in self._inputs if name != BOXES]

    @torch.no_grad()
    def forward(self, features: Mapping[str, Tensor], boxes: Tensor) -> HeadOutput:
        """What the file says of R ROIs.

        Args:
            features: layer -> (N, C, H, W) float32; those that the file doesn't take are left aside.
            boxes: (R, 5) float32 of image number and xyxy in the unit frame.

        Returns:
            `mask_logits` (R, 3, h, w) float32 on the CPU: logarithms of the probabilities, of the smallest normal float32 at least.

        Raises:
            GraphError: a layer is missing.
        """
        missing = [name for name in self.layers if name not in features]
        if missing:
            raise GraphError(f"features lack {', '.join(missing)}, which the file takes; give them beside {', '.join(features)}")
        feeds = {feature_input(name): features[name].cpu().numpy() for name in self.layers} | {BOXES: boxes.cpu().numpy()}
        (masks,) = self._session.run([OUTPUT], feeds)
        return HeadOutput(torch.from_numpy(masks).clamp_min(torch.finfo(torch.float32).tiny).log(), {})
