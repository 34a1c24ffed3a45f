# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Evidence of tissue; none of blank, blurred and non-tissue tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data as pictures
from torch import Tensor

from glas_wsol.data.phantom.bird_drawing import SPECIES, draw_bird
from glas_wsol.data.phantom.tissue import tissue_tile
from glas_wsol.results.tissue_presence import (
    BLANK,
    BLURRED,
    FLAT_MAP,
    NO_TISSUE,
    _block_means,
    edge_width,
    missing_evidence,
    stained,
)

SIZE = (66, 97)
INKS = {
    "black": (35, 35, 40),
    "blue": (40, 60, 160),
    "light blue": (60, 130, 210),
    "green": (30, 120, 70),
    "red": (190, 40, 50),
    "orange": (230, 120, 40),
}


def missing(image: Tensor, stain: str | None = "H&E") -> str:
    """What a confident network's mask would be refused for."""
    return missing_evidence(image, torch.linspace(0.02, 0.98, image[0].numel()).view(image[0].shape), stain)


def as_tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float() / 255


def tissue(seed: int = 0, size: tuple[int, int] = SIZE, scale: float = 0.25, stain_strength: float = 1.0) -> Tensor:
    generator = np.random.default_rng(seed)
    return as_tensor(tissue_tile(generator, bool(seed % 2), size, scale=scale, stain_strength=stain_strength)[0])


def blurred(image: Tensor, sigma: float, noise: float = 0.0) -> Tensor:
    """Out of focus, then photographed: noise of that standard deviation in [0, 255], whole values."""
    soft = ndimage.gaussian_filter(image.numpy(), (0, sigma, sigma), mode="reflect")
    soft = 255 * soft + noise * np.random.default_rng(0).standard_normal(soft.shape)
    return torch.from_numpy(np.clip(soft.round(), 0, 255).astype(np.float32) / 255)


def glass(size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    noise = 2 * np.random.default_rng(seed).standard_normal((*size, 3))
    return as_tensor(np.clip(np.round(np.array([242, 240, 243]) + noise), 0, 255))


def ink_on_glass(colour: tuple[int, int, int]) -> Tensor:
    """A stroke from the left border to the lower one, its border in focus."""
    image = glass()
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    stroke = torch.from_numpy(np.abs(rows - 0.5 * columns - 10) < 14)
    return torch.where(stroke, torch.tensor(colour).view(3, 1, 1) / 255 * image / 0.95, image)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("strength", [0.4, 1.0, 1.6])
def test_tissue_is_evidence_however_it_is_stained(seed, strength):
    assert missing(tissue(seed, stain_strength=strength)) == ""


@pytest.mark.parametrize("seed", range(3))
def test_tissue_at_its_full_scale_is_evidence(seed):
    assert missing(tissue(seed, (261, 388), 1.0)) == ""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("stain", ["H&E", None])
def test_weakly_stained_tissue_is_evidence_still(seed, stain):
    image = tissue(seed)
    assert missing(image.mean() + 0.45 * (image - image.mean()), stain) == ""


@pytest.mark.parametrize("value", [0.0, 0.5, 243 / 255, 1.0])
@pytest.mark.parametrize("size", [SIZE, (5, 3), (1, 1), (33, 17)])
@pytest.mark.parametrize("stain", ["H&E", None])
def test_a_tile_of_one_colour_is_blank_however_confident_the_map(value, size, stain):
    image = torch.tensor([value, 0.9 * value, value]).view(3, 1, 1).expand(3, *size)
    # One pixel's map has no range.
    assert missing(image, stain) == (FLAT_MAP if size == (1, 1) else BLANK)


@pytest.mark.parametrize("seed", range(3))
def test_a_blank_scan_with_the_camera_s_noise_is_blank(seed):
    assert missing(glass(seed=seed)) == BLANK
    noise = 4 / 255 * torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(seed))
    assert missing((0.95 + noise).clamp(0, 1)) == BLANK


def test_structure_in_one_channel_is_enough():
    image = torch.full((3, *SIZE), 0.5)
    image[2, :30, 50:] = 0.7
    assert missing(image, None) == ""
    image[2, :30, 50:] = 0.5
    image[0, :30, 50:], image[1, :30, 50:] = 0.7, 0.3  # none in their mean
    assert missing(image, None) == ""


def test_a_map_without_range_is_no_evidence():
    assert missing_evidence(tissue(), torch.full(SIZE, 0.7)) == FLAT_MAP


