# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Masks from maps: against torch's interpolation and values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from glas_wsol.networks.maps import evidence_map, interpolation_matrix, normalise, pseudo_threshold, resize


def test_evidence_weights_the_class_maps_by_their_probabilities():
    maps = torch.tensor([[[[1.0, 2.0]], [[10.0, -10.0]]]])
    evidence = evidence_map(maps, torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(evidence, torch.tensor([[[[3.25, -1.0]]]]))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("source", "target"), [((3, 5), (96, 160)), ((1, 4), (7, 4)), ((6, 9), (3, 2)), ((2, 2), (1, 1))]
)
def test_resize_equals_torchs_bilinear_interpolation(source, target, align_corners):
    maps = torch.rand(2, 3, *source, dtype=torch.float64)
    expected = F.interpolate(maps, size=target, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(resize(maps, *target, align_corners=align_corners), expected, rtol=1e-12, atol=1e-12)


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
