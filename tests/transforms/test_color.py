# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from glas_wsol.errors import ConfigError
from glas_wsol.transforms import RandColorJitter, RandColorJitterd

# Golden values: torchvision 0.28.0 on IMAGE below, `import torchvision.transforms.functional as TF` (after declaring
# the operators it misses: lib = torch.library.Library("torchvision", "DEF"), lib.define("nms(Tensor dets, Tensor
# scores, float iou_threshold) -> Tensor"), and qnms alike): TF.adjust_brightness(IMAGE, 1.4), TF.adjust_contrast(IMAGE,
# 0.6), TF.adjust_saturation(IMAGE, 1.5), TF.adjust_hue(IMAGE, 0.05); then all of saturation 0.7, hue -0.04, contrast
# 1.3 and brightness 0.8 one after the other.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
IMAGE = torch.arange(24, dtype=torch.float32).mul(37).remainder(101).div(100).reshape(3, 2, 4)
# fmt: off
GOLDEN = {
    ((BRIGHTNESS, 1.4),): [
        0.0, 0.518, 1.0, 0.14, 0.658, 1.0, 0.28, 0.798, 1.0, 0.42, 0.938, 0.042, 0.56, 1.0, 0.182, 0.7, 1.0, 0.322,
        0.84, 1.0, 0.462, 0.98, 0.084, 0.602,
    ],
    ((CONTRAST, 0.6),): [
        0.18282, 0.40482, 0.62682, 0.24282, 0.46482, 0.68682, 0.30282, 0.52482, 0.74682, 0.36282, 0.58482, 0.20082,
        0.42282, 0.64482, 0.26082, 0.48282, 0.70482, 0.32082, 0.54282, 0.76482, 0.38082, 0.60282, 0.21882, 0.44082,
    ],
    ((SATURATION, 1.5),): [
        0.0, 0.39854, 0.76856, 0.07096, 0.49855, 0.86857, 0.22853, 0.59855, 1.0, 0.29354, 0.66356, 0.0, 0.39355,
        0.76357, 0.12353, 0.49355, 0.97952, 0.18854, 0.55856, 1.0, 0.28855, 0.65857, 0.01853, 0.38855,
    ],
    ((HUE, 0.05),): [
        0.0, 0.37, 0.74, 0.382, 0.47, 0.84, 0.2, 0.57, 0.728, 0.342, 0.712, 0.03, 0.442, 0.812, 0.172, 0.542, 0.94,
        0.23, 0.6, 0.97, 0.33, 0.7, 0.06, 0.43,
    ],
    ((SATURATION, 0.7), (HUE, -0.04), (CONTRAST, 1.3), (BRIGHTNESS, 0.8)): [
        0.09496, 0.25885, 0.64363, 0.0, 0.36284, 0.74763, 0.08205, 0.46684, 0.77928, 0.18343, 0.56821, 0.07629,
        0.28742, 0.67221, 0.00663, 0.39142, 0.56408, 0.15693, 0.54171, 0.64734, 0.26092, 0.64571, 0.0, 0.36492,
    ],
}
# fmt: on


@pytest.mark.parametrize("steps", GOLDEN, ids=lambda steps: "+".join("bcsh"[i] for i, _ in steps))
def test_each_operation_and_their_order_are_torchvisions(steps):
    jitter = RandColorJitter()
    jitter.randomize()
    jitter.steps = steps
    np.testing.assert_allclose(jitter(IMAGE, randomize=False).flatten().numpy(), GOLDEN[steps], atol=1.5e-5)


@pytest.mark.parametrize("turn", [-0.5, -0.17, 0.0, 0.05, 1 / 3, 0.5])
def test_the_hue_is_turned_as_colorsys_turns_it(turn):
    levels = torch.tensor([0.0, 0.25, 0.6, 1.0])  # greys, ties of two channels, and every order of three
    image = torch.cartesian_prod(levels, levels, levels).T.reshape(3, 4, 16)
    image = torch.cat([image, torch.rand(3, 4, 50, generator=torch.Generator().manual_seed(0))], dim=2)
    jitter = RandColorJitter()
    jitter.randomize()
    jitter.steps = ((HUE, turn),)
    found = jitter(image, randomize=False).reshape(3, -1).T
    for rgb, turned in zip(image.reshape(3, -1).T.tolist(), found.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
        assert turned == pytest.approx(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), abs=2e-6)


def test_color_jitter_draws_are_uniform_in_range_and_order():
    jitter = RandColorJitter(brightness=1.5, contrast=0.5, saturation=0.25, hue=0.05).set_random_state(0)
    drawn, orders = [], set()
    for _ in range(600):
        jitter.randomize()
        drawn.append([factor for _, factor in sorted(jitter.steps)])
        orders.add(tuple(i for i, _ in jitter.steps))
    low, high = np.min(drawn, axis=0), np.max(drawn, axis=0)
    lowest, highest = np.array([0, 0.5, 0.75, -0.05]), np.array([2.5, 1.5, 1.25, 0.05])
    assert (low >= lowest).all()
    assert (high <= highest).all()
    assert (high - low > 0.97 * (highest - lowest)).all()
    np.testing.assert_allclose(np.mean(drawn, axis=0), (lowest + highest) / 2, atol=0.1)
    assert len(orders) == 24


