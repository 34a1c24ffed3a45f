# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Masks from maps: against torch's interpolation and values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from glas_wsol.networks.maps import (
    activation_map,
    at_least_float32,
    bilinear,
    distribution,
    interpolation_matrix,
    normalise,
    pseudo_threshold,
    resize,
    score_map,
)


def test_evidence_weights_the_class_maps_by_their_probabilities():
    maps = torch.tensor([[[[1.0, 2.0]], [[10.0, -10.0]]]])
    evidence = activation_map(maps, torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(evidence, torch.tensor([[[[3.25, -1.0]]]]))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("source", "target"), [((3, 5), (96, 160)), ((1, 4), (7, 4)), ((6, 9), (3, 2)), ((2, 2), (1, 1))]
)
def test_resize_equals_torchs_bilinear_interpolation(source, target, align_corners):
    maps = torch.rand(2, 3, *source, dtype=torch.float64)
    expected = F.interpolate(maps, size=target, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(resize(maps, *target, align_corners=align_corners), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("target", [(16, 24), (7, 31), (3, 4)])
def test_bilinear_has_torchs_values_and_gradient(target, align_corners):
    draw = torch.Generator().manual_seed(1)
    maps = torch.rand(2, 3, 8, 12, dtype=torch.float64, generator=draw)
    own, torchs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    found = bilinear(own, *target, align_corners)
    expected = F.interpolate(torchs, size=target, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weight = torch.rand(found.shape, dtype=torch.float64, generator=draw)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(own.grad, torchs.grad, rtol=1e-12, atol=1e-12)
    assert torch.equal(bilinear(maps, *target, align_corners), expected), "without a gradient, torch's own"


def test_bilinear_with_a_gradient_is_not_rounded_by_autocast():
    maps = torch.rand(1, 2, 8, 12, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = bilinear(maps, 16, 24)
    torch.testing.assert_close(found, F.interpolate(maps, size=(16, 24), mode="bilinear"), rtol=1e-6, atol=1e-6)


def test_resize_is_differentiable():
    maps = torch.rand(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: resize(m, 7, 5), maps)


def test_rows_of_the_interpolation_matrix_sum_to_one():
    for source, target in [(1, 5), (5, 1), (4, 9)]:
        matrix = interpolation_matrix(source, target, True, torch.zeros(1, dtype=torch.float64))
        torch.testing.assert_close(matrix.sum(1), torch.ones(target, dtype=torch.float64))


def test_normalisation_per_sample_per_batch_and_none():
    evidence = torch.tensor([[0.0, 4.0], [2.0, 3.0]]).view(2, 1, 1, 2)
    torch.testing.assert_close(normalise(evidence, eps=0.0).flatten(), torch.tensor([0.0, 1.0, 0.0, 1.0]))
    torch.testing.assert_close(normalise(evidence, "batch", eps=0.0).flatten(), torch.tensor([0.0, 1.0, 0.5, 0.75]))
    assert normalise(evidence, "none") is evidence


def test_a_constant_map_gives_a_finite_empty_mask():
    mask = pseudo_threshold(normalise(torch.full((1, 1, 4, 6), -7.0)))
    torch.testing.assert_close(mask, torch.full((1, 1, 4, 6), 1 / (1 + math.exp(4))))
    assert (mask < 0.5).all()


def test_pseudo_threshold_is_half_at_sigma():
    values = pseudo_threshold(torch.tensor([0.0, 0.5, 1.0]), omega=8, sigma=0.5)
    torch.testing.assert_close(values, torch.tensor([1 / (1 + math.exp(4)), 0.5, 1 / (1 + math.exp(-4))]))


def test_score_map_after_resizing_is_stretched_per_image():
    evidence = torch.tensor([[0.0, 30.0], [-1.0, 1.0], [5.0, 5.0]]).view(3, 1, 1, 2)
    found = score_map(evidence, 1, 5)[:, 0, 0]
    torch.testing.assert_close(found[:2], torch.tensor([1e-6, 0.25, 0.5, 0.75, 1.0]).repeat(2, 1))
    assert torch.equal(found[2], torch.full((5,), 1e-6))


def test_distribution_is_undecidable_then_mask_times_classes():
    mask = torch.tensor([[0.25, 1.0]]).view(1, 1, 1, 2)
    found = distribution(mask, torch.tensor([[0.8, 0.2]]))
    torch.testing.assert_close(found[0, :, 0], torch.tensor([[0.75, 0.0], [0.2, 0.8], [0.05, 0.2]]))


def test_distribution_of_thresholded_map_has_gradient_of_values():
    draw = torch.Generator().manual_seed(0)
    evidence = torch.rand(2, 1, 3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(2, 3, generator=draw, dtype=torch.float64, requires_grad=True)

    def answer(evidence: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return distribution(pseudo_threshold(evidence), logits.softmax(dim=1))

    assert torch.autograd.gradcheck(answer, (evidence, logits))
    assert distribution(torch.rand(1, 1, 2, 3), torch.full((1, 2), 0.5, dtype=torch.float64)).dtype == torch.float64


def test_half_precision_is_raised_and_no_other():
    kinds = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    raised = [at_least_float32(torch.zeros(1, dtype=kind)).dtype for kind in kinds]
    assert raised == [torch.float32, torch.float32, torch.float32, torch.float64]


@pytest.mark.parametrize("mode", ["sample", "batch"])
def test_each_class_is_normalised_by_itself(mode):
    maps = torch.randn(3, 4, 5, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 5).view(1, 4, 1, 1)
    together = normalise(maps, mode)
    assert torch.equal(together, torch.cat([normalise(maps[:, k : k + 1], mode) for k in range(4)], dim=1))
    over = (2, 3) if mode == "sample" else (0, 2, 3)
    assert torch.equal(together.amin(over), torch.zeros_like(together.amin(over)))
