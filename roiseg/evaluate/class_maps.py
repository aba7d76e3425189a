"""Class maps of all ROIs on disk, so that the few that are shown need no second look by the head.

Symbols: R ROIs of a batch, (h, w) cells of the mask.
"""

from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from roiseg.classes import Labels
from roiseg.types import HW


class ClassMaps:
    """What is annotated and predicted of each ROI, two bytes a cell, in a file without a name that goes when it is closed."""

    def __init__(self, folder: Path, mask_hw: HW) -> None:
        """Begin.

        Args:
            folder: on a disk with room, such as that of the outs; made if it isn't there.
            mask_hw: (h, w).
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file = TemporaryFile(dir=folder)
        self._shape = (2, *mask_hw)

    def add(self, labels: NDArray[np.integer], predicted: NDArray[np.integer]) -> None:
        """Append a batch: two (R, h, w) of 0, 1, 2."""
        pairs = np.stack([labels, predicted], axis=1).astype(np.uint8)
        self._file.write(pairs.tobytes())

    def read(self, position: int) -> tuple[Labels, Labels]:
        """Annotated and predicted classes (h, w) of the ROI that came as number `position`, from 0."""
        size = int(np.prod(self._shape))
        self._file.seek(position * size)
        pair = np.frombuffer(self._file.read(size), dtype=np.uint8).reshape(self._shape)
        return pair[0], pair[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
