# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The U-Net: on every trunk, at every size, and right about where things are."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.networks import TRUNKS, SegmentationNetwork
from tests.conftest import tiny_trunk


def tiny_unet(**options) -> SegmentationNetwork:
    return SegmentationNetwork(tiny_trunk(), **{"decoder_channels": (8, 8, 8, 8, 8), "seed": 1, **options})


@pytest.mark.parametrize("trunk", list(TRUNKS))
def test_every_trunk_carries_it(trunk):
    network = SegmentationNetwork(trunk, weights="none", seed=0).eval()
    with torch.no_grad():
        logits = network.mask_logits(network.normalise(torch.rand(1, 3, 64, 96)))
    assert logits.shape == (1, 1, 64, 96)
    assert torch.isfinite(logits).all()


def test_every_stage_of_the_trunk_reaches_the_mask():
    network = tiny_unet().eval()
    x = torch.rand(1, 3, 64, 96)
    features = [f.detach().requires_grad_() for f in network.trunk.stages_of(x)]
    network.trunk.stages_of = lambda _: features
    network.mask_logits(x).sum().backward()
    assert [tuple(f.shape[2:]) for f in features] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert all(float(f.grad.abs().sum()) > 0 for f in features)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 96), (64, 33), (1, 95), (97, 130)])
def test_unet_other_sizes_are_edge_padded_and_cropped_back(height, width):
    network = tiny_unet().eval()
    x = torch.rand(2, 3, height, width)
    rows = torch.arange(-(-height // 32) * 32).clamp(max=height - 1)
    columns = torch.arange(-(-width // 32) * 32).clamp(max=width - 1)
    with torch.no_grad():
        expected = network.mask_logits(x[:, :, rows][:, :, :, columns])[:, :, :height, :width]
        assert torch.equal(network.mask_logits(x), expected)
        assert network(x).shape == (2, 3, height, width)


def test_the_answer_is_the_sigmoid_and_names_no_class():
    network = tiny_unet(num_classes=5).eval()
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        prediction, logits = network(image), network.mask_logits(network.normalise(image))
    mask = 1 / (1 + (-logits.double()).exp())
    torch.testing.assert_close(prediction[:, 1:].double(), (mask / 5).expand(-1, 5, -1, -1), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(prediction[:, 0].double(), 1 - mask[:, 0], rtol=0, atol=1e-6)
    assert (network.supervision, network.names_class) == ("pixel labels", False)


def test_it_learns_where_a_patch_is_from_its_mask():
    generator = torch.Generator().manual_seed(0)
    image, truth = 0.3 + 0.05 * torch.randn(12, 3, 64, 96, generator=generator), torch.zeros(12, 1, 64, 96)
    for i in range(12):
        top, left = (int(torch.randint(0, most, (1,), generator=generator)) for most in (40, 60))
        image[i, :, top : top + 12, left : left + 30] += 0.5
        truth[i, :, top : top + 12, left : left + 30] = 1
    network = tiny_unet().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        x = network.normalise(image[:9])
        F.binary_cross_entropy_with_logits(network.mask_logits(x), truth[:9]).backward()
        optimizer.step()
    with torch.no_grad():
        mask = (1 - network.eval()(image[9:].clamp(0, 1))[:, :1] >= 0.5).float()  # images it has not seen
    dice = 2 * (mask * truth[9:]).sum((1, 2, 3)) / (mask.sum((1, 2, 3)) + truth[9:].sum((1, 2, 3)))
    assert float(dice.min()) > 0.8


def test_decoder_channels_are_a_setting():
    assert tiny_unet().settings()["decoder_channels"] == [8, 8, 8, 8, 8]
    for bad in ((8, 8), (8, 8, 8, 8, 0)):
        with pytest.raises(ConfigError):
            tiny_unet(decoder_channels=bad)
