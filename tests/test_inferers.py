# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Whole tiles of any size come back at their own size, not shifted by a pixel."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

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
