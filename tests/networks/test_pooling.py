# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Pooling against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from glas_wsol.errors import ConfigError
from glas_wsol.networks.pooling import WildcatPooling, build_pooling

MAPS = torch.tensor([[[[3.0, -2.0, 0.5], [7.0, 1.0, -4.0]], [[0.0, 0.0, 0.0], [0.0, 6.0, 0.0]]]])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("average", {}, [5.5 / 6, 1.0]),
        ("max", {}, [7.0, 6.0]),
        ("wildcat", {"kmax": 2}, [5.0, 3.0]),
        ("wildcat", {"kmax": 0.34}, [5.0, 3.0]),  # 0.34 * 6 = 2.04 positions
        ("wildcat", {"kmax": 0.01}, [7.0, 6.0]),  # never below one position
        ("wildcat", {"kmax": 99}, [5.5 / 6, 1.0]),  # never more than there are
        ("wildcat", {"kmax": 1, "kmin": 2, "alpha": 0.5}, [7.0 + 0.5 * -3.0, 6.0]),
        (
            "lse",
            {"sharpness": 1.0},
            [math.log(sum(map(math.exp, (3, -2, 0.5, 7, 1, -4))) / 6), math.log((5 + math.exp(6)) / 6)],
        ),
    ],
)
def test_pooled_scores(name, options, expected):
    torch.testing.assert_close(build_pooling(name, **options)(MAPS), torch.tensor([expected]))


def test_dropout_acts_on_sorted_activations_before_selection():
    pooling = WildcatPooling(kmax=2, kmin=2, alpha=1.0, dropout=0.5)
    # sorted, class 0: 7 3 1 .5 -2 -4; keep positions 0, 3 and 5, each doubled
    pattern = torch.tensor([[[2.0, 0.0, 0.0, 2.0, 0.0, 2.0], [0.0] * 6]])
    torch.testing.assert_close(pooling(MAPS, pattern), torch.tensor([[7.0 - 4.0, 0.0]]))


def test_dropout_is_drawn_in_training_only_and_keeps_the_mean():
    pooling = WildcatPooling(dropout=0.75)
    maps = torch.zeros(4, 5, 50, 50)
    pattern = pooling.draw_dropout(maps)
    assert set(pattern.unique().tolist()) == {0.0, 4.0}
    assert abs(float(pattern.mean()) - 1) < 0.05
    assert pooling.eval().draw_dropout(maps) is None


@pytest.mark.parametrize("name", ["wildcat", "average", "max", "lse"])
def test_pooling_is_differentiable(name):
    maps = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(build_pooling(name), maps)


@pytest.mark.parametrize(
    ("name", "options"), [("median", {}), ("wildcat", {"kmax": 0}), ("lse", {"sharpness": 0}), ("max", {"k": 1})]
)
def test_bad_options_are_refused(name, options):
    with pytest.raises(ConfigError):
        build_pooling(name, **options)
