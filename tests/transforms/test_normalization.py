# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.apps.pathology.transforms import NormalizeHEStains
from monai.data import MetaTensor

from glas_wsol.errors import ConfigError
from glas_wsol.transforms import NormalizeStain, NormalizeStaind, NormalizeStainDict

H, W = 41, 64
#: Columns haematoxylin and eosin: ordinary colours, and an eosin so strong that MONAI takes it for haematoxylin.
ORDINARY = np.array([[0.60, 0.25], [0.70, 0.85], [0.39, 0.46]])
MAGENTA = np.array([[0.44, 0.12], [0.86, 0.96], [0.26, 0.26]])
REFERENCE = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])


def slide(stains, amounts, light=240):
    """``[3, H, W]`` uint8 of given amounts ``[2, H, W]``."""
    return torch.from_numpy(np.rint(light * np.exp(-np.tensordot(stains, amounts, axes=1))).astype(np.uint8))


def random_amounts():
    """From pure haematoxylin to pure eosin, all stained."""
    random = np.random.default_rng(0)
    share = random.uniform(0, 1, (H, W))
    return random.uniform(0.7, 1.3, (H, W)) * np.stack([share, 1 - share])


@pytest.mark.parametrize("stains", [ORDINARY, MAGENTA], ids=["ordinary", "magenta"])
def test_any_laboratory_gets_the_references_colours(stains):
    amounts = random_amounts()
    highest = np.percentile(amounts.reshape(2, -1), 99, axis=1)
    expected = slide(REFERENCE, amounts * (np.array([1.9705, 1.0308]) / highest)[:, None, None], light=255)
    normalize = NormalizeStain()
    out = normalize(slide(stains, amounts))
    assert normalize.normalized
    assert out.dtype == torch.uint8
    difference = (out.int() - expected.int()).abs().float()
    assert float(difference.mean()) < 8  # 8-bit input and 1 % percentiles; swapped stains give more than 30
    assert float((expected.int() - slide(REFERENCE, amounts[::-1]).int()).abs().float().mean()) > 20


def test_it_is_monais_normalisation_where_that_works():
    image = slide(ORDINARY, random_amounts())[:, :, ::2].contiguous()
    # MONAI orders the stains by red over blue; here that puts eosin first, so its target is given in that order.
    swapped = NormalizeHEStains(target_he=REFERENCE[:, ::-1], max_cref=(1.0308, 1.9705))
    monai = swapped(image.permute(1, 2, 0).numpy()).transpose(2, 0, 1)
    ours = NormalizeStain()(image).numpy() * (240 / 255)
    np.testing.assert_allclose(ours, monai, atol=3)


def test_blank_glass_comes_out_white_beside_tissue():
    image = slide(ORDINARY, random_amounts())
    image[:, :20, :10] = 245
    out = NormalizeStain()(image)
    assert out[:, :20, :10].unique().tolist() == [255]


def noise(seed=0):
    return torch.randint(0, 256, (1, H, W), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


ONE_PIXEL = torch.full((3, H, W), 255, dtype=torch.uint8)
ONE_PIXEL[:, 3, 5] = torch.tensor([120, 60, 140], dtype=torch.uint8)


@pytest.mark.parametrize(
    "image",
    [
        torch.full((3, H, W), 255, dtype=torch.uint8),
        torch.zeros(3, H, W, dtype=torch.uint8),
        torch.tensor([180, 90, 140], dtype=torch.uint8).view(3, 1, 1).expand(3, H, W).clone(),
        noise().expand(3, H, W).clone(),
        ONE_PIXEL,
        torch.full((3, 1, 1), 100, dtype=torch.uint8),
    ],
    ids=["white", "black", "one colour", "grey", "one pixel of tissue", "1 x 1"],
)
@pytest.mark.parametrize("as_float", [False, True])
def test_tiles_without_two_stains_come_back_unchanged_and_say_so(image, as_float):
    image = image / 255 if as_float else image
    normalize = NormalizeStain()
    out = normalize(MetaTensor(image))
    assert not normalize.normalized
    assert out.meta["stain_normalized"] is False
    assert torch.equal(out.as_tensor(), image)
    assert normalize(MetaTensor(slide(ORDINARY, random_amounts()))).meta["stain_normalized"] is True
    assert normalize.normalized


def test_little_tissue_is_a_setting():
    image = torch.full((3, H, W), 255, dtype=torch.uint8)
    image[:, :5, :10] = slide(ORDINARY, random_amounts())[:, :5, :10]  # 2 % of the tile
    for least, expected in ((0.01, True), (0.05, False)):
        normalize = NormalizeStain(min_tissue=least)
        normalize(image)
        assert normalize.normalized is expected


def test_floats_numpy_metadata_and_dictionaries():
    image = slide(ORDINARY, random_amounts())
    expected = NormalizeStain()(image)
    source = MetaTensor(image / 255, meta={"filename_or_obj": "a.png"})
    out = NormalizeStaind(["image"])({"image": source, "label": 1})
    assert out["label"] == 1
    assert out["image"].dtype == torch.float32
    assert out["image"].meta["filename_or_obj"] == "a.png"
    assert "stain_normalized" not in source.meta
    torch.testing.assert_close(out["image"].as_tensor() * 255, expected.float(), rtol=0, atol=0.51)
    assert torch.equal(torch.as_tensor(NormalizeStain()(image.numpy())), expected)
    assert NormalizeStainDict is NormalizeStaind


def test_target_is_used():
    amounts = random_amounts()
    target = NormalizeStain(target=MAGENTA.tolist(), max_concentrations=(1.0, 1.0))
    default = NormalizeStain()
    assert not torch.equal(target(slide(ORDINARY, amounts)), default(slide(ORDINARY, amounts)))
    same = NormalizeStain(
        target=ORDINARY.tolist(), max_concentrations=np.percentile(amounts.reshape(2, -1), 99, axis=1)
    )
    kept = same(slide(ORDINARY, amounts))  # its own colours: no more than the brightness of glass changes
    assert float((kept * (240 / 255) - slide(ORDINARY, amounts)).abs().mean()) < 3


@pytest.mark.parametrize(
    "setting",
    [
        {"target": [[1.0, 2.0]]},
        {"max_concentrations": (1.0, 0.0)},
        {"min_tissue": 2},
        {"light": 0},
    ],
)
def test_bad_settings_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        NormalizeStain(**setting)


@pytest.mark.parametrize("image", [torch.full((3, 4, 5), 9.0), torch.zeros(1, 4, 5, dtype=torch.uint8)])
def test_other_images_are_refused(image):
    with pytest.raises(ConfigError, match="NormalizeStain"):
        NormalizeStain()(image)
