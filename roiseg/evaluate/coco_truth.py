"""The annotated people that masks are scored against, as pycocotools takes them.

Symbols: I images.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from roiseg.coco import People, people_per_image
from roiseg.errors import ResultsError
from roiseg.masks import compressed_rle
from roiseg.types import HW

Json = dict[str, Any]

AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""COCO's ranges of a person's area in square pixels, both ends inside."""


class Truth:
    """Everybody in the annotation file, outlines as compressed RLEs: some hundred bytes a person, and no mask.

    Attributes:
        category_id: the one that results must have.
        image_ids: (I,) int64, ascending, which is the order of the index.
        annotation_ids: of all people, by image and then as the file has them.
        positives: (I, 4) people of each image in each range of `AREAS`.
    """

    def __init__(self, people: People) -> None:
        """Rasterise all outlines.

        Args:
            people: none of them a crowd, as `prepare` writes them.
        """
        self.category_id = int(people.category["id"])
        groups = people_per_image(people)
        self._hws: dict[int, HW] = {int(item["id"]): (int(item["height"]), int(item["width"])) for item in people.images}
        self.image_ids: NDArray[np.int64] = np.array(sorted(self._hws), dtype=np.int64)
        self._people = {image_id: [_compact(item, self._hws[image_id]) for item in groups[image_id]] for image_id in self._hws}
        self.annotation_ids = [int(item["id"]) for image_id in self.image_ids.tolist() for item in groups[image_id]]
        areas = [np.array([area for area, _ in self._people[image_id]]) for image_id in self.image_ids.tolist()]
        counts = [[((low <= found) & (found <= high)).sum() for low, high in AREAS.values()] for found in areas]
        self.positives: NDArray[np.int64] = np.array(counts, dtype=np.int64).reshape(-1, len(AREAS))

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._hws

    def image_hw(self, image_id: int) -> HW:
        """Size of an image in pixels."""
        return self._hws[image_id]

    def dataset(self, image_ids: Sequence[int]) -> Json:
        """A COCO file of some images.

        People are numbered from 1: pycocotools takes one of id 0 for nobody, and would count a match with it as none.
        """
        annotations: list[Json] = []
        for image_id in image_ids:
            for area, rle in self._people[image_id]:
                record = {"id": len(annotations) + 1, "image_id": image_id, "category_id": self.category_id, "iscrowd": 0}
                annotations.append({**record, "area": area, "segmentation": rle})
        images = [{"id": image_id, "height": self._hws[image_id][0], "width": self._hws[image_id][1]} for image_id in image_ids]
        return {"info": {}, "images": images, "annotations": annotations, "categories": [{"id": self.category_id}]}

    def check(self, result: Json) -> None:
        """See that a result is about one of these images.

        Raises:
            ResultsError: unknown image, a mask of another size, another category, or a score that isn't finite.
        """
        fault = self.fault(result)
        if fault is not None:
            raise ResultsError(fault[1])

    def fault(self, result: Json) -> tuple[str, str] | None:
        """(what all such results are or have, sentence) for a COCO result that can't be scored, or None.

        Whether the runs of its mask can be read isn't looked at.
        """
        image_id, score = result.get("image_id"), result.get("score")
        if not isinstance(image_id, int) or image_id not in self._hws:
            return "are for unknown images", (
                f"image {image_id!r} isn't among the {len(self._hws)} annotated ones; give the annotations that the results were "
                "made for, or run `dvc repro evaluate` again"
            )
        if result.get("category_id") != self.category_id:
            return "have another category", (
                f"image {image_id}: category {result.get('category_id')!r}, expected {self.category_id}, that of the annotated "
                "people; write that id"
            )
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            return "have no score", (
                f"image {image_id}: score {score!r}, expected a finite number; look at the head's training curves, and evaluate "
                "another checkpoint (evaluate.checkpoint)"
            )
        segmentation, (height, width) = result.get("segmentation"), self._hws[image_id]
        size = segmentation.get("size") if isinstance(segmentation, dict) else None
        if size != [height, width]:
            return "have masks of another size than their image", (
                f"image {image_id}: a mask of size {size}, expected an RLE of [{height}, {width}], the image's height and width"
            )
        return None


def _compact(annotation: Json, image_hw: HW) -> tuple[float, Json]:
    """(area, RLE) of a person; the area is the mask's where the file has none."""
    value = annotation["segmentation"]
    if isinstance(value, dict):
        rle = compressed_rle(value)
    else:
        rle = compressed_rle(coco_mask.merge(coco_mask.frPyObjects(value, *image_hw)))
    return float(annotation["area"] if "area" in annotation else coco_mask.area(rle)), rle
