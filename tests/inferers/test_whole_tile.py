# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Whole tiles of any size come back at their own size, not shifted by a pixel."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from glas_wsol.errors import ConfigError
from glas_wsol.inferers import WholeTileInferer
from tests.conftest import tiny_network

SIZES = [(1, 1), (31, 33), (64, 32), (522, 775), (5, 200)]


def pattern(*size: int, batch: int = 1) -> Tensor:
    """Every pixel another value, so that any shift or flip shows."""
    count = batch * 3 * size[0] * size[1]
    return (torch.arange(count, dtype=torch.float64) / count).view(batch, 3, *size)


class Recording:
    """Returns its input and remembers the sizes it saw."""

    def __init__(self, divisor: int = 32) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.divisor = divisor

    def __call__(self, image: Tensor) -> Tensor:
        assert image.shape[-2] % self.divisor == 0
        assert image.shape[-1] % self.divisor == 0
        self.sizes.append(tuple(image.shape[-2:]))
        return image


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 2])
def test_at_full_resolution_the_crop_is_exact(size, batch):
    image = pattern(*size, batch=batch)
    assert torch.equal(WholeTileInferer()(image, Recording()), image)


def test_the_tile_is_padded_by_reflection_to_the_next_multiple():
    recording = Recording()
    image = pattern(31, 33)
    WholeTileInferer()(image, recording)
    assert recording.sizes == [(32, 64)]
    seen = []
    WholeTileInferer(divisor=4)(image, lambda x: seen.append(x) or x)
    # 31 -> 32: one row below; 33 -> 36: one column before, two after; reflection repeats no border pixel
    assert torch.equal(seen[0][..., :31, 1:34], image)
    assert torch.equal(seen[0][..., 31, 1:34], image[..., 29, :])
    assert torch.equal(seen[0][..., :31, 0], image[..., :, 1])
    assert torch.equal(seen[0][..., :31, 35], image[..., :, 30])


@pytest.mark.parametrize("options", [{"factor": 0.5}, {"factor": 0.37}, {"factor": 2.0}, {"short_side": 40}])
@pytest.mark.parametrize("size", [(1, 1), (31, 33), (96, 61)])
def test_any_resolution_gives_the_input_s_size(options, size):
    image = torch.rand(2, 3, *size)
    assert WholeTileInferer(**options)(image, Recording()).shape == image.shape


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [({"factor": 0.5}, (522, 775), (288, 416)), ({"short_side": 100}, (300, 200), (160, 128))],
)
def test_the_network_sees_the_training_resolution(options, size, expected):
    recording = Recording()
    WholeTileInferer(**options)(pattern(*size), recording)
    assert recording.sizes == [expected]  # 522 x 775 halved is 261 x 388, padded 288 x 416


@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("size", SIZES)
def test_a_distribution_stays_one(factor, size):
    def network(image: Tensor) -> Tensor:
        return torch.cat([image, -image[:, :1]], dim=1).mul(5).softmax(dim=1)

    out = WholeTileInferer(factor)(torch.rand(1, 3, *size), network)
    assert out.shape == (1, 4, *size)
    assert float(out.min()) >= 0
    torch.testing.assert_close(out.sum(1), torch.ones(1, *size))


@pytest.mark.parametrize("factor", [0.5, 0.4, 2.0])
@pytest.mark.parametrize("size", [(96, 128), (97, 129), (101, 130)])
@pytest.mark.parametrize("place", [(30, 90), (71, 22)])
def test_a_blob_stays_where_it_is_when_the_resolution_changes(factor, size, place):
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    blob = torch.exp(-((rows - place[0]) ** 2 / 50 + (columns - place[1]) ** 2 / 90))
    out = WholeTileInferer(factor)(blob.expand(1, 3, *size), Recording())[0, 0]
    for axis, wanted in ((rows, place[0]), (columns, place[1])):
        assert abs(float((out * axis).sum() / out.sum()) - wanted) < 0.1


def test_images_of_a_batch_do_not_meet():
    network = tiny_network().eval()
    image = torch.rand(2, 3, 47, 70)
    inferer = WholeTileInferer(0.5)
    with torch.no_grad():
        together, alone = inferer(image, network), torch.cat([inferer(one[None], network) for one in image])
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together[0], together[1])


