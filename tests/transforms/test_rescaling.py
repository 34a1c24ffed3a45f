# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from PIL import Image

from glas_wsol.errors import ConfigError, ImageFileError
from glas_wsol.transforms import Rescale, Rescaled


def noise(*shape):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("setting", "size", "expected"),
    [
        ({"factor": 0.5}, (522, 775), (261, 388)),
        ({"factor": 2}, (3, 5), (6, 10)),
        ({"factor": 0.01}, (5, 700), (1, 7)),
        ({"short_side": 500}, (333, 500), (500, 751)),
        ({"short_side": 500}, (400, 300), (667, 500)),
        ({"short_side": 3}, (7, 7), (3, 3)),
        ({"factor": 0.29}, (50, 49), (15, 14)),  # 14.5 and 14.21
        ({}, (7, 9), (7, 9)),
    ],
)
def test_output_size(setting, size, expected):
    rescale = Rescale(**setting)
    assert rescale.output_size(*size) == expected
    assert rescale(noise(3, *size)).shape == (3, *expected)


def test_unchanged_size_returns_the_same_tensor():
    image = noise(3, 6, 11)
    assert Rescale()(image) is image
    assert Rescale(short_side=6)(image) is image


def test_bytes_are_antialiased_like_pillow_and_stay_bytes():
    image = noise(3, 40, 62)
    scaled = Rescale(0.5)(image)
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((31, 20), Image.Resampling.BILINEAR)
    assert scaled.dtype == torch.uint8
    difference = scaled.permute(1, 2, 0).int().numpy() - np.asarray(pillow).astype(int)
    assert np.abs(difference).max() <= 1  # Pillow rounds between its two passes
    assert float(scaled.float().std()) < 0.75 * float(image.float().std())  # plain bilinear would leave the noise


@pytest.mark.parametrize("size", [(30, 2), (2, 30), (3, 2)])
def test_image_that_becomes_one_pixel_wide_keeps_its_rows(size):
    image = noise(3, *size)
    found = Rescale(0.5)(image)
    height, width = found.shape[1:]
    wanted = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.BILINEAR)
    assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - np.asarray(wanted)).max() <= 1


@pytest.mark.parametrize("factor", [0.37, 0.5, 1.0, 1.9, 3.0])
def test_nearest_exact_is_torchs_for_every_integer_type(factor):
    labels = torch.arange(13 * 8).reshape(1, 13, 8)
    rescale = Rescale(factor, mode="nearest-exact")
    size = rescale.output_size(13, 8)
    expected = F.interpolate(labels[None].double(), size, mode="nearest-exact")[0].long()
    for dtype in (torch.int32, torch.int64, torch.uint8, torch.float32):
        assert torch.equal(rescale(labels.to(dtype)), expected.to(dtype))
    large = labels + 2**25
    assert torch.equal(rescale(large), expected + 2**25)  # a float would merge these labels


def test_image_and_mask_keep_types_metadata_and_place():
    mask = torch.zeros(1, 20, 30, dtype=torch.int32)
    mask[0, 4:8, 20:28] = 5
    item = {"image": MetaTensor(mask.float() / 5, meta={"filename_or_obj": "a.png"}), "mask": mask}
    out = Rescaled(["image", "mask"], factor=0.5, mode=["bilinear", "nearest-exact"])(item)
    assert out["mask"].dtype == torch.int32
    expected = torch.zeros(1, 10, 15, dtype=torch.int32)
    expected[0, 2:4, 10:14] = 5
    assert torch.equal(out["mask"], expected)
    assert torch.equal(out["image"].as_tensor() > 0.5, expected > 0)
    assert out["image"].meta["filename_or_obj"] == "a.png"


def test_gradients_and_half_precision_pass():
    image = torch.rand(3, 8, 10, requires_grad=True)
    Rescale(0.5)(image).sum().backward()
    assert float(image.grad.sum()) == pytest.approx(3 * 4 * 5, rel=1e-5)
    flags = torch.zeros(1, 4, 6, dtype=torch.bool)
    flags[:, :, 3:] = True
    assert Rescale(0.5)(flags).dtype == torch.bool


@pytest.mark.parametrize(
    "setting",
    [
        {"factor": 0.5, "short_side": 10},
        {"factor": 0},
        {"factor": float("inf")},
        {"short_side": 0},
        {"mode": "bicubic"},
    ],
)
def test_bad_settings_are_refused(setting):
    with pytest.raises(ConfigError):
        Rescale(**setting)
    with pytest.raises(ConfigError):
        Rescaled("image", **setting)


def sized(mpp, *shape):
    return MetaTensor(noise(*shape), meta={"mpp": mpp})


@pytest.mark.parametrize(
    ("mpp", "expected"),
    [
        ((0.62, 0.62), (261, 388)),
        ((0.6201, 0.6199), (261, 388)),  # as files round it
        ((0.31, 0.31), (131, 194)),
        ((1.24, 1.24), (522, 775)),
        ((0.31, 0.62), (261, 194)),  # width and height of a pixel
        ((np.nan, np.nan), (261, 388)),
    ],
)
def test_images_are_brought_to_the_training_pixel_size(mpp, expected):
    rescale = Rescale(0.5, training_mpp=0.62)
    assert rescale(sized(mpp, 3, 522, 775)).shape == (3, *expected)
    assert Rescale(0.5)(sized(mpp, 3, 522, 775)).shape == (3, 261, 388), "a training that records none"


def test_masks_are_rescaled_by_the_pixel_size_of_their_image():
    items = {"image": sized((0.31, 0.31), 3, 40, 60), "mask": noise(1, 40, 60), "seeds": sized((1.0, 1.0), 1, 40, 60)}
    found = Rescaled(["image", "mask", "seeds"], 1.0, mode=["bilinear"] + ["nearest-exact"] * 2, training_mpp=0.62)(
        items
    )
    assert {one.shape[1:] for one in found.values()} == {(20, 30)}


def test_image_that_would_be_enlarged_beyond_measure_is_refused():
    with pytest.raises(ImageFileError, match=r"pixels of 19 um it is enlarged to 25333 x 19000 px.*mpp"):
        Rescale(training_mpp=0.06)(sized((19.0, 19.0), 3, 60, 80))
    with pytest.raises(ConfigError, match="both mpp and a short_side"):
        Rescale(short_side=500, training_mpp=0.62)
