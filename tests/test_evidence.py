# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Evidence of tissue, and of blank and nearly blank tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from glas_wsol.data.phantom_tissue import tissue_tile
from glas_wsol.evidence import has_evidence

SIZE = (66, 97)
RAMP = torch.linspace(0.02, 0.98, SIZE[0] * SIZE[1]).view(SIZE)  # a mask of a confident network


def tissue(seed: int = 0, contrast: float = 1.0) -> Tensor:
    tile, _ = tissue_tile(np.random.default_rng(seed), bool(seed % 2), SIZE, scale=0.25)
    image = torch.from_numpy(tile).permute(2, 0, 1).float() / 255
    return image.mean() + contrast * (image - image.mean())


@pytest.mark.parametrize("seed", range(6))
def test_tissue_is_evidence(seed):
    assert has_evidence(tissue(seed), RAMP)


@pytest.mark.parametrize("seed", range(3))
def test_weakly_stained_tissue_is_evidence_still(seed):
    assert has_evidence(tissue(seed, contrast=0.45), RAMP)


@pytest.mark.parametrize("value", [0.0, 0.5, 243 / 255, 1.0])
@pytest.mark.parametrize("size", [SIZE, (5, 3), (1, 1), (33, 17)])
def test_a_tile_of_one_colour_is_no_evidence_however_confident_the_map(value, size):
    image = torch.tensor([value, 0.9 * value, value]).view(3, 1, 1).expand(3, *size)
    decidable = torch.linspace(0, 1, size[0] * size[1]).view(size)
    assert not has_evidence(image, decidable)


@pytest.mark.parametrize("seed", range(3))
def test_a_blank_scan_with_the_camera_s_noise_is_no_evidence(seed):
    noise = 4 / 255 * torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(seed))
    assert not has_evidence((0.95 + noise).clamp(0, 1), RAMP)


def test_structure_in_one_channel_is_enough():
    image = torch.full((3, *SIZE), 0.5)
    image[2, :30, 50:] = 0.7
    assert has_evidence(image, RAMP)


def test_a_map_without_range_is_no_evidence():
    assert not has_evidence(tissue(), torch.full(SIZE, 0.7))


@pytest.mark.parametrize("side", [8, 16, 31])
def test_a_small_tile_with_structure_is_evidence(side):
    image = torch.full((3, side, side), 0.5)
    image[:, : side // 2] = 0.8
    assert has_evidence(image, torch.linspace(0, 1, side * side).view(side, side))
