"""Small copies of all validation images in one file, so that what comes after `prepare` needs no image folder.

`previews.parquet`, a row per image in the order of the index: `image_id, file_name, height, width, jpeg`; height and width are
those of the preview. Each row group is written and read on its own.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from roiseg.coco import People
from roiseg.errors import ImageReadError, MissingImageError
from roiseg.extractor.images import decode, read_bytes
from roiseg.network_input import Pixels
from roiseg.progress import progress
from roiseg.types import HW

PREVIEWS_FILE = "previews.parquet"
LONGER_SIDE_PX = 512
JPEG_QUALITY = 85
IMAGES_PER_GROUP = 32
"""Images that are in memory together while the file is written or read."""

SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("file_name", pa.string()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("jpeg", pa.binary()),
    ]
)


def preview_hw(image_hw: HW) -> HW:
    """Size of the preview of an image: in its shape, its longer side at most `LONGER_SIDE_PX`, never enlarged."""
    scale = min(LONGER_SIDE_PX / max(image_hw), 1.0)
    return max(round(image_hw[0] * scale), 1), max(round(image_hw[1] * scale), 1)


def shrunk(pixels: Pixels) -> Pixels:
    """The preview (h, w, 3) of a decoded image (H, W, 3)."""
    height, width = preview_hw((pixels.shape[0], pixels.shape[1]))
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def write_previews(path: Path, people: People, images: Path) -> None:
    """Previews of every image of a split.

    Args:
        path: file to write.
        people: whose images they are, in the order of the index.
        images: folder of the images.

    Raises:
        MissingImageError, ImageReadError: an image isn't there, can't be decoded, or has another size than its annotation says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.partial")
    try:
        # JPEG doesn't compress, and statistics of its bytes would be bytes of pictures in the footer.
        with (
            pq.ParquetWriter(aside, SCHEMA, compression="none", use_dictionary=False, write_statistics=False) as writer,
            progress("previews", len(people.images)) as tick,
        ):
            for start in range(0, len(people.images), IMAGES_PER_GROUP):
                rows = [_row(item, images) for item in people.images[start : start + IMAGES_PER_GROUP]]
                writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), row_group_size=IMAGES_PER_GROUP)
                tick(len(rows))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _row(record: dict[str, Any], images: Path) -> dict[str, object]:
    """A row of the table, of a COCO image record."""
    source = images / str(record["file_name"])
    small = shrunk(decode(read_bytes(source), str(source), (int(record["height"]), int(record["width"]))))
    ok, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise OSError(f"{source}: OpenCV couldn't encode a picture of {small.shape}")
    height, width = small.shape[:2]
    name = str(record["file_name"])
    return {"image_id": int(record["id"]), "file_name": name, "height": height, "width": width, "jpeg": data.tobytes()}


class Previews:
    """The previews of a split; a picture is read when it is asked for, with its row group and no other."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Args:
            path: such as `data/index/val/previews.parquet`.

        Raises:
            MissingImageError: there is no such file.
            ImageReadError: it isn't a file of previews.
        """
        self.path = path
        try:
            self._file = pq.ParquetFile(path)
        except FileNotFoundError as error:
            raise MissingImageError(f"{path}: no previews of the validation images there; run `dvc repro prepare`") from error
        except pa.ArrowInvalid as error:
            raise self._unusable(str(error)) from error
        if self._file.schema_arrow.names != SCHEMA.names:
            raise self._unusable(f"columns {', '.join(self._file.schema_arrow.names)}")
        groups = self._file.metadata
        self._starts = np.cumsum([0, *(groups.row_group(number).num_rows for number in range(groups.num_row_groups))])
        ids = self._file.read(columns=["image_id"], use_threads=False).column(0).to_pylist()
        self._rows = {image_id: row for row, image_id in enumerate(ids)}
        self._group = lru_cache(1)(self._read)  # whoever asks in the order of the rows reads each group once

    def _unusable(self, found: str) -> ImageReadError:
        return ImageReadError(f"{self.path}: not a table of previews ({found}); run `dvc repro prepare`")

    def _read(self, number: int) -> list[bytes]:
        column: list[bytes] = self._file.read_row_group(number, columns=["jpeg"], use_threads=False).column(0).to_pylist()
        return column

    def __len__(self) -> int:
        return len(self._rows)

    def picture(self, image_id: int) -> Pixels:
        """The preview (h, w, 3) BGR of an image.

        Raises:
            MissingImageError: the file has none of that image.
        """
        if image_id not in self._rows:
            raise MissingImageError(
                f"{self.path}: no preview of image {image_id} among {len(self)}, expected one of every validation image; "
                "run `dvc repro prepare`"
            )
        row = self._rows[image_id]
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        return decode(self._group(group)[row - int(self._starts[group])], f"{self.path}: image {image_id}")
