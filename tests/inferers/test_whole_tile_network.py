# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The exportable pipeline gives what whole-tile inference gives, also when compiled to TorchScript."""

from __future__ import annotations

import pytest
import torch

from glas_wsol.inferers import WholeTileInferer
from glas_wsol.inferers.whole_tile_network import MaskAndClassNetwork, WholeTileNetwork
from glas_wsol.networks import fold_batch_norm
from tests.conftest import tiny_network

SIZES = [(64, 96), (65, 97), (33, 50), (1, 7), (2, 1), (3, 2), (201, 130)]
RESOLUTIONS = [{}, {"factor": 0.5}, {"factor": 0.37}, {"factor": 1.7}, {"short_side": 80}]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    # Not min-max normalised: that divides by the range of the map, or by 1e-6 where it is constant, as of the smallest
    # images here; rounding (3e-8) would then become thousandths of the mask.
    return fold_batch_norm(tiny_network(num_classes=3, map_stride=16, normalisation="none"))


def picture(*size: int, seed: int = 0) -> torch.Tensor:
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))
    image[:, :, : size[0] // 3, : size[1] // 2] *= 0.3
    return image


@torch.no_grad()
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_whole_tile_network_of_any_size_equals_inference(network, resolution):
    tiles, inferer = WholeTileNetwork(network, **resolution), WholeTileInferer(**resolution)
    for size in SIZES:
        image = picture(*size)
        torch.testing.assert_close(tiles.prepare(image), inferer.prepare(image)[0], atol=2e-6, rtol=0)
        torch.testing.assert_close(tiles(image), inferer(image, network), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("resolution", [{}, {"factor": 0.5}, {"short_side": 80}])
def test_torchscript_of_any_size_equals_inference(network, resolution):
    inferer = WholeTileInferer(**resolution)
    script = torch.jit.script(MaskAndClassNetwork(WholeTileNetwork(network, **resolution)).eval())
    for size in SIZES:
        image = torch.cat([picture(*size), picture(*size, seed=1)])
        decidable, probabilities = script(image)
        wanted = inferer(image, network)
        torch.testing.assert_close(decidable, 1 - wanted[:, :1], atol=1e-5, rtol=0)
        mass = wanted[:, 1:].double().sum(dim=(2, 3))
        torch.testing.assert_close(probabilities.double(), mass / mass.sum(dim=1, keepdim=True), atol=1e-5, rtol=0)


@torch.no_grad()
def test_whole_tile_network_of_bytes_equals_that_of_floats(network):
    image = (picture(70, 45) * 255).round().to(torch.uint8)
    found = WholeTileNetwork(network, 0.5, white=255)(image)
    torch.testing.assert_close(found, WholeTileNetwork(network, 0.5)(image.float() / 255), atol=1e-6, rtol=0)


@torch.no_grad()
def test_mask_and_class_of_several_classes_has_presence():
    network = tiny_network(num_classes=3, multi_label=True).eval()
    module = MaskAndClassNetwork(WholeTileNetwork(network, 0.5)).eval()
    image = picture(131, 94)
    wanted = network.presence(WholeTileInferer(0.5).prepare(image)[0])
    for one in (module, torch.jit.script(module)):
        torch.testing.assert_close(one(image)[1], wanted, atol=1e-5, rtol=0)
