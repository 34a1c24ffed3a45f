# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

from glas_wsol.utils.host_copy import _by_one_copy, to_host
from tests.standin import stand_in


def values() -> list[torch.Tensor]:
    kinds = (torch.uint8, torch.float64, torch.bool, torch.float32, torch.int64, torch.float16)
    shapes = ((3,), (2, 3), (5, 1), (), (0,), (1, 3, 2))
    return [(10 * torch.rand(shape)).to(kind) for kind, shape in zip(kinds, shapes, strict=True)]


def test_by_one_copy_gives_every_value_back():
    given = [*values(), torch.rand(4, 6).T]
    for one, other in zip(given, _by_one_copy(given), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_to_host_on_the_cpu_copies_nothing_and_on_a_gpu_waits_once():
    given = values()
    assert all(one is other for one, other in zip(given, to_host(*given), strict=True))
    with stand_in() as gpu:
        there = [one.to("cuda", non_blocking=True) for one in given]
        found = to_host(*there)
        assert gpu.waits.total() == 1
    assert [(one.shape, one.dtype, one.device.type) for one in found] == [
        (one.shape, one.dtype, "cpu") for one in given
    ]
