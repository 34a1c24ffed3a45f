# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Constraints on a mask: values worked out by hand on non-square masks, gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from glas_wsol.losses.constraints import extended_log_barrier, size_band, total_variation


def double(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_barrier_by_hand():
    # t = 2, edge at -1/4. Inside: -log(1/2) / 2, -log(1/4) / 2; outside: 2 z + log(4) / 2 + 1/2.
    z = double([-1.0, -0.5, -0.25, 0.0, 0.25, 3.0])
    log2 = math.log(2)
    assert extended_log_barrier(z, 2).tolist() == pytest.approx(
        [0.0, log2 / 2, log2, log2 + 0.5, log2 + 1.0, log2 + 6.5], rel=1e-14
    )


@pytest.mark.parametrize("t", [0.7, 5.0, 300.0])
def test_barrier_and_its_slope_are_continuous_at_the_edge(t):
    edge = -1 / t**2
    z = double([edge * (1 + 1e-9), edge, edge * (1 - 1e-9)]).requires_grad_()
    value = extended_log_barrier(z, t)
    assert value.tolist() == pytest.approx([2 * math.log(t) / t] * 3, rel=1e-7, abs=1e-8)
    value.sum().backward()
    assert z.grad.tolist() == pytest.approx([t] * 3, rel=1e-8)


def test_barrier_rises_everywhere_and_nears_the_hard_constraint():
    z = torch.linspace(-1, 1, 401, dtype=torch.float64)
    for t in (1.0, 5.0, 50.0):
        assert (extended_log_barrier(z, t).diff() > 0).all()
    soft, hard = extended_log_barrier(double([-0.5, 0.1]), 5), extended_log_barrier(double([-0.5, 0.1]), 500)
    assert hard[0] < soft[0] / 50
    assert hard[1] > 500 * 0.1 > soft[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_barrier_has_a_finite_gradient_wherever_it_is_asked(dtype):
    z = torch.tensor([-1.0, -0.04, -1e-30, 0.0, 1.0], dtype=dtype, requires_grad=True)
    extended_log_barrier(z, 5).sum().backward()
    assert z.grad.tolist() == pytest.approx([0.2, 5, 5, 5, 5], rel=1e-6)


def test_size_band_by_hand():
    # 2 x 4 px; areas 1/4 and 3/4 against [1/2, 0.95] with t = 10, edge at -0.01.
    masks = double([[[[1, 1, 0, 0], [0, 0, 0, 0]]], [[[1, 1, 1, 0.5], [0.5, 1, 1, 0]]]])
    violated = 10 * 0.25 + math.log(100) / 10 + 0.1  # 1/2 - 1/4 too small
    below, above = [violated, -math.log(0.25) / 10], [-math.log(0.7) / 10, -math.log(0.2) / 10]
    assert size_band(masks, 0.5, 0.95, 10).tolist() == pytest.approx(
        [a + b for a, b in zip(below, above, strict=True)], rel=1e-13
    )
    assert size_band(masks, 0.5, None, 10).tolist() == pytest.approx(below, rel=1e-13)
    assert size_band(masks, None, 0.95, 10).tolist() == pytest.approx(above, rel=1e-13)
    assert size_band(masks, None, None, 10).tolist() == [0, 0]


def test_size_band_is_least_in_its_middle():
    areas = torch.linspace(0, 1, 101, dtype=torch.float64)
    barrier = size_band(areas.view(-1, 1, 1, 1).expand(-1, 1, 3, 2), 0.2, 0.7, 5.0)
    assert float(areas[barrier.argmin()]) == pytest.approx(0.45)


def test_total_variation_by_hand():
    # Rows of the first: |1 - 0| + |0 - 0.5| and 0, over 2 rows; its columns: 1, 0, 0.5 over 3 columns.
    masks = double([[[[1, 0, 0.5], [0, 0, 0]]], [[[0.3, 0.3, 0.3], [0.3, 0.3, 0.3]]]])
    assert total_variation(masks).tolist() == pytest.approx([1.5 / 2 + 1.5 / 3, 0.0], rel=1e-14)


def test_total_variation_at_any_resolution_counts_crossed_edges():
    stripe = torch.zeros(1, 1, 4, 10, dtype=torch.float64)
    stripe[..., 3:7] = 1
    assert float(total_variation(stripe)) == 2  # every row crosses two edges, no column any
    noise = torch.rand(2, 1, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for down, across in [(3, 3), (1, 4), (2, 1)]:
        repeated = noise.repeat_interleave(down, dim=2).repeat_interleave(across, dim=3)
        torch.testing.assert_close(total_variation(repeated), total_variation(noise), rtol=1e-13, atol=0)
    turned = noise.transpose(2, 3)
    torch.testing.assert_close(total_variation(turned), total_variation(noise), rtol=1e-13, atol=0)


def test_a_mask_of_one_pixel_has_no_variation():
    assert total_variation(torch.ones(1, 1, 1, 1)).tolist() == [0]


@pytest.mark.parametrize("band", [(0.1, 0.9), (0.6, 0.9), (0.0, 0.3), (None, 0.3)])
def test_gradients_equal_finite_differences(band):
    mask = torch.rand(2, 1, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: size_band(m, *band, 5.0), mask)
    assert torch.autograd.gradcheck(total_variation, mask)
