"""The work folder of a run: its checkpoints, pictures and snapshots. One process writes them, all of a run read them."""

from collections.abc import Sequence
from pathlib import Path

from roiseg.files import write_bytes
from roiseg.train.checkpoint import (
    BEST,
    SNAPSHOTS,
    UNTRAINED,
    Checkpoint,
    by_epoch,
    checkpoint_name,
    load_checkpoint,
    newest,
    prune,
    save_checkpoint,
)
from roiseg.types import HW


class RunFolder:
    """Where a run keeps its files.

    A checkpoint in `checkpoints/` says that its epoch is done: whatever else belongs to the epoch is written before it.
    """

    def __init__(self, path: Path) -> None:
        """Look at a folder; nothing is made yet.

        Args:
            path: the folder.
        """
        self.path = path
        self.checkpoints, self.pictures, self._snapshots = path / "checkpoints", path / "pictures", path / "snapshots"

    def last(self) -> Checkpoint | None:
        """The checkpoint of the last finished epoch, or None.

        Raises:
            CheckpointError: it can't be read.
        """
        path = newest(self.checkpoints)
        return None if path is None else load_checkpoint(path)

    def put(self, name: str, source: Path) -> None:
        """A copy of a file under a name of this folder."""
        write_bytes(self.path / name, source.read_bytes())

    def save(
        self, checkpoint: Checkpoint, mask_hw: HW, score: float, keep: int | None, *, best: bool, snapshot: bool, phase: str | None
    ) -> None:
        """Write the checkpoint of an epoch, under all names that it goes by.

        Args:
            checkpoint: the epoch's.
            mask_hw: part of its name.
            score: part of its name, 0 to 1.
            keep: checkpoints to keep; None for all. The newest stays at least, for a killed run goes on from it.
            best: whether no epoch before was as good.
            snapshot: whether a cycle of the learning rate ends here.
            phase: name of the phase that ends here, or None.
        """
        if best:
            save_checkpoint(self.path / BEST, checkpoint)
        if snapshot:
            save_checkpoint(self._snapshots / f"snapshot_epoch_{checkpoint.epoch:04d}.pth", checkpoint)
        if phase is not None:
            save_checkpoint(self.checkpoints / f"progressive_epoch_{checkpoint.epoch:04d}_{phase}.pth", checkpoint)
        save_checkpoint(self.checkpoints / checkpoint_name(checkpoint.epoch, mask_hw, score), checkpoint)
        self.prune(keep)

    def prune(self, keep: int | None) -> None:
        """Delete what `keep` leaves out, see `save`; also what a killed run was just about to delete."""
        prune(self.checkpoints, None if keep is None else max(keep, 1))

    def snapshots(self) -> list[Path]:
        """Checkpoints of the ends of cycles, oldest first."""
        return sorted(self._snapshots.glob("snapshot_epoch_*.pth"))

    def to_publish(self, keep: int | None) -> Sequence[Path]:
        """Files of the trained head, relative to the folder.

        Args:
            keep: checkpoints of the last epochs among them; None for all.
        """
        found = by_epoch(self.checkpoints)
        kept = found if keep is None else found[len(found) - min(keep, len(found)) :]
        models = [self.path / name for name in (BEST, UNTRAINED, SNAPSHOTS)]
        phases = sorted(self.checkpoints.glob("progressive_epoch_*.pth"))
        return [path.relative_to(self.path) for path in (*models, *phases, *kept) if path.is_file()]
