# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RandSpatialCrop

from glas_wsol.errors import ConfigError
from glas_wsol.transforms import (
    ReflectPad,
    ReflectPadd,
    crop_back,
    pad_to_multiple,
    reflect_pad,
)


@pytest.mark.parametrize(("height", "width"), itertools.product((1, 2, 3, 7), (1, 2, 5)))
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 0, 0, 2), (3, 4, 5, 6), (0, 23, 17, 0)])
def test_reflection_is_numpys_at_any_size(height, width, pads):
    image = np.arange(2 * height * width, dtype=np.int64).reshape(2, height, width)
    top, bottom, left, right = pads
    expected = np.pad(image, ((0, 0), (top, bottom), (left, right)), mode="reflect")
    np.testing.assert_array_equal(reflect_pad(torch.from_numpy(image), *pads).numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float16, torch.float64])
def test_reflection_keeps_the_type(dtype):
    image = torch.tensor([[0, 1, 1], [1, 0, 0]], dtype=dtype)
    padded = reflect_pad(image, 1, 0, 0, 3)
    assert padded.dtype == dtype
    assert padded.int().tolist() == [[1, 0, 0, 0, 1, 0], [0, 1, 1, 1, 0, 1], [1, 0, 0, 0, 1, 0]]


def test_reflection_passes_gradients():
    image = torch.ones(1, 1, 3, requires_grad=True)
    reflect_pad(image, 0, 0, 2, 1).sum().backward()  # 2 1 [0 1 2] 1
    assert image.grad.tolist() == [[[1.0, 3.0, 2.0]]]


def test_bad_pads_and_empty_images_are_refused():
    with pytest.raises(ValueError, match="negative"):
        reflect_pad(torch.zeros(3, 4), 0, -1, 0, 0)
    with pytest.raises(ValueError, match="pixels"):
        reflect_pad(torch.zeros(3, 0), 1, 1, 1, 1)
    with pytest.raises(ValueError, match="divisor"):
        pad_to_multiple(torch.zeros(3, 4), 0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (31, 64), (33, 95), (522, 775)])
def test_padding_to_a_multiple_and_back_is_exact(height, width):
    image = torch.arange(height * width, dtype=torch.float64).reshape(1, height, width)
    padded, window = pad_to_multiple(image, 32)
    rows, columns = padded.shape[-2:]
    assert rows % 32 == 0
    assert columns % 32 == 0
    assert rows - height < 32
    assert columns - width < 32
    assert window.top == (rows - height) // 2
    assert window.left == (columns - width) // 2
    assert torch.equal(crop_back(padded, window), image)


def test_nothing_to_pad_returns_the_image_itself():
    image = torch.zeros(3, 64, 32)
    assert pad_to_multiple(image, 32)[0] is image


def test_a_fraction_of_each_sides_own_length_is_added():
    image = torch.arange(10 * 21, dtype=torch.uint8).reshape(1, 10, 21)
    padded = ReflectPad(0.5)(image)
    assert padded.shape == (1, 20, 41)  # 5 + 10 + 5, 10 + 21 + 10
    assert torch.equal(padded[:, 5:15, 10:31], image)
    assert torch.equal(ReflectPad(0)(image), image)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (30, 7), (60, 80)])
@pytest.mark.parametrize("fraction", [0, 0.5])
def test_a_following_crop_always_fits(size, fraction):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    padded = ReflectPad(fraction, min_size=(48, 33))(image)
    assert RandSpatialCrop((48, 33), random_size=False)(padded).shape == (3, 48, 33)
    height, width = padded.shape[-2:]
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    assert torch.equal(padded[:, top : top + size[0], left : left + size[1]], image)  # even on both sides


def test_image_and_mask_are_padded_alike_and_keep_their_metadata():
    mask = torch.zeros(1, 5, 9, dtype=torch.int32)
    mask[0, 1, 7] = 3
    item = {"image": MetaTensor(mask.float(), meta={"filename_or_obj": "a.png"}), "mask": mask, "label": 0}
    out = ReflectPadd(["image", "mask"], fraction=0.4, min_size=20)(item)
    assert out["image"].shape == out["mask"].shape == (1, 20, 20)
    assert out["mask"].dtype == torch.int32
    assert torch.equal(out["image"].as_tensor(), out["mask"].float())
    assert out["image"].meta["filename_or_obj"] == "a.png"
    assert out["label"] == 0
    assert ReflectPad()(np.zeros((1, 4, 6), np.float32)).shape == (1, 8, 12)


@pytest.mark.parametrize("setting", [{"fraction": -0.1}, {"fraction": float("nan")}, {"min_size": 0}])
def test_bad_settings_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        ReflectPad(**setting)
