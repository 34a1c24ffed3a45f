# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The turn, shear and isotropic scale of the paper's CUB5 recipe, against scikit-image and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import affine_transform
from skimage.transform import AffineTransform

from glas_wsol.errors import ConfigError
from glas_wsol.transforms import RandIsotropicAffined
from glas_wsol.transforms.affine import warp

CASES = [(10.0, -7.0, 1.3), (-10.0, 10.0, 0.3), (4.0, 0.0, 1.0), (0.0, 9.0, 1.5), (0.0, 0.0, 0.62)]


def image(channels: int = 3) -> torch.Tensor:
    drawn = np.random.default_rng(4)
    return torch.from_numpy(drawn.random((channels, 45, 71)))


def expected(values: torch.Tensor, angle: float, shear: float, scale: float, order: int) -> np.ndarray:
    """By scikit-image's matrices, of points (x, y), and scipy's sampling, of indices (row, column)."""
    height, width = values.shape[-2:]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    sheared = AffineTransform(matrix=np.array([[1, np.tan(np.deg2rad(shear)), 0], [0, 1, 0], [0, 0, 1]]))
    turned = AffineTransform(rotation=np.deg2rad(angle), scale=(scale, scale))
    there = AffineTransform(translation=-centre) + sheared + turned + AffineTransform(translation=centre)
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    back = swap @ np.linalg.inv(there.params) @ swap
    return np.stack([affine_transform(one.numpy(), back, order=order, mode="reflect") for one in values])


@pytest.mark.parametrize("case", CASES)
def test_warp_equals_scikit_image_and_scipy(case):
    np.testing.assert_allclose(warp(image(), *case).numpy(), expected(image(), *case, order=1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES[:2])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
def test_warp_nearest_keeps_labels_and_type(case, dtype):
    labels = (image(1) * 250).to(dtype) + (2**25 + 1 if dtype == torch.int32 else 0)
    warped = warp(labels, *case, mode="nearest")
    assert warped.dtype == dtype
    assert set(warped.unique().tolist()) <= set(labels.unique().tolist())
    assert float((warped.numpy() == expected(labels, *case, order=0)).mean()) > 0.999, "but for ties"


def test_warp_directions_are_those_documented():
    dot = torch.zeros(1, 21, 41)
    dot[0, 10, 36] = 1  # 16 px right of the centre

    def place(**change: float) -> list[int]:
        case = {"angle": 0.0, "shear": 0.0, "scale": 1.0, **change}
        return np.unravel_index(int(warp(dot, **case)[0].argmax()), (21, 41))

    assert place() == (10, 36)
    assert place(scale=0.5) == (10, 28)
    assert place(angle=30.0) == (18, 34)  # 16 sin 30 below, 16 cos 30 = 13.9 to the right
    low = torch.zeros(1, 21, 41)
    low[0, 18, 20] = 1
    assert np.unravel_index(int(warp(low, 0.0, 45.0, 1.0)[0].argmax()), (21, 41)) == (18, 28)


def test_random_affine_draws_evenly_within_the_ranges():
    transform = RandIsotropicAffined("image", degrees=10, shear=8, scale=(0.3, 1.5)).set_random_state(0)
    drawn = []
    for _ in range(4000):
        transform.randomize()
        drawn.append(transform.drawn)
    for values, (low, high) in zip(np.array(drawn).T, [(-10, 10), (-8, 8), (0.3, 1.5)], strict=True):
        quarters = np.histogram(values, np.linspace(low, high, 5))[0]
        assert quarters.sum() == 4000
        assert quarters.min() > 900
    assert np.abs(np.corrcoef(np.array(drawn).T) - np.eye(3)).max() < 0.1


def test_random_affine_is_one_draw_for_all_keys_and_seeded():
    item = {"image": MetaTensor(image()), "mask": (image(1) > 0.5).to(torch.uint8), "label": 1}
    transform = RandIsotropicAffined(["image", "mask"], mode=["bilinear", "nearest"]).set_random_state(3)
    first = transform(item)
    assert isinstance(first["image"], MetaTensor)
    assert torch.equal(first["mask"], warp(item["mask"], *transform.drawn, "nearest"))
    assert torch.equal(torch.as_tensor(first["image"]), warp(image(), *transform.drawn))
    assert torch.equal(transform.set_random_state(3)(item)["mask"], first["mask"])
    assert not torch.equal(transform(item)["mask"], first["mask"])
    assert torch.equal(item["mask"], (image(1) > 0.5).to(torch.uint8)), "the given item is left alone"


def test_random_affine_of_probability_zero_changes_nothing():
    item = {"image": image()}
    assert RandIsotropicAffined("image", prob=0.0)(item)["image"] is item["image"]


@pytest.mark.parametrize("options", [{"degrees": -1}, {"shear": 90}, {"scale": (1.5, 0.3)}, {"scale": (0, 1)}])
def test_random_affine_out_of_range_is_refused(options):
    with pytest.raises(ConfigError):
        RandIsotropicAffined("image", **options)
