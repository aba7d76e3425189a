"""Tests of roiseg.unet.task: what a net learns on, and figures that no split of the work changes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from net_factory import NETWORK_HW, TRAIN, link_project, narrow_encoders, stored_sections, unet_section
from store_factory import Project, shared_views
from torch import Tensor, nn

from roiseg.batches import Loading, dequantise
from roiseg.errors import TrainingError
from roiseg.evaluate.pictures import load_fixed
from roiseg.train.loop import check_metric
from roiseg.train.params import TrainParams
from roiseg.trained import INDEX
from roiseg.types import IMAGE
from roiseg.unet.data import PersonBatch
from roiseg.unet.params import net_training
from roiseg.unet.person_loss import PersonLoss
from roiseg.unet.person_unet import build_person_unet
from roiseg.unet.task import NetTask
from roiseg.unet.train import open_people

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def narrow() -> Iterator[None]:
    with narrow_encoders():
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return shared_views(tmp_path_factory)


@pytest.fixture
def task(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NetTask:
    link_project(tmp_path, project)
    monkeypatch.chdir(tmp_path)
    params = unet_section().model
    train, val = (open_people(stored_sections(), split, [IMAGE], params) for split in ("train", "val"))
    build = partial(build_person_unet, params, NETWORK_HW, where="unet.model")
    return NetTask(build, PersonLoss(0.5, 1.0, 2.0), train, val, "none", load_fixed(INDEX / "val" / "pictures", val))


def floats_of(task: NetTask, batch: PersonBatch) -> dict[str, Tensor]:
    """Features as the loop gives them."""
    return dequantise(batch.features, {name: torch.from_numpy(item) for name, item in task.train.store.scales.items()}, CPU)


def built(task: NetTask) -> nn.Module:
    torch.manual_seed(0)
    return task.build()


def test_losses_are_those_of_images_and_masks(task: NetTask) -> None:
    """Told once more from the stored values: cross entropy of every pixel, and Dice of every image."""
    module = built(task).eval()
    (batch, *_) = task.batches(Loading(2, 1, 1), 0, 1)
    with torch.no_grad():
        losses = task.losses(module, floats_of(task, batch), batch, CPU)
        p = module(batch.features[IMAGE].float() / 255).sigmoid().double()
    t = batch.masks.double()
    bce = -(2.0 * t * p.log() + (1 - t) * (1 - p).log()).mean()
    dice = 1 - (2 * (p * t).sum((1, 2, 3)) + 1) / ((p + t).sum((1, 2, 3)) + 1)
    assert float(losses["bce"]) == pytest.approx(float(bce), rel=1e-5)
    assert float(losses["dice"]) == pytest.approx(float(dice.mean()), rel=1e-5)
    assert float(losses["total"]) == pytest.approx(0.5 * float(bce) + float(dice.mean()), rel=1e-5)


def test_an_epoch_has_every_image_once(task: NetTask) -> None:
    for epoch in (1, 2):
        rows = [row for batch in task.batches(Loading(2, 1, 1), 3, epoch) for row in batch.rows]
        assert sorted(rows) == list(range(task.images))


@pytest.mark.parametrize("size", [1, 3])
def test_figures_don_t_depend_on_who_counts(task: NetTask, size: int) -> None:
    module = built(task).eval()
    whole = task.figures([task.score(module, CPU, Loading(4, 1, 1))])
    parts = [task.score(module, CPU, Loading(size, 1, 1, rank=rank, processes=2)) for rank in (1, 0)]
    assert task.figures(parts) == whole
    assert set(task.known_figures) <= set(whole)


def test_the_rehearsed_batch_is_as_large_as_any(task: NetTask) -> None:
    batch, module = task.largest(2), built(task).train()
    features = floats_of(task, batch)
    assert {name: values.shape for name, values in features.items()} == {IMAGE: (2, 3, *NETWORK_HW)}
    assert batch.masks.shape == (2, 1, *task.mask_hw)
    assert batch.size == 2
    losses = task.losses(module, features, batch, CPU)
    assert bool(torch.isfinite(losses["total"]))


def test_pictures_are_drawn_of_both_fixed_images(task: NetTask) -> None:
    sheet = task.draw(built(task).eval(), CPU, "epoch 1")
    assert sheet is not None
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3
    none = NetTask(task.build, task.loss, task.train, task.val, "none")
    assert none.draw(built(task).eval(), CPU, "epoch 1") is None


def judged_by(metric: str) -> TrainParams:
    return net_training({**TRAIN, "early_stop": {"metric": metric}}, "unet.train")


def test_a_figure_to_stop_by_is_one_of_nets(task: NetTask) -> None:
    check_metric(judged_by("miou_2class_pooled"), task)
    with pytest.raises(TrainingError, match=r"unet\.train\.early_stop\.metric is 'miou_fg_roi', which validation doesn't give; "):
        check_metric(judged_by("miou_fg_roi"), task)
