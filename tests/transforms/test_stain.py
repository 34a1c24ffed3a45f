# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from skimage.color import hed_from_rgb, rgb_from_hed

from glas_wsol.errors import ConfigError
from glas_wsol.transforms import RandHEStainJitter, RandHEStainJitterd


def tissue(height=13, width=22):
    """Every colour, from fairly dark to bright."""
    return 0.05 + 0.9 * torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


def fixed(alpha, beta):
    jitter = RandHEStainJitter()
    jitter.randomize()
    jitter.alpha, jitter.beta = alpha, beta
    return lambda image: jitter(image, randomize=False)


def amounts(image):
    """Haematoxylin, eosin, residual: skimage's Ruifrok basis on natural optical densities, ``[H, W, 3]``."""
    return -np.log(image.double().permute(1, 2, 0).numpy()) @ hed_from_rgb


def test_zero_strength_is_the_identity():
    image = torch.cat([tissue(), torch.zeros(3, 2, 22), torch.ones(3, 2, 22)], dim=1)
    torch.testing.assert_close(RandHEStainJitter(0, 0)(image), image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stain", [0, 1])
def test_scaling_changes_one_stains_amount_and_no_other(stain):
    image = torch.exp(-torch.from_numpy(rgb_from_hed.T @ np.abs(amounts(tissue(4, 7))).reshape(-1, 3).T / 3))
    image = image.reshape(3, 4, 7)  # real stains: no negative amounts, so nothing is clamped
    alpha = [1.0, 1.0]
    alpha[stain] = 1.3
    before, after = amounts(image), amounts(fixed(alpha, (0.0, 0.0))(image))
    expected = before.copy()
    expected[..., stain] *= 1.3
    np.testing.assert_allclose(after, expected, atol=1e-6)


def test_shift_adds_to_tissue_in_full_and_to_thin_tissue_in_part():
    density = torch.from_numpy(rgb_from_hed[:2].sum(0)).view(3, 1, 1)
    thick, thin = torch.exp(-0.6 * density), torch.exp(-0.075 * density / density.mean())
    shifted = fixed((1.0, 1.0), (0.08, -0.03))
    np.testing.assert_allclose((amounts(shifted(thick)) - amounts(thick))[0, 0], [0.08, -0.03, 0], atol=1e-6)
    np.testing.assert_allclose((amounts(shifted(thin)) - amounts(thin))[0, 0], [0.04, -0.015, 0], atol=1e-6)


def test_white_stays_white_and_black_stays_black():
    white, black = torch.ones(3, 4, 7), torch.zeros(3, 4, 7)
    jitter = RandHEStainJitter(0.5, 0.5).set_random_state(0)
    for _ in range(20):
        torch.testing.assert_close(jitter(white), white, rtol=0, atol=1e-6)
        torch.testing.assert_close(jitter(black), black, rtol=0, atol=1e-3)


def test_draws_are_uniform_independent_and_the_result_in_range():
    jitter = RandHEStainJitter(0.2, 0.1).set_random_state(1)
    drawn = []
    image = tissue()
    before = image.clone()
    for _ in range(300):
        out = jitter(image)
        assert float(out.min()) >= 0
        assert float(out.max()) <= 1
        drawn.append([*jitter.alpha, *jitter.beta])
    low, high = np.min(drawn, axis=0), np.max(drawn, axis=0)
    np.testing.assert_allclose(low, [0.8, 0.8, -0.1, -0.1], atol=0.01)
    np.testing.assert_allclose(high, [1.2, 1.2, 0.1, 0.1], atol=0.01)
    assert np.abs(np.corrcoef(np.transpose(drawn)) - np.eye(4)).max() < 0.2
    torch.testing.assert_close(image, before, rtol=0, atol=0)


def test_same_seed_same_jitter_one_draw_for_all_keys():
    item = {"a": tissue(), "b": tissue(), "label": 1}
    first = Compose([RandHEStainJitterd(["a", "b"])]).set_random_state(7)(item)
    second = Compose([RandHEStainJitterd(["a", "b"])]).set_random_state(7)(item)
    third = Compose([RandHEStainJitterd(["a", "b"])]).set_random_state(8)(item)
    torch.testing.assert_close(first["a"], second["b"], rtol=0, atol=0)
    assert not torch.equal(first["a"], third["a"])
    assert first["label"] == 1
    unchanged = RandHEStainJitterd("a", prob=0.0)(item)
    assert torch.equal(unchanged["a"], item["a"])


def test_metadata_and_type_are_kept():
    image = MetaTensor(tissue().double(), meta={"filename_or_obj": "a.png"})
    out = RandHEStainJitter()(image)
    assert isinstance(out, MetaTensor)
    assert out.dtype == torch.float64
    assert out.meta["filename_or_obj"] == "a.png"
    assert RandHEStainJitter(prob=0.0)(image) is image


@pytest.mark.parametrize("image", [torch.zeros(3, 4, 5, dtype=torch.uint8), torch.full((3, 4, 5), 2.0)])
def test_other_images_are_refused(image):
    with pytest.raises(ConfigError, match="ScaleIntensityRange"):
        RandHEStainJitter()(image)


@pytest.mark.parametrize("setting", [{"sigma_scale": 1.1}, {"sigma_scale": -0.1}, {"sigma_shift": -0.1}])
def test_strengths_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        RandHEStainJitter(**setting)
