# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Gated attention against the paper's equations, position by position."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.networks import AttentionNetwork
from tests.conftest import tiny_trunk


def tiny_attention(**options) -> AttentionNetwork:
    return AttentionNetwork(tiny_trunk(), **{"num_classes": 3, "hidden": 4, "seed": 3, **options}).eval()


def test_attention_bag_and_scores_are_those_of_the_equations():
    network = tiny_attention().double()
    x = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        features = network.trunk(x)
        V, U, w = (m.weight.flatten(1).tolist() for m in (network.value, network.gate, network.score))
        attention, logits = network.attention(x), network.logits(x)
    assert attention.shape == (2, 1, 2, 3)
    assert logits.shape == (2, 3)
    for image in range(2):
        bag = [[float(v) for v in features[image, :, row, column]] for row in range(2) for column in range(3)]
        raw = []
        for h in bag:
            s = 0.0
            for v_row, u_row, w_k in zip(V, U, w[0], strict=True):
                v = sum(a * b for a, b in zip(v_row, h, strict=True))
                u = sum(a * b for a, b in zip(u_row, h, strict=True))
                s += w_k * math.tanh(v) / (1 + math.exp(-u))
            raw.append(math.exp(s))
        a = [value / sum(raw) for value in raw]
        torch.testing.assert_close(attention[image].flatten(), torch.tensor(a, dtype=torch.float64))
        z = torch.tensor([sum(a_i * h[k] for a_i, h in zip(a, bag, strict=True)) for k in range(8)]).double()
        expected = network.classifier.weight @ z + network.classifier.bias
        torch.testing.assert_close(logits[image], expected.detach(), rtol=1e-6, atol=1e-6)


def test_attention_sums_to_one_in_each_image():
    network = AttentionNetwork("resnet18", weights="none", seed=0).eval()
    with torch.no_grad():
        attention = network.attention(network.normalise(torch.rand(3, 3, 96, 160)))
    assert attention.shape == (3, 1, 3, 5)
    assert float(attention.min()) > 0
    torch.testing.assert_close(attention.sum((1, 2, 3)), torch.ones(3))


@pytest.mark.parametrize("contrast", [1.0, 1e-3])
def test_mask_even_attention_is_stretched_per_image(contrast):
    network = tiny_attention(num_classes=2)
    scores = contrast * torch.randn(2, 1, 12, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    attention = scores.flatten(1).softmax(1).view_as(scores)
    network._attend = lambda _: attention.float()
    mask = 1 - network(torch.rand(2, 3, 384, 640))[:, 0]
    big = F.interpolate(attention, (384, 640), mode="bilinear", align_corners=True)[:, 0]
    low, high = big.amin((1, 2), keepdim=True), big.amax((1, 2), keepdim=True)
    torch.testing.assert_close(mask.double(), (big - low) / (high - low), rtol=0, atol=2e-3)


def test_even_attention_still_tells_the_class():
    network = tiny_attention()
    with torch.no_grad():
        network.score.weight.zero_()
        image = torch.rand(2, 3, 64, 96)
        prediction, logits = network(image), network.logits(network.normalise(image))
    mass = prediction[:, 1:].double().sum((2, 3))
    torch.testing.assert_close(mass / mass.sum(1, keepdim=True), logits.double().softmax(1), rtol=1e-5, atol=0)
    assert (1 - prediction[:, 0] < 1e-5).all()


def test_bad_options_are_refused():
    with pytest.raises(ConfigError):
        tiny_attention(hidden=0)
