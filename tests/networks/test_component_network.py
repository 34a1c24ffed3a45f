# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A direction of the features as a localizer: what its mask and its class are made of."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from glas_wsol.networks import FeatureComponentNetwork
from glas_wsol.networks.component_network import pooled
from tests.conftest import tiny_trunk


def fitted(**options) -> FeatureComponentNetwork:
    """A network whose direction, centre and probe are drawn instead of fitted."""
    network = FeatureComponentNetwork(tiny_trunk(), **{"num_classes": 3, "seed": 0, **options}).eval()
    for buffer in (network.centre, network.direction, network.probe_weight, network.probe_bias):
        buffer.copy_(torch.randn(buffer.shape, generator=torch.Generator().manual_seed(1)))
    features = network.features_of(network.normalise(image()))[0]
    network.centre.copy_(F.normalize(features, dim=1).mean(dim=(0, 2, 3)))  # so that both sides occur
    return network


def image() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))


def test_the_mean_of_a_region_by_hand():
    features = torch.tensor([[[[1.0, 2.0, 3.0]], [[0.0, 10.0, 20.0]]]])  # two channels on 1 x 3 positions
    mask = torch.zeros(1, 1, 2, 6)
    mask[..., 0:2] = 1  # the first position as a whole
    mask[..., 0, 2] = 1  # a quarter of the second
    torch.testing.assert_close(pooled(features, mask), torch.tensor([[1.5 / 1.25, 2.5 / 1.25]]))
    assert pooled(features, torch.zeros_like(mask)).tolist() == [[0, 0]]
    torch.testing.assert_close(pooled(features, torch.ones_like(mask)), features.mean(dim=(2, 3)))


def test_score_per_position_is_cosine_to_direction():
    network, x = fitted(), image()
    features = network.trunk.stages_of(network.normalise(x))[3]
    assert features.shape[2:] == (4, 6), "stride 16"
    z = torch.empty(2, 1, 4, 6)
    for b in range(2):
        for i in range(4):
            for j in range(6):
                f = features[b, :, i, j].double()
                z[b, 0, i, j] = float((f / f.norm() - network.centre) @ network.direction.double())
    scores = network.scores(network.normalise(x))
    wanted = F.interpolate(z, size=(64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-5)
    prediction = network(x)
    torch.testing.assert_close(prediction[:, :1], 1 - torch.sigmoid(4 * wanted), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.undecidable(x), prediction[:, :1])


def test_the_class_is_told_by_the_region_alone():
    network, x = fitted(omega=200.0), image()
    prediction = network(x)
    mask = 1 - prediction[:, :1]
    p = prediction[:, 1:].sum(dim=(2, 3)) / mask.sum(dim=(2, 3))
    region = pooled(network.trunk.stages_of(network.normalise(x) * mask)[3], mask)
    expected = (region @ network.probe_weight.T + network.probe_bias).softmax(dim=1)
    torch.testing.assert_close(p, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.logits(network.normalise(x)).softmax(1), expected, rtol=1e-4, atol=1e-5)
    outside = (mask < 1e-3).expand_as(x)
    assert outside.any()
    # What is outside is not seen: the same mask on another ground gives the same features.
    other = torch.where(outside, torch.rand(x.shape, generator=torch.Generator().manual_seed(3)), x)
    torch.testing.assert_close(
        network.region_features(network.normalise(x), (mask > 1e-3).float()),
        network.region_features(network.normalise(other), (mask > 1e-3).float()),
    )


def test_nothing_is_trained_and_the_fit_is_part_of_the_weights():
    network = fitted()
    assert not any(p.requires_grad for p in network.parameters())
    assert {"centre", "direction", "probe_weight", "probe_bias"} <= set(network.state_dict())
    again = FeatureComponentNetwork(tiny_trunk(), num_classes=3)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(image()), network(image()))
    network.train()
    assert not any(m.training for m in network.trunk.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_before_it_is_fitted_it_is_undecided():
    prediction = FeatureComponentNetwork(tiny_trunk(), num_classes=4).eval()(image())
    assert torch.equal(prediction[:, 0], torch.full((2, 64, 96), 0.5))
    torch.testing.assert_close(prediction[:, 1:], torch.full((2, 4, 64, 96), 0.125))


def test_an_empty_region_still_names_a_class():
    network = fitted(omega=1e4)
    network.centre.sub_(network.direction * -1e3)
    prediction = network(image())
    p = prediction[:, 1:].sum(dim=(2, 3), dtype=torch.float64)
    wanted = network.probe_bias.double().softmax(dim=0).expand(2, 3)
    torch.testing.assert_close(p / p.sum(dim=1, keepdim=True), wanted, rtol=1e-4, atol=1e-5)
    assert float(prediction[:, 1:].max()) < 1e-6


@pytest.mark.parametrize("size", [(32, 32), (32, 64)])
def test_the_smallest_image_goes_through(size):
    prediction = fitted()(torch.rand(1, 3, *size))
    assert prediction.shape == (1, 4, *size)
    assert bool(prediction.isfinite().all())