@pytest.mark.parametrize("side", [8, 16, 31])
def test_a_small_tile_with_structure_is_evidence(side):
    image = torch.full((3, side, side), 0.5)
    image[:, : side // 2] = 0.8
    assert missing(image, None) == ""


@pytest.mark.parametrize("noise", [0, 4, 8])
@pytest.mark.parametrize(("scale", "sigma"), [(0.5, 4), (0.5, 8), (1.0, 4), (1.0, 8)])
def test_tissue_out_of_focus_is_blurred_whatever_the_noise(scale, sigma, noise):
    for seed in range(2):
        image = tissue(seed, (200, 290), scale)
        for stain in ("H&E", None):
            assert missing(blurred(image, sigma, noise), stain) == BLURRED
            assert missing(blurred(image, 0.7, noise), stain) == "", "lenses are not perfect"


def test_a_tile_that_is_bad_in_part_only_is_evidence():
    image = tissue(0, (200, 290), 0.5)
    half = image.clone()
    half[:, :, :145] = glass((200, 145))
    assert missing(half) == ""
    corner = glass((200, 290))
    corner[:, 130:, 200:] = image[:, 130:, 200:]  # a tenth of the tile
    assert missing(corner) == ""
    soft = blurred(image, 6)
    soft[:, :, 220:] = image[:, :, 220:]
    assert missing(soft) == ""
    inked = torch.where(torch.arange(290) < 145, ink_on_glass(INKS["blue"])[:, :1, :1], image)
    assert missing(inked) == ""


@pytest.mark.parametrize("colour", INKS.values(), ids=INKS.keys())
def test_ink_on_glass_is_no_tissue(colour):
    image = ink_on_glass(colour)
    assert missing(image) == NO_TISSUE
    assert missing(image, None) == "", "without a stain it is a picture like any other"


def test_a_grey_picture_is_no_tissue_but_a_picture():
    page = torch.from_numpy(pictures.page()).float().expand(3, -1, -1) / 255
    assert missing(page) == NO_TISSUE
    assert missing(page, None) == missing(page, "") == ""
    grey = tissue().mean(dim=0).expand(3, -1, -1)
    assert missing(grey) == NO_TISSUE


@pytest.mark.parametrize("picture", ["astronaut", "camera", "chelsea", "coffee", "rocket", "brick", "grass"])
def test_photographs_are_evidence_where_no_stain_is_asked_for(picture):
    image = torch.from_numpy(np.atleast_3d(getattr(pictures, picture)())).permute(2, 0, 1).float().expand(3, -1, -1)
    assert missing(image / 255, None) == ""


def test_tissue_photograph_is_judged_by_size_and_tile_in_pixels():
    image = tissue(0, (250, 260), 0.5)
    large = torch.nn.functional.interpolate(blurred(image, 0.5)[None], scale_factor=4, mode="bicubic")[0].clamp(0, 1)
    assert missing(large, None) == ""
    assert missing(large, "H&E") == BLURRED
    assert missing(blurred(image, 4), None) == BLURRED


@pytest.mark.parametrize("species", SPECIES.values(), ids=SPECIES.keys())
def test_birds_are_evidence(species):
    for seed in range(2):
        picture, _ = draw_bird(np.random.default_rng(seed), species, (96, 130))
        assert missing(as_tensor(picture), None) == ""


@pytest.mark.parametrize("sigma", [1.0, 2.5, 4.0, 6.0])
@pytest.mark.parametrize("contrast", [0.1, 0.8])
@pytest.mark.parametrize("turned", [False, True])
def test_the_width_of_a_blurred_step_is_the_blur_s(sigma, contrast, turned):
    step = np.full((70, 111), 0.1, np.float64)
    step[:, 60:] += contrast
    step = ndimage.gaussian_filter1d(step, sigma, axis=1, truncate=8)
    assert edge_width(step.T if turned else step) == pytest.approx(sigma, abs=0.1)


def test_tissue_sharpest_edges_count_and_a_step_is_sharp():
    step = np.zeros((200, 120))
    step[:, 60:] = 0.8
    soft = ndimage.gaussian_filter1d(step, 6, axis=1)
    assert edge_width(step) < 0.5
    assert edge_width(soft) > 5.9
    assert edge_width(np.vstack([step[:100], soft])) < 1, "a third of the edge is in focus"
    line = np.zeros((60, 60))
    line[:, 30] = 1
    assert edge_width(line) == 0


def test_an_image_without_an_edge_has_no_width():
    assert edge_width(np.full((20, 30), 0.4)) == float("inf")
    assert edge_width(torch.full((5, 3), 0.4)) == float("inf")


def test_the_share_of_tissue_is_that_of_the_stained_blocks():
    image = torch.ones(3, 32, 48)
    haematoxylin = 10 ** -torch.tensor([0.39, 0.42, 0.18])
    eosin = 10 ** (-0.5 * torch.tensor([0.06, 0.84, 0.09]))
    image[:, :8, :24], image[:, 8:16, :16] = haematoxylin.view(3, 1, 1), eosin.view(3, 1, 1)  # 3 and 2 of 24 blocks
    image[:, 24:, :] = 0.4  # grey
    assert float(stained(_block_means(image)).float().mean()) == pytest.approx(5 / 24)
    assert not stained(_block_means(torch.ones(3, 32, 48))).any()
