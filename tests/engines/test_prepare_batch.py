# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a training step may see."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from glas_wsol.engines.prepare_batch import ImageLabels, ImageMasks
from glas_wsol.errors import ConfigError

IMAGE = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
MASK = torch.arange(70.0).view(2, 1, 5, 7)


def test_labels_come_as_plain_tensors():
    image, label = ImageLabels()({"image": MetaTensor(IMAGE), "label": torch.tensor([1, 0])}, device="cpu")
    assert type(image) is torch.Tensor
    assert torch.equal(image, IMAGE)
    assert label.tolist() == [1, 0]


def test_a_batch_with_masks_is_refused_in_words():
    with pytest.raises(ConfigError, match="learns from image labels only"):
        ImageLabels()({"image": IMAGE, "label": torch.tensor([1, 0]), "mask": MASK})


@pytest.mark.parametrize("mask", [MASK, MetaTensor(MASK), MASK[:, 0]])
@pytest.mark.parametrize("key", ["label", "truth"])
def test_a_mask_under_another_name_is_refused_too(key, mask):
    with pytest.raises(ConfigError, match=rf"true masks \('{key}'\), and this method learns from image labels only"):
        ImageLabels()({"image": IMAGE, "label": torch.tensor([1, 0]), key: mask})


def test_masks_multi_label_vectors_and_non_tensors_are_refused():
    batch = {"image": IMAGE, "label": torch.eye(2), "name": ["a", "b"]}
    assert torch.equal(ImageLabels()(batch)[1], torch.eye(2))


def test_masks_are_binary_above_the_threshold():
    image, mask = ImageMasks(mask_threshold=30)({"image": MetaTensor(IMAGE), "mask": MetaTensor(MASK)}, device="cpu")
    assert type(image) is type(mask) is torch.Tensor
    assert mask.dtype == image.dtype
    assert torch.equal(mask, (MASK > 30).float())


def test_full_supervision_without_masks_is_refused_in_words():
    with pytest.raises(ConfigError, match="no masks"):
        ImageMasks()({"image": IMAGE, "label": torch.tensor([1, 0])})
