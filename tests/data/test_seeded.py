# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Augmentation is a function of seed, epoch and index, and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, Lambdad, RandFlipd, RandSpatialCropd, ScaleIntensityRanged

from glas_wsol.data.seeded import SeededCacheDataset, mix_seeds
from glas_wsol.transforms import RandColorJitterd

SIZE = 6


def read(key: int) -> torch.Tensor:
    """A non-square image of bytes; calls are counted."""
    read.calls += 1
    return torch.from_numpy(np.random.default_rng(key).integers(0, 256, (3, 20, 33), dtype=np.uint8))


read.calls = 0


def dataset(seed: int = 0) -> SeededCacheDataset:
    transform = Compose(
        [
            Lambdad("image", read),
            RandSpatialCropd("image", (12, 15), random_size=False),
            RandFlipd("image", 0.5, spatial_axis=1),
            ScaleIntensityRanged("image", 0, 255, 0.0, 1.0),
            RandColorJitterd("image", 0.3, 0.3, 0.3, 0.05),
        ]
    )
    return SeededCacheDataset([{"image": n, "label": n % 2} for n in range(SIZE)], transform, seed)


def image(data: SeededCacheDataset, index: int) -> torch.Tensor:
    return torch.as_tensor(data[index]["image"]).clone()


@pytest.fixture(scope="module")
def expected() -> dict[tuple[int, int], torch.Tensor]:
    """Images by epoch and index, each from a fresh data set that has drawn nothing before."""
    found = {}
    for epoch in (0, 1):
        for index in range(SIZE):
            data = dataset()
            data.set_epoch(epoch)
            found[epoch, index] = image(data, index)
    return found


def test_order_repetition_and_history_do_not_matter(expected):
    data = dataset()
    for epoch in (1, 0, 1):
        data.set_epoch(epoch)
        for index in (3, 0, 5, 5, 1, 3, 2, 4):
            assert torch.equal(image(data, index), expected[epoch, index])


def test_the_global_generators_do_not_matter(expected):
    data = dataset()
    torch.manual_seed(5)
    np.random.seed(9)
    assert torch.equal(image(data, 2), expected[0, 2])


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_do_not_matter(expected, workers):
    loader = DataLoader(dataset(), batch_size=2, num_workers=workers)
    got = torch.cat([torch.as_tensor(batch["image"]) for batch in loader])
    assert torch.equal(got, torch.stack([expected[0, index] for index in range(SIZE)]))


def test_epochs_and_seeds_and_equal_images_at_other_places_differ(expected):
    different = sum(not torch.equal(expected[0, index], expected[1, index]) for index in range(SIZE))
    assert different == SIZE
    assert not torch.equal(image(dataset(seed=1), 2), expected[0, 2])
    twins = dataset()
    twins.set_data([{"image": 0, "label": 0}] * 2)
    assert not torch.equal(image(twins, 0), image(twins, 1))


def test_the_cache_holds_bytes_and_nothing_is_read_twice():
    read.calls = 0
    data = dataset()
    for index in (0, 1, 0, 5):
        image(data, index)
    assert read.calls == SIZE
    cached = [torch.as_tensor(item["image"]) for item in data._cache]
    assert [(c.dtype, tuple(c.shape)) for c in cached] == [(torch.uint8, (3, 20, 33))] * SIZE
    assert torch.equal(cached[4], read(4)), "augmentation must not reach the cache"


def test_without_random_transforms_it_is_a_cache():
    data = SeededCacheDataset([{"image": 3}], Compose([Lambdad("image", read)]))
    assert torch.equal(data[0]["image"], read(3))


def test_mixed_seeds_are_distinct_and_fixed():
    values = {mix_seeds(a, b) for a in range(30) for b in range(30)}
    assert len(values) == 900, "neighbours, and (a, b) against (b, a), must not meet"
    assert mix_seeds(0, 1) == mix_seeds(0, 1)
    assert all(0 <= value < 2**32 for value in values)
