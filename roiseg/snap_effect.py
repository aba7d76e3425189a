"""What snapping changes for segmentation: mask AP of a head on rough, snapped and annotated boxes of the same people.

Rough boxes are those of Snapper's own validation: a fixed jitter, seeded by the annotation. Everybody with an ROI is asked about
three times, and every answer is scored by the protocol of `evaluate`.

Symbols: R people of an image with an ROI.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from roiseg.batches import Loading
from roiseg.coco import DataParams, load_prepared
from roiseg.dataset import RoiDataset
from roiseg.errors import GraphError
from roiseg.evaluate.chosen import SplitFiles
from roiseg.evaluate.coco_eval import MaskAp
from roiseg.evaluate.coco_truth import Truth
from roiseg.evaluate.infer import Prediction, predictions
from roiseg.evaluate.results import mask_result
from roiseg.files import sha256_file, write_json
from roiseg.geometry import Floats, paired_box_iou, roi_boxes
from roiseg.onnx_names import feature_input
from roiseg.overlap import resolve
from roiseg.params import load_params, load_section
from roiseg.placed import paste_target
from roiseg.predict.encoder import Encoded
from roiseg.progress import progress
from roiseg.snap import Snapper
from roiseg.snapper.data import roughen
from roiseg.snapper.params import SnapperParams
from roiseg.snapper.windows import to_image, to_share
from roiseg.train.checkpoint import BEST
from roiseg.trained import HEADS, HeadSections, load_head
from roiseg.types import Provider

ROUGH, SNAPPED, ANNOTATED = "rough", "snapped", "annotated"
KINDS = (ROUGH, SNAPPED, ANNOTATED)
SHOWN = ("ap", "ap50", "ap75")

IMAGES_PER_BATCH = 4
BACKBONE = Path("data/backbone.onnx")


@dataclass(frozen=True)
class SnapEffect:
    """Figures of each kind of boxes.

    Attributes:
        head: which.
        people: how many boxes there are of each kind.
        figures: kind -> COCO's figures of the masks, and `box_iou`: mean IoU of the boxes with the annotated ones.
    """

    head: str
    people: int
    figures: Mapping[str, Mapping[str, float]]

    def lines(self) -> list[str]:
        """A table."""
        names = ("box_iou", *(name for name in SHOWN if name in self.figures[ANNOTATED]))
        head = f"{f'{self.head}, {self.people} boxes':<24}" + "".join(f"{name:>10}" for name in names)
        rows = (f"{kind:<24}" + "".join(f"{self.figures[kind][name]:>10.4f}" for name in names) for kind in KINDS)
        return [head, *rows]

    def flat(self) -> dict[str, float]:
        """Flat names, such as `snapped_ap`."""
        return {f"{kind}_{name}": round(value, 6) for kind, told in self.figures.items() for name, value in told.items()}


@dataclass
class _Scores:
    """Answers from one kind of boxes."""

    ap: MaskAp
    ious: list[Floats] = field(default_factory=list)


def snap_effect(head: str, model: Path, provider: Provider, out: Path) -> SnapEffect:
    """Measure a trained head on the validation split, and write the figures.

    Args:
        head: name in params.yaml.
        model: folder of the exported Snapper, or a file in it.
        provider: where the Snapper runs.
        out: flat JSON.

    Raises:
        GraphError: a Snapper of other images or another backbone than the stores'.
        StoreMismatchError: the store lacks a layer that it reads.
    """
    values = load_params(head)
    sections = HeadSections.load(values)
    dataset = sections.open_split("val")
    module, _ = load_head(HEADS / head, BEST, sections, dataset)
    snapper = Snapper(model, provider)
    stored = {"input": sections.extractor.input_rule().plain(), "fingerprints": {"backbone_sha256": sha256_file(BACKBONE)}}
    if not snapper.same_backbone(stored):
        raise GraphError(
            f"{snapper.file}: was exported for another input rule or backbone than the stores have; run `dvc repro snapper_export`"
        )
    dataset.store.check_layers(list(snapper.reading.layers))
    data = load_section(DataParams, "data", values)
    truth = Truth(load_prepared(SplitFiles.of("val", data).annotations))
    rough = RoughPeople(dataset, snapper, load_section(SnapperParams, "snapper", values))
    loading = Loading(IMAGES_PER_BATCH, sections.reader.load_threads, sections.reader.ahead)
    effect = measure(head, module, rough, truth, loading)
    write_json(out, {"boxes": effect.people, **effect.flat()})
    return effect


class RoughPeople:
    """Rough and snapped boxes of the people of a split."""

    def __init__(self, dataset: RoiDataset, snapper: Snapper, params: SnapperParams) -> None:
        """Nothing is computed yet.

        Args:
            dataset: of the split; its store has the Snapper's layers.
            snapper: what snaps.
            params: section `snapper`, for the jitter.
        """
        self.dataset, self.snapper, self._data = dataset, snapper, params.data

    def annotated(self, row: int) -> Floats:
        """(R, 4) xyxy, unit frame."""
        people = self.dataset.index.people(row)
        return people.boxes[people.has_roi]

    def rough(self, row: int) -> Floats:
        """(R, 4) xyxy, image frame."""
        people, resize = self.dataset.index.people(row), self.dataset.index.resize(row)
        truth = to_share(resize.boxes_to_image(people.boxes[people.has_roi]), people.image_hw)
        seeds = [[self._data.val_seed, number % 2**64] for number in people.annotation_ids[people.has_roi].tolist()]
        drawn = [roughen(box[None], self._data.jitter, np.random.default_rng(seed)) for box, seed in zip(truth, seeds, strict=True)]
        return to_image(np.concatenate([np.zeros((0, 4)), *drawn]), people.image_hw)

    def snapped(self, row: int, rough_image: Floats) -> Floats:
        """(R, 4) xyxy, image frame, of rough ones; features come from the store."""
        store, layers = self.dataset.store, self.snapper.reading.layers
        features = {}
        for name, values in store.read(row, layers).items():
            floats = values[None].astype(np.float32)
            scale = store.scales.get(name)
            features[feature_input(name)] = floats if scale is None else floats * scale.reshape(1, -1, 1, 1)
        encoded = Encoded(features, self.dataset.index.resize(row).image_hw, None)
        found = self.snapper.snap_encoded(encoded, rough_image, f"row {row}")
        return np.concatenate([np.zeros((0, 4)), *(box.box_image[None] for box in found)])

    def further(self, row: int) -> Floats:
        """(2R, 4) xyxy, unit frame: rough boxes, then snapped ones."""
        rough = self.rough(row)
        return self.dataset.index.resize(row).boxes_to_unit(np.concatenate([rough, self.snapped(row, rough)]))


def measure(head: str, module: nn.Module, people: RoughPeople, truth: Truth, loading: Loading) -> SnapEffect:
    """Score a head on three kinds of boxes.

    Args:
        head: its name.
        module: in eval mode, on the CPU.
        people: whose boxes.
        truth: the annotated people.
        loading: batch size, threads.
    """
    dataset, padding = people.dataset, people.dataset.params.roi_padding
    scores = {kind: _Scores(MaskAp(truth)) for kind in KINDS}
    plain = dict[int, Floats]()

    def further(row: int) -> Floats:
        plain[row] = people.further(row)
        return roi_boxes(plain[row], padding)

    with progress("snap-effect", len(dataset.rows)) as tick:
        for prediction in predictions(module, dataset, torch.device("cpu"), loading, further=further):
            for place, row in enumerate(prediction.batch.rows):
                given = np.concatenate([plain.pop(row), people.annotated(row)])
                _score(scores, truth, dataset, prediction, place, given)
            tick(len(prediction.batch.rows))
    figures = {kind: {"box_iou": _mean(found.ious), **found.ap.figures("")} for kind, found in scores.items()}
    return SnapEffect(head, sum(map(len, scores[ANNOTATED].ious)), figures)


def _score(
    scores: Mapping[str, _Scores], truth: Truth, dataset: RoiDataset, prediction: Prediction, place: int, given: Floats
) -> None:
    """Add the answers about an image; one image's masks are in memory.

    Args:
        scores: by kind.
        truth: the annotated people.
        dataset: of the split.
        prediction: of the batch.
        place: of the image in it.
        given: (3R, 4) xyxy, unit frame: rough, snapped and annotated boxes.
    """
    row = prediction.batch.rows[place]
    image_id, resize = int(dataset.index.image_ids[row]), dataset.index.resize(row)
    own, other = (boxes[:, 0].numpy() == place for boxes in (prediction.batch.boxes, prediction.further))
    rois = np.concatenate([prediction.further[other, 1:].double().numpy(), prediction.batch.boxes[own, 1:].double().numpy()])
    logits = torch.cat([prediction.further_logits[other], prediction.logits[own]])
    probabilities, rois_image = logits.softmax(dim=1).numpy(), resize.boxes_to_image(rois)
    count = len(given) // len(KINDS)
    for number, kind in enumerate(KINDS):
        part = slice(number * count, (number + 1) * count)
        pasted = [
            paste_target(values, roi, resize.image_hw) for values, roi in zip(probabilities[part], rois_image[part], strict=True)
        ]
        results = [
            mask_result(image_id, truth.category_id, person.score, placed.whole(resize.image_hw))
            for person, placed in zip(pasted, resolve(pasted), strict=True)
        ]
        scores[kind].ap.add([image_id], results)
        scores[kind].ious.append(paired_box_iou(given[part], given[2 * count :]))


def _mean(parts: Sequence[Floats]) -> float:
    whole = np.concatenate([np.zeros(0), *parts])
    return float(whole.mean()) if len(whole) else 0.0
