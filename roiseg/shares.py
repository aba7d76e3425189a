"""How much of each ROI other people cover: its class-2 share, out of the table that `analyze` writes.

Symbols: N images, R ROIs of all of them, r of one image.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from roiseg.errors import AnnotationError, ParamsError
from roiseg.index import Index

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]


def check_padding(measured: float, roi_padding: float) -> None:
    """See that statistics and sampler speak of the same ROIs.

    Args:
        measured: padding that `analyze` measured, or would measure, ROIs with.
        roi_padding: `dataset.roi_padding` of the head.

    Raises:
        ParamsError: they differ.
    """
    if not math.isclose(measured, roi_padding, rel_tol=1e-9, abs_tol=1e-12):
        raise ParamsError(
            f"sampler: ROIs are measured with a padding of {measured:g} (analyze.padding; null takes dataset.roi_padding of "
            f"params.yaml), but drawn with dataset.roi_padding {roi_padding:g}, expected one for both; set analyze.padding to null "
            "and dataset.roi_padding in params.yaml, or sampler.non_target_gamma to 0.0 and sampler.balance to none"
        )


class RoiShares:
    """The class-2 share of each ROI of a split: pixels of other people over all pixels of the ROI, from 0 to 1."""

    def __init__(self, shares: Floats32, rois_per_image: Ints) -> None:
        """Hold them.

        Args:
            shares: (R,) in the order of the index.
            rois_per_image: (N,) of the index; sums to R.
        """
        self._shares = shares
        self._starts = np.concatenate([[0], np.cumsum(rois_per_image)])

    @classmethod
    def read(cls, path: Path, index: Index, roi_padding: float) -> "RoiShares":
        """Those of an index out of `data/rois.parquet`, which may hold more people.

        Args:
            path: the table.
            index: of the training split.
            roi_padding: `dataset.roi_padding`.

        Raises:
            AnnotationError: there is no such table, or people of the index aren't in it.
            ParamsError: it was measured with another padding.
        """
        columns = ["image_id", "annotation_id", "n_non_target", "area", "padding"]
        try:
            table = pd.read_parquet(path, columns=columns).set_index(columns[:2])
        except FileNotFoundError as error:
            raise AnnotationError(f"{path}: no table of ROIs there; run `dvc repro analyze`") from error
        if len(table):
            check_padding(float(table["padding"].iloc[0]), roi_padding)
        wanted = pd.MultiIndex.from_arrays([np.repeat(index.image_ids, index.rois_per_image), index.roi_annotation_ids])
        found = table.reindex(wanted)
        missing = found["area"].isna().to_numpy(dtype=bool)
        if missing.any():
            image, annotation = wanted[int(np.argmax(missing))]
            raise AnnotationError(
                f"{path}: {np.count_nonzero(missing)} of {len(wanted)} ROIs of the training split aren't in it, first annotation "
                f"{annotation} of image {image}, expected all; point analyze.annotations to the person-only file of "
                "data.train.annotations and run `dvc repro analyze`"
            )
        # A box narrower than a pixel holds none.
        shares = found["n_non_target"].to_numpy(dtype=np.float64) / np.maximum(found["area"].to_numpy(dtype=np.float64), 1)
        return cls(shares.astype(np.float32), index.rois_per_image)

    def of(self, row: int) -> Floats32:
        """Shares (r,) of the ROIs of the image in a row, in the order of `ImagePeople.roi_numbers`."""
        return self._shares[self._starts[row] : self._starts[row + 1]]

    def of_images(self, rows: Ints) -> Floats32:
        """Mean share of the ROIs of each of some images, which all have ROIs; a mean over ROIs, as the loss is."""
        totals = np.concatenate([[0.0], np.cumsum(self._shares, dtype=np.float64)])
        starts, ends = self._starts[rows], self._starts[rows + 1]
        return np.asarray((totals[ends] - totals[starts]) / (ends - starts), dtype=np.float32)
