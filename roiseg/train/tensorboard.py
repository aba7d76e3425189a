"""TensorBoard's event files, for those who have it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from roiseg.errors import PackageError
from roiseg.params import Section
from roiseg.train.log import Row, scalars

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class WatchParams(Section):
    """Section `watch`."""

    tensorboard: bool


class TensorBoard:
    """Writes the figures of every epoch as scalars in the groups `train`, `val` and `weights`."""

    def __init__(self, folder: Path) -> None:
        """See that the package is there; nothing is written before the run begins.

        Args:
            folder: `logs/tensorboard/{head}`.

        Raises:
            PackageError: it isn't.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise PackageError(
                f"watch.tensorboard is true, but {error.name or 'tensorboard'!r} isn't installed; run "
                "`uv sync --extra tensorboard` (or `pip install tensorboard`), or set watch.tensorboard to false"
            ) from error
        self._make = SummaryWriter
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def begin(self, rows: Sequence[Row]) -> None:
        """Void all that earlier runs wrote in this folder, and write the rows of this one.

        The rows come again and aren't trusted to be there: a kill may have met the run between its checkpoint and its events.
        """
        self._writer = self._make(str(self._folder), purge_step=0)
        for row in rows:
            self._write(self._writer, row)

    def epoch(self, rows: Sequence[Row]) -> None:
        """Write the last row."""
        if self._writer is None:
            raise RuntimeError("TensorBoard.epoch before begin")
        self._write(self._writer, rows[-1])

    def end(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, writer: "SummaryWriter", row: Row) -> None:
        for name, value in scalars(row).items():
            writer.add_scalar(name, value, int(row["epoch"]))
        writer.flush()
