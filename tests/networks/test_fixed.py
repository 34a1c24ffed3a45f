# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The floors against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import binary_dilation, binary_erosion

from glas_wsol.errors import ConfigError
from glas_wsol.networks import FixedMaskNetwork
from glas_wsol.networks.checkpoint import load_checkpoint
from glas_wsol.networks.fixed import centre_gaussian, stain_map
from glas_wsol.networks.weights import load_strictly, read_state_dict

PINK, PURPLE = (0.93, 0.75, 0.86), (0.45, 0.30, 0.60)


def tile() -> torch.Tensor:
    """``[3, 64, 96]``: pink with one purple rectangle, off the centre and longer than high."""
    image = torch.tensor(PINK).view(3, 1, 1).repeat(1, 64, 96)
    image[:, 10:34, 50:90] = torch.tensor(PURPLE).view(3, 1, 1)
    return image


def mask_of(kind: str, image: torch.Tensor) -> torch.Tensor:
    return 1 - FixedMaskNetwork(kind)(image)[:, 0]


def test_all_ones_is_everything():
    prediction = FixedMaskNetwork("all_ones", num_classes=4)(torch.rand(2, 3, 32, 64))
    assert torch.equal(prediction[:, 0], torch.zeros(2, 32, 64))
    assert torch.equal(prediction[:, 1:], torch.full((2, 4, 32, 64), 0.25))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 80), (1, 5)])
def test_the_gaussians_half_is_the_inscribed_ellipse(height, width):
    mask = mask_of("centre_gaussian", torch.rand(2, 3, height, width))
    sigma_y, sigma_x = (side / (2 * math.sqrt(2 * math.log(2))) for side in (height, width))
    for row in range(height):
        for column in range(width):
            y, x = row + 0.5 - height / 2, column + 0.5 - width / 2
            value = math.exp(-(x**2) / (2 * sigma_x**2) - y**2 / (2 * sigma_y**2))
            assert abs(float(mask[1, row, column]) - value) < 1e-6
            radius = (2 * x / width) ** 2 + (2 * y / height) ** 2
            if abs(radius - 1) > 1e-6:
                assert (float(mask[0, row, column]) >= 0.5) == (radius < 1)


def test_the_gaussian_of_a_large_image_covers_pi_quarters_of_it():
    assert abs(float((centre_gaussian(480, 640) >= 0.5).float().mean()) - math.pi / 4) < 1e-3


def test_the_stains_mask_is_where_haematoxylin_is():
    mask = mask_of("stain", torch.stack([tile(), tile().flip(2)]))
    truth = torch.zeros(64, 96, dtype=torch.bool)
    truth[10:34, 50:90] = True
    found = (mask[0] >= 0.5).numpy()  # Otsu's threshold may lie anywhere on the edge that the smoothing drew out
    assert found[binary_erosion(truth.numpy())].all()
    assert not found[~binary_dilation(truth.numpy())].any()
    torch.testing.assert_close(mask[1], mask[0].flip(1))


def haematoxylin(image: np.ndarray) -> np.ndarray:
    """Ruifrok and Johnston's deconvolution of ``[H, W, 3]``, from their stain vectors as published."""
    vectors = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    # scikit-image measures density in units of log(1e-6)
    density = np.log(np.maximum(image, 1e-6)) / math.log(1e-6)
    return np.maximum(density @ np.linalg.inv(vectors), 0)[..., 0]


def otsu(values: np.ndarray) -> float:
    """The bin of 256 whose centre, as a threshold, has the greatest variance between the classes."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    best, threshold = -1.0, 0.0
    for i in range(1, 256):
        w0, w1 = counts[:i].sum(), counts[i:].sum()
        m0, m1 = (counts[:i] * centres[:i]).sum() / w0, (counts[i:] * centres[i:]).sum() / w1
        if w0 * w1 * (m0 - m1) ** 2 > best:
            best, threshold = w0 * w1 * (m0 - m1) ** 2, centres[i - 1]
    return float(threshold)


def blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian out to four sigma, the border mirrored, by a sum of shifted copies along each axis."""
    radius = int(4 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    for axis in (0, 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in (0, 1)]
        wide, size = np.pad(values, pad, mode="symmetric"), values.shape[axis]
        shifted = [np.take(wide, range(k, k + size), axis=axis) * tap for k, tap in enumerate(taps)]
        values = sum(shifted) / taps.sum()
    return values


def test_stain_map_either_side_of_otsu_threshold_is_linear():
    rng = np.random.default_rng(0)
    image = np.clip(tile().permute(1, 2, 0).numpy() + 0.05 * rng.standard_normal((64, 96, 3)), 0, 1)
    smooth = blurred(haematoxylin(image), sigma=64 / 64)
    threshold, low, high = otsu(smooth), smooth.min(), smooth.max()
    below, above = 0.5 * (smooth - low) / (threshold - low), 0.5 + 0.5 * (smooth - threshold) / (high - threshold)
    found = stain_map(image)
    np.testing.assert_allclose(found, np.where(smooth < threshold, below, above), atol=1e-5)
    assert (found.min(), found.max()) == (0, 1)
    assert found.dtype == np.float32


@pytest.mark.parametrize("colour", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.8, 0.5, 0.7)])
def test_a_constant_image_has_no_stain(colour):
    prediction = FixedMaskNetwork("stain")(torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 32, 64))
    assert torch.equal(prediction[:, 0], torch.ones(1, 32, 64))


def test_images_do_not_meet():
    rng = torch.Generator().manual_seed(0)
    batch = torch.stack([tile(), torch.rand(3, 64, 96, generator=rng)])
    assert torch.equal(mask_of("stain", batch)[:1], mask_of("stain", batch[:1]))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_its_empty_state_goes_through_a_file(tmp_path, suffix):
    network = FixedMaskNetwork("stain")
    assert network.state_dict() == {}
    save = torch.save if suffix == ".pt" else save_file
    save(network.state_dict(), tmp_path / f"model{suffix}")
    load_strictly(network, read_state_dict(tmp_path / f"model{suffix}"), "model", "")
    load_checkpoint(network, str(tmp_path / f"model{suffix}"))


def test_it_is_another_network_by_its_settings(tmp_path):
    torch.save({}, tmp_path / "model.pt")
    (tmp_path / "model.json").write_text('{"network": {"class": "FixedMaskNetwork", "kind": "stain"}}')
    load_checkpoint(FixedMaskNetwork("stain"), str(tmp_path / "model.pt"))
    with pytest.raises(ConfigError, match="kind was 'stain', is 'all_ones'"):
        load_checkpoint(FixedMaskNetwork("all_ones"), str(tmp_path / "model.pt"))


@pytest.mark.parametrize(("kind", "num_classes"), [("ones", 2), ("stain", 1)])
def test_bad_options_are_refused(kind, num_classes):
    with pytest.raises(ConfigError):
        FixedMaskNetwork(kind, num_classes=num_classes)


def test_it_promises_nothing_it_does_not_hold():
    network = FixedMaskNetwork("centre_gaussian")
    assert (network.supervision, network.names_class) == ("none", False)
    assert list(network.parameters()) == []
