# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The one result: mask, class and evidence of tissue, blank and nearly blank tiles."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from glas_wsol.data.phantom_tissue import tissue_tile
from glas_wsol.errors import ImageFileError
from glas_wsol.localization import Localization, LocalizePredictiond, has_evidence

SIZE = (66, 97)
RAMP = torch.linspace(0.02, 0.98, SIZE[0] * SIZE[1]).view(SIZE)  # a mask of a confident network


def tissue(seed: int = 0, contrast: float = 1.0) -> Tensor:
    tile, _ = tissue_tile(np.random.default_rng(seed), bool(seed % 2), SIZE, scale=0.25)
    image = torch.from_numpy(tile).permute(2, 0, 1).float() / 255
    return image.mean() + contrast * (image - image.mean())


def prediction(decidable: Tensor, probabilities: list[float]) -> Tensor:
    """What the network's contract says: channel 0 is R-, channel k is R+ p(k)."""
    return torch.cat(
        [1 - decidable[None], decidable * torch.tensor(probabilities, dtype=decidable.dtype).view(-1, 1, 1)]
    )


def localize(image: Tensor, decidable: Tensor = RAMP, p=(0.3, 0.7), **more) -> dict:
    options = {k: more.pop(k) for k in ("threshold", "mask_threshold") if k in more}
    item = {"image": image, "pred": prediction(decidable, list(p)), **more}
    return LocalizePredictiond(["benign", "malignant"], **options)(item)


def result(**changes) -> Localization:
    values = {"name": "a", "path": "", "classes": ("x", "y", "z"), "probabilities": (0.2, 0.5, 0.3), "evidence": True}
    values["decidable"] = np.float32([[0.2, 0.5, 0.9], [0.49999, 0.1, 0.6]])
    return Localization(**{**values, **changes})


def test_the_mask_is_what_reaches_the_threshold():
    assert result().mask.tolist() == [[False, True, True], [False, False, True]]
    assert result(threshold=0.55).mask.tolist() == [[False, False, True], [False, False, True]]
    assert result().mask.dtype == bool
    assert result().decidable_fraction == 0.5


def test_the_class_is_the_most_probable():
    assert (result().label, result().class_name, result().probability) == (1, "y", 0.5)


def test_without_evidence_the_mask_is_empty_and_no_class_is_said():
    blank = result(evidence=False)
    assert not blank.mask.any()
    assert (blank.class_name, blank.probability, blank.decidable_fraction) == ("no evidence", None, 0.0)


def test_a_result_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        result().name = "b"


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
    found = localize(image, decidable)["localization"]
    assert not found.evidence
    assert not found.mask.any()


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


@pytest.mark.parametrize("p", [(0.3, 0.7), (0.999, 0.001)])
def test_the_probabilities_come_back_from_the_channels_sums(p):
    item = localize(tissue(), p=p)
    assert item["probabilities"].tolist() == pytest.approx(p, abs=1e-5)
    assert item["probabilities"].dtype == torch.float32
    assert item["localization"].probabilities == pytest.approx(p, abs=1e-5)
    assert sum(item["localization"].probabilities) == pytest.approx(1, abs=1e-12)
    assert item["localization"].label == int(np.argmax(p))


def test_the_decidable_region_is_one_minus_the_first_channel_at_the_image_s_size():
    item = localize(tissue())
    np.testing.assert_allclose(item["localization"].decidable, RAMP.numpy(), atol=1e-6)
    assert item["localization"].decidable.dtype == np.float32
    assert np.array_equal(item["localization"].mask, item["localization"].decidable >= 0.5)
    assert item["localization"].classes == ("benign", "malignant")
    assert localize(tissue(), threshold=0.8)["localization"].decidable_fraction == pytest.approx(0.18 / 0.96, abs=1e-3)


def test_the_file_is_in_the_path_and_the_item_s_name_wins():
    image = MetaTensor(tissue(), meta={"filename_or_obj": "folder/tile_7.bmp"})
    found = localize(image, name="seven")["localization"]
    assert (found.name, found.path) == ("seven", "folder/tile_7.bmp")
    assert localize(tissue(), name="seven")["localization"].path == ""


def test_the_item_keeps_what_it_had():
    image = tissue()
    item = {"image": image, "pred": prediction(RAMP, [0.5, 0.5]), "label": 1}
    given = dict(item)
    out = LocalizePredictiond(["a", "b"])(item)
    assert item.keys() == given.keys()
    assert out["label"] == 1
    assert out["image"] is image
    assert "truth" not in out


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0, [[False, True, True], [True, True, True]]), (127, [[False, False, False], [False, True, True]])],
)
@pytest.mark.parametrize("convert", [np.int32, torch.tensor, lambda v: MetaTensor(torch.tensor(v))])
def test_truth_is_what_lies_above_the_mask_threshold(threshold, expected, convert):
    votes = convert([[[0, 1, 51], [127, 128, 255]]])
    truth = localize(tissue()[:, :2, :3], RAMP[:2, :3], mask=votes, mask_threshold=threshold)["truth"]
    assert truth.dtype == torch.bool
    assert truth.tolist() == [expected]


def mask(value: float, size=SIZE, path: str = "masks/a.png") -> MetaTensor:
    made = torch.zeros(1, *size)
    made[:, : size[0] // 2] = value
    return MetaTensor(made, meta={"filename_or_obj": path})


def test_the_path_of_the_true_mask_is_kept():
    assert localize(tissue(), mask=mask(255))["truth_path"] == "masks/a.png"
    assert localize(tissue(), mask=mask(255).as_tensor())["truth_path"], "never empty where there is a truth"
    assert "truth_path" not in localize(tissue())


@pytest.mark.parametrize("size", [(SIZE[0] - 1, SIZE[1]), SIZE[::-1], (1, 1)])
def test_a_mask_of_another_size_is_refused_in_one_line(size):
    with pytest.raises(ImageFileError, match=rf"size is \({size[0]}, {size[1]}\).*66, 97.*masks/a\.png") as caught:
        localize(tissue(), mask=mask(255, size))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("largest", [1, 127])
def test_a_mask_whose_values_all_lie_below_the_threshold_is_refused(largest):
    with pytest.raises(ImageFileError, match=rf"mask_threshold=127, the largest is {largest} .*masks/a\.png"):
        localize(tissue(), mask=mask(largest), mask_threshold=127)


@pytest.mark.parametrize(("value", "pixels"), [(0, 0), (128, SIZE[0] // 2 * SIZE[1])])
def test_an_empty_mask_and_one_just_above_the_threshold_are_taken(value, pixels):
    assert int(localize(tissue(), mask=mask(value), mask_threshold=127)["truth"].sum()) == pixels


@pytest.mark.parametrize("side", [8, 16, 31])
def test_a_small_tile_with_structure_is_evidence(side):
    image = torch.full((3, side, side), 0.5)
    image[:, : side // 2] = 0.8
    assert has_evidence(image, torch.linspace(0, 1, side * side).view(side, side))
