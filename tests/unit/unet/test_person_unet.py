"""Tests of roiseg.unet.person_unet: sizes, the way of the image into the net, what stands still, what is tapped."""

import pytest
import torch
from person_unet_factory import HERE, INPUT_HW, make_unet, random_images, unet_params
from torch import Tensor, nn
from torch.nn import functional as F

from roiseg.errors import ParamsError, StoreMismatchError
from roiseg.unet.person_unet import PersonUnet, build_person_unet


def images(count: int, image_hw: tuple[int, int] = INPUT_HW) -> Tensor:
    return torch.from_numpy(random_images(count, image_hw)) / 255


@pytest.fixture(scope="module")
def unet() -> PersonUnet:
    """In eval mode; tests leave it as it is."""
    return make_unet().eval()


@pytest.mark.parametrize(("encoder", "expected"), [("timm-efficientnet-b0", 6_251_469), ("timm-efficientnet-b3", 13_159_033)])
def test_parameters_as_published(encoder: str, expected: int) -> None:
    with torch.device("meta"):
        unet = build_person_unet(unet_params(encoder=encoder), INPUT_HW, where=HERE)
    assert sum(item.numel() for item in unet.parameters()) == expected


@pytest.mark.parametrize("image_hw", [(32, 64), (48, 64), (32, 40), (65, 50)])
def test_logits_are_of_the_net_s_size_whatever_the_image_s(image_hw: tuple[int, int]) -> None:
    unet = make_unet(image_hw).eval()
    with torch.no_grad():
        assert unet(images(2, image_hw)).shape == (2, 1, 32, 64)


def test_the_net_sees_means_of_areas_in_its_own_normalisation() -> None:
    seen: list[Tensor] = []
    unet = make_unet((64, 192), mean=[0.1, 0.2, 0.3], std=[0.5, 1.0, 2.0]).eval()
    unet.net.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    image = images(1, (64, 192))
    with torch.no_grad():
        unet(image)
    small = F.avg_pool2d(image, (2, 3))
    expected = (small - torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1)) / torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1)
    torch.testing.assert_close(seen[0], expected)


def test_an_image_of_the_net_s_size_goes_in_as_it_is() -> None:
    seen: list[Tensor] = []
    unet = make_unet(mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0]).eval()
    unet.net.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        unet(images(1))
    assert torch.equal(seen[0], images(1))


def test_an_image_of_another_size_is_refused(unet: PersonUnet) -> None:
    with pytest.raises(StoreMismatchError, match=r"built for images of \[32, 64\] and is given \[64, 32\]; build it for the size"):
        unet(torch.zeros(1, 3, 64, 32))


def test_taps_are_maps_of_the_same_pass(unet: PersonUnet) -> None:
    with torch.no_grad():
        logits, maps = unet.taps(images(2), [3, 5])
        assert torch.equal(logits, unet(images(2)))
    assert {index: tuple(item.shape) for index, item in maps.items()} == {3: (2, 40, 4, 8), 5: (2, 320, 1, 2)}
    assert [unet.tap_channels(index) for index in (1, 2, 3, 4, 5)] == [32, 24, 40, 112, 320]


@pytest.mark.parametrize("index", [0, 6, -1])
def test_no_other_map_can_be_tapped(unet: PersonUnet, index: int) -> None:
    with pytest.raises(ParamsError, match=rf"tap {index}: the encoder has no such map, expected 1 \(stride 2\) to 5 \(stride 32\)"):
        unet.tap_channels(index)


def test_one_seed_gives_one_net(unet: PersonUnet) -> None:
    same, other = make_unet().eval(), make_unet(seed=1).eval()
    assert all(torch.equal(item, same.state_dict()[name]) for name, item in unet.state_dict().items())
    with torch.no_grad():
        assert torch.equal(unet(images(2)), same(images(2)))
        assert not torch.equal(unet(images(2)), other(images(2)))


def test_weights_are_those_of_the_net_alone(unet: PersonUnet) -> None:
    """What params say isn't said again by a checkpoint."""
    assert all(name.startswith("net.") for name in unet.state_dict())


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [item for item in module.modules() if isinstance(item, nn.BatchNorm2d)]


def test_a_frozen_encoder_learns_nothing_and_counts_nothing() -> None:
    unet = make_unet(freeze_encoder=True).train()
    encoder = {name: item.clone() for name, item in unet.net.encoder.state_dict().items()}
    unet(images(2)).sum().backward()
    assert all(torch.equal(item, encoder[name]) for name, item in unet.net.encoder.state_dict().items())
    assert all(item.grad is None for item in unet.net.encoder.parameters())
    assert all(item.grad is not None for item in unet.net.decoder.parameters())
    assert all(item.training for item in norms(unet.net.decoder))


def test_blocks_are_unfrozen_one_by_one_from_the_deepest() -> None:
    unet = make_unet(freeze_encoder=True).train()
    blocks = unet.encoder_blocks()
    assert len(blocks) == 7
    assert [block is unet.net.encoder.blocks[6 - place] for place, block in enumerate(blocks)] == [True] * 7
    parameters = list(blocks[0].requires_grad_().parameters())
    unet.eval().train()
    assert [all(item.training for item in norms(block)) for block in blocks] == [True] + [False] * 6
    unet(images(2)).sum().backward()
    assert all(item.grad is not None for item in parameters)
    assert not any(item.grad is not None for block in blocks[1:] for item in block.parameters())


def test_with_blocks_and_stem_unfrozen_all_that_is_used_learns() -> None:
    frozen, free = make_unet(freeze_encoder=True), make_unet()
    for part in (*frozen.encoder_blocks(), *frozen.stem()):
        part.requires_grad_()
    learning = [[name for name, item in unet.named_parameters() if item.requires_grad] for unet in (frozen, free)]
    assert learning[0] == learning[1]
    free.train()(images(2)).sum().backward()
    assert all(item.grad is not None for item in free.parameters() if item.requires_grad), "which DDP wants"


def test_a_teacher_stays_in_eval_mode() -> None:
    teacher = make_unet()
    teacher.requires_grad_(False).train()
    assert not any(item.training for item in norms(teacher.net.encoder) if item is not teacher.net.encoder.bn2)
    assert not any(item.training for item in norms(teacher.net.decoder))


def test_an_encoder_that_never_learns_needs_weights() -> None:
    message = (
        r"unet\.model\.freeze_encoder is true, but the encoder starts from nothing .* set unet\.model\.freeze_encoder to false"
    )
    with pytest.raises(ParamsError, match=message):
        build_person_unet(unet_params(freeze_encoder=True), INPUT_HW, where=HERE)
    build_person_unet(unet_params(freeze_encoder=True), INPUT_HW, where=HERE, weights=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"encoder": "efficientnet-b0"},
            r"unet\.model\.encoder: value is 'efficientnet-b0'; input should be 'timm-efficientnet-b0'",
        ),
        ({"input_hw": [32, 48]}, r"unet\.model\.input_hw\.1: value is 48; input should be a multiple of 32"),
        ({"input_hw": [4096, 32]}, r"unet\.model\.input_hw\.0: value is 4096; input should be less than or equal to 2048"),
        ({"decoder_channels": [64, 32, 16]}, r"unet\.model\.decoder_channels\.3: missing"),
        ({"std": [0.5, 0.0, 0.5]}, r"unet\.model\.std\.1: value is 0\.0; input should be greater than 0"),
    ],
)
def test_params_that_make_no_net(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        unet_params(**changes)