def test_zero_strength_leaves_its_operation_out():
    jitter = RandColorJitter(0, 0.5, 0, 0)
    jitter.randomize()
    assert [i for i, _ in jitter.steps] == [CONTRAST]
    torch.testing.assert_close(RandColorJitter(0, 0, 0, 0)(IMAGE), IMAGE, rtol=0, atol=0)


LAYOUTS = {
    "planes": lambda image: image,
    "channels side by side": lambda image: image.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "crop": lambda image: torch.nn.functional.pad(image, (3, 2, 1, 4))[:, 1:-4, 3:-2],
    "quarter turn": lambda image: torch.rot90(torch.rot90(image, -1, (1, 2)), 1, (1, 2)),
    "grey without memory of its own": lambda image: image[:1].expand(3, -1, -1),
    "with metadata": lambda image: MetaTensor(image.clone()),
    "array": lambda image: image.numpy().copy(),
    "with gradients": lambda image: image.clone().requires_grad_(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_result_stays_in_range_and_the_input_is_untouched(layout):
    plain = torch.rand(3, 9, 14, generator=torch.Generator().manual_seed(1))
    plain[:, 0], plain[:, 1], plain[:, 2], plain[1, 3], plain[2, 3] = 0, 1, 0.5, 1 + 1e-6, -1e-6
    image = LAYOUTS[layout](plain)
    values = torch.as_tensor(image).detach().clone(memory_format=torch.contiguous_format)
    jitter = RandColorJitter(2, 2, 2, 0.5).set_random_state(3)
    for _ in range(30):
        out = jitter(image)
        assert out.shape == image.shape
        assert float(out.min()) >= 0
        assert float(out.max()) <= 1
        assert torch.equal(torch.as_tensor(out), jitter(values, randomize=False)), "whatever the layout"
    assert torch.equal(torch.as_tensor(image), values)


def test_nearly_grey_pixels_keep_finite_colours():
    jitter = RandColorJitter()
    jitter.randomize()
    jitter.steps = ((HUE, 0.3),)
    image = torch.full((3, 2, 5), 0.0)
    image[0] = 1e-45  # a chroma too small to divide by carelessly
    assert torch.isfinite(jitter(image, randomize=False)).all()


def test_color_jitter_same_seed_reaches_wrapped_transform():
    item = {"a": IMAGE, "b": IMAGE.clone(), "label": 1}
    first = Compose([RandColorJitterd(["a", "b"])]).set_random_state(7)(item)
    second = Compose([RandColorJitterd(["a", "b"])]).set_random_state(7)(item)
    third = Compose([RandColorJitterd(["a", "b"])]).set_random_state(8)(item)
    torch.testing.assert_close(first["a"], second["a"], rtol=0, atol=0)
    torch.testing.assert_close(first["a"], first["b"], rtol=0, atol=0)  # one draw for all keys
    assert not torch.equal(first["a"], third["a"])
    assert first["label"] == 1


def test_metadata_and_type_are_kept():
    image = MetaTensor(IMAGE.double(), meta={"filename_or_obj": "a.png"})
    for transform in (RandColorJitter(), RandColorJitter(prob=0.0)):
        out = transform(image)
        assert isinstance(out, MetaTensor)
        assert out.meta["filename_or_obj"] == "a.png"
        assert out.dtype == torch.float64
    assert RandColorJitter()(IMAGE.numpy()).shape == (3, 2, 4)


def test_probability_zero_changes_nothing():
    torch.testing.assert_close(RandColorJitter(prob=0.0)(IMAGE), IMAGE, rtol=0, atol=0)
    torch.testing.assert_close(RandColorJitterd("a", prob=0.0)({"a": IMAGE})["a"], IMAGE, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 4, 5, dtype=torch.uint8), "uint8"),
        (torch.full((3, 4, 5), 255.0), "from 255 to 255"),
        (torch.full((3, 4, 5), -0.5), "from -0.5"),
        (torch.full((3, 4, 5), float("nan")), "nan"),
        (torch.zeros(1, 4, 5), "shape"),
        (torch.zeros(2, 3, 4, 5), "shape"),
    ],
)
def test_other_images_are_refused(image, message):
    with pytest.raises(ConfigError, match=message):
        RandColorJitter()(image)


@pytest.mark.parametrize("setting", [{"brightness": -0.1}, {"contrast": float("nan")}, {"hue": 0.6}])
def test_strengths_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        RandColorJitter(**setting)