def test_arguments_reach_the_network_and_metadata_does_not():
    seen = []

    def network(image: Tensor, *args: int, **kwargs: int) -> Tensor:
        seen.append((type(image), args, kwargs))
        return image

    WholeTileInferer()(MetaTensor(pattern(9, 7)), network, 3, depth=4)
    assert seen == [(Tensor, (3,), {"depth": 4})]


ODD = [(45, 70), (33, 97), (61, 131)]  # not square, no side a multiple of 32, paddings odd and even
SYMMETRIES = {
    "left to right": lambda x: x.flip(-1),
    "upside down": lambda x: x.flip(-2),
    "half a turn": lambda x: x.flip(-1, -2),
    "a quarter": lambda x: x.transpose(-1, -2).flip(-2),
    "three quarters": lambda x: x.transpose(-1, -2).flip(-1),
    "transposed": lambda x: x.transpose(-1, -2),
    "transposed the other way": lambda x: x.flip(-1, -2).transpose(-1, -2),
}
KEPT = {  # which symmetries of the image are symmetries of the result
    "horizontal": ({"flips": "horizontal"}, ["left to right"]),
    "flips": ({"flips": True}, ["left to right", "upside down", "half a turn"]),
    "rotations": ({"rotations": True}, ["half a turn", "a quarter", "three quarters"]),
    "both": ({"flips": True, "rotations": True}, list(SYMMETRIES)),
    "scales": ({"flips": True, "scales": [0.7, 1.0, 1.3]}, ["left to right", "upside down", "half a turn"]),
}


@pytest.mark.parametrize("size", ODD)
@pytest.mark.parametrize("factor", [1.0, 0.6])
@pytest.mark.parametrize("name", KEPT)
def test_whole_tile_mirrored_image_gives_mirrored_result(name, factor, size):
    options, kept = KEPT[name]
    network = tiny_network().eval()
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    plain, inferer = WholeTileInferer(factor), WholeTileInferer(factor, **options)
    with torch.no_grad():
        result, alone = inferer(image, network), plain(image, network)
        for symmetry, change in SYMMETRIES.items():
            changed = change(image)
            assert torch.equal(inferer(changed, network), change(result)) == (symmetry in kept), symmetry
            assert not torch.allclose(plain(changed, network), change(alone), atol=1e-3), symmetry
    torch.testing.assert_close(result.sum(1), torch.ones(2, *size))


@pytest.mark.parametrize("size", ODD)
@pytest.mark.parametrize("name", ["horizontal", "flips", "rotations", "both"])
def test_views_of_equivariant_network_change_nothing(name, size):
    def network(image: Tensor) -> Tensor:  # of each pixel and of the image's own least and largest value
        low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
        return ((image - low) / (high - low)).square()

    image = pattern(*size, batch=2)
    assert torch.equal(WholeTileInferer(**KEPT[name][0])(image, network), WholeTileInferer()(image, network))


