# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Folded batch normalisation: the same function, no normalisation left to do, and in every kind of network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from glas_wsol.networks import (
    EnsembleNetwork,
    FixedMaskNetwork,
    MinMaxEntropyNetwork,
    RefinedNetwork,
    SegmentationNetwork,
    Trunk,
    build_trunk,
    fold_batch_norm,
)
from tests.conftest import tiny_network, tiny_trunk


def lived_in(network: nn.Module) -> nn.Module:
    """The network with running statistics and affine parts far from their first values."""
    drawn = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.3, 3.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high, generator=drawn)
    return network.eval()


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_trunks_are_the_same_function_and_normalise_no_more(name):
    trunk = lived_in(build_trunk(name, "none")).double()
    x = torch.rand(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad():
        before = trunk.stages_of(x)
        after = fold_batch_norm(trunk).stages_of(x)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in trunk.modules())
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-10)
        assert float(one.std()) > 1e-3  # not two maps of zeros


def test_every_kind_of_network_predicts_the_same():
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    base = tiny_network()
    members = [tiny_network(1), tiny_network(2)]
    refined = RefinedNetwork(tiny_trunk(), 2, base=base.settings(), decoder_width=8, seed=0)
    for network in (base, refined, SegmentationNetwork(tiny_trunk(), 2, "none"), EnsembleNetwork(members)):
        plain = copy.deepcopy(lived_in(network))
        assert fold_batch_norm(network) is network
        trunks = [module for module in network.modules() if isinstance(module, Trunk)]
        assert trunks
        assert not any(isinstance(m, nn.BatchNorm2d) for trunk in trunks for m in trunk.modules())
        with torch.no_grad():
            torch.testing.assert_close(network(image), plain(image), rtol=1e-4, atol=1e-5)


def test_a_network_without_a_trunk_stays_as_it_is():
    network = FixedMaskNetwork("centre_gaussian", num_classes=2)
    image = torch.rand(1, 3, 64, 96)
    before = network(image)
    assert torch.equal(fold_batch_norm(network)(image), before)


def test_folded_network_batch_statistics_are_refused():
    network = fold_batch_norm(lived_in(MinMaxEntropyNetwork(tiny_trunk(), 2, weights="none", seed=0)).double())
    assert not network.training
    image = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(image)[:1], network(image[:1]))