def test_views_and_scales_by_hand():
    # A network that knows where it is: the row plus a thousandth of the column, on 4 x 6 px without any padding.
    def network(image: Tensor) -> Tensor:
        rows, columns = torch.meshgrid(*(torch.arange(n) for n in image.shape[-2:]), indexing="ij")
        return (rows + columns / 1000).expand(len(image), 1, *image.shape[-2:])

    def result(**options) -> Tensor:
        return WholeTileInferer(divisor=2, **options)(torch.zeros(1, 3, 4, 6), network)[0, 0]

    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    torch.testing.assert_close(result(), rows + columns / 1000)
    torch.testing.assert_close(result(flips="horizontal"), rows + 2.5 / 1000)
    torch.testing.assert_close(result(flips=True), torch.full((4, 6), 1.5 + 2.5 / 1000))
    # quarter turns swap the sides: half the views count columns as rows, of which there are 6
    torch.testing.assert_close(result(rotations=True), torch.full((4, 6), (1.5 + 2.5) / 2 * 1.001))
    torch.testing.assert_close(result(flips=True, rotations=True), torch.full((4, 6), (1.5 + 2.5) / 2 * 1.001))
    # at twice the resolution, row i of the 4 is the mean of rows 2 i and 2 i + 1 of the 8
    double = (2 * rows + 0.5) + (2 * columns + 0.5) / 1000
    torch.testing.assert_close(result(scales=[2.0]), double)
    torch.testing.assert_close(result(scales=[1.0, 2.0]), (rows + columns / 1000 + double) / 2)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"flips": "horizontal"}, [(32, 64)] * 2),
        ({"flips": True}, [(32, 64)] * 4),
        ({"rotations": True}, [(32, 64)] * 2 + [(64, 32)] * 2),
        ({"flips": True, "rotations": True}, [(32, 64)] * 4 + [(64, 32)] * 4),
        ({"scales": [1, 2.0]}, [(32, 64), (64, 96)]),  # 31 x 40 and 62 x 80, padded
        ({"short_side": 20, "scales": (0.5, 2.6)}, [(32, 32), (64, 96)]),  # 10 x 13 and 52 x 67
        ({"flips": "horizontal", "scales": [1.0, 2.0]}, [(32, 64)] * 2 + [(64, 96)] * 2),
    ],
)
def test_every_view_at_every_scale_is_one_forward(options, sizes):
    recording, inferer = Recording(), WholeTileInferer(**options)
    image = torch.rand(1, 3, 31, 40)
    inferer(image, recording)
    assert recording.sizes == sizes
    views = list(inferer.views(image))
    assert [tuple(one.shape[-2:]) for one in views] == sizes
    assert len({one.numpy().tobytes() for one in views}) == len(views), "no view twice"
    if "scales" not in options:
        assert torch.equal(views[0], inferer.prepare(image)[0])


def test_without_views_nothing_changes():
    network, image = tiny_network().eval(), torch.rand(1, 3, 45, 70)
    off = WholeTileInferer(0.6, flips=False, rotations=False, scales=[1.0])
    with torch.no_grad():
        padded, (top, left, height, width) = off.prepare(image)
        inner = network(padded)[..., top : top + height, left : left + width]
        plain = torch.nn.functional.interpolate(inner, size=(45, 70), mode="bilinear", align_corners=False)
        assert torch.equal(off(image, network), plain)


@pytest.mark.parametrize(
    "options",
    [
        {"flips": "vertical"},
        {"flips": "horizontal", "rotations": True},
        {"scales": []},
        {"scales": 2.0},
        {"scales": "1.0"},
        {"scales": [1.0, 0.0]},
        {"scales": [float("nan")]},
        {"scales": [float("inf")]},
    ],
)
def test_views_that_cannot_be_are_refused_in_one_line(options):
    with pytest.raises(ConfigError, match="WholeTileInferer") as caught:
        WholeTileInferer(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("views", [{}, {"flips": True, "rotations": True}])
def test_tile_is_brought_to_the_training_pixel_size_and_back(views):
    seen = []

    def network(image):
        seen.append(tuple(image.shape[-2:]))
        return image[:, :2]

    pixels = torch.rand(1, 3, 60, 128)
    image = MetaTensor(pixels, meta={"mpp": torch.tensor([[0.5, 1.0]])})
    found = WholeTileInferer(0.5, divisor=1, training_mpp=1.0, **views)(image, network)
    assert found.shape == (1, 2, 60, 128)
    assert set(seen) == ({(30, 32), (32, 30)} if views else {(30, 32)})
    assert tuple(WholeTileInferer(0.5, divisor=1, training_mpp=1.0).prepare(image)[0].shape[-2:]) == (30, 32)
    assert tuple(WholeTileInferer(0.5, divisor=1, training_mpp=1.0).prepare(pixels)[0].shape[-2:]) == (30, 64)


def test_the_image_is_free_as_soon_as_it_is_predicted():
    gc.collect()
    gc.disable()  # which frees what refers to itself, some time
    try:
        image = pattern(31, 33)
        alive = weakref.ref(image)
        WholeTileInferer(flips=True, rotations=True)(image, Recording())
        del image
        assert alive() is None
    finally:
        gc.enable()
