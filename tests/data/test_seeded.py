# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Augmentation is a function of seed, epoch and index, and of nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader
from monai.data.utils import set_rnd
from monai.transforms import Compose, Lambdad, OneOf, RandFlipd, RandSpatialCropd, ScaleIntensityRanged
from PIL import Image

from glas_wsol.data import seeded
from glas_wsol.data.seeded import SeededCacheDataset, mix_seeds
from glas_wsol.transforms import RandColorJitterd
from glas_wsol.utils.background import AheadDataLoader

SIZE = 6
CONFIGS = Path(__file__).parents[2] / "bundles" / "glas_minmax_entropy" / "configs"


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
            RandColorJitterd("image", brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05),
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


def test_nested_transforms_draw_from_the_same_generator():
    def nested() -> SeededCacheDataset:
        inner = Compose([RandFlipd("image", 0.5, spatial_axis=1), RandSpatialCropd("image", (9, 9), random_size=False)])
        either = OneOf([inner, RandSpatialCropd("image", (12, 15), random_size=False)])
        return SeededCacheDataset([{"image": n} for n in range(SIZE)], Compose([Lambdad("image", read), either]))

    first = [image(nested(), index) for index in range(SIZE)]
    assert len({tuple(one.shape) for one in first}) == 2, "one of both is drawn"
    again = nested()
    for index in (4, 1, 1, 0, 5, 3, 2):
        set_rnd(again, seed=index)  # as MONAI's loaders do in their processes
        assert torch.equal(image(again, index), first[index])


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_do_not_matter(expected, workers):
    loader = DataLoader(dataset(), batch_size=2, num_workers=workers)
    got = torch.cat([torch.as_tensor(batch["image"]) for batch in loader])
    assert torch.equal(got, torch.stack([expected[0, index] for index in range(SIZE)]))


def test_draws_of_other_epochs_seeds_and_indices_differ(expected):
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


@pytest.fixture
def tiles(tmp_path) -> list[dict[str, Any]]:
    """Three tiles of one size."""
    random = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(random.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return [{"image": str(tmp_path / f"{number}.png"), "label": number % 2} for number in range(3)]


def pipeline(**settings: Any) -> Compose:
    """The augmentation of the paper's recipe for GlaS, with turns."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / "paper.json")])
    parser.update({"training_mpp": None, "crop_size": 32, "rotation": 0.75, **settings})
    return parser.get_parsed_content("train#preprocessing").flatten()


def drawn(transform: Compose) -> list[Any]:
    """All that the random transforms have drawn, and how far their generators went."""
    crop, flip, mirror, turn, _, jitter, stain, affine = transform.transforms[4:]
    numbers = [one.R.get_state()[1:3] for one in (crop, flip, mirror, turn, jitter, stain, affine)]
    made = [crop.cropper._slices, flip._do_transform, mirror._do_transform, turn._rand_k, jitter.jitter.steps]
    made.append(affine.drawn)
    return [made, [(state.tolist(), place) for state, place in numbers]]


# "meta" stands for a GPU: an operation on the CPU, or one that has to wait for a value, is an error there.
def test_draws_on_another_device_are_the_same_without_waiting(tiles):
    here, there = pipeline(affine=0.75), pipeline(affine=0.75)
    on_cpu, on_device = SeededCacheDataset(tiles, here, 5), SeededCacheDataset(tiles, there, 5, device="meta")
    assert all(item["image"].device.type == "meta" and item["image"].dtype == torch.uint8 for item in on_device._cache)
    seen = []
    for epoch in (0, 3):
        for one in (on_cpu, on_device):
            one.set_epoch(epoch)
        for index in range(3):
            image, other = on_cpu[index]["image"], on_device[index]["image"]
            assert drawn(here) == drawn(there)
            assert (image.shape, image.dtype) == (other.shape, other.dtype)
            assert (image.device.type, other.device.type) == ("cpu", "meta")
            seen.append(drawn(here)[0])
    assert any(one != seen[0] for one in seen[1:]), "something is drawn"


def test_what_is_kept_is_not_copied_and_never_changed(tiles):
    def said(item: dict[str, Any]) -> list[Any]:
        image = item["image"]
        return [image.as_tensor().clone(), str(image.meta), str(image.applied_operations), item["label"]]

    # every random transform of the recipe, each time
    always = {"stain_jitter": 1.0, "affine": 1.0, "rotation": 1.0, "vertical_flip": 1.0}
    kept = SeededCacheDataset(tiles, pipeline(**always), copy_cache=False)
    copied = SeededCacheDataset(tiles, pipeline(**always))
    before = [said(item) for item in kept._cache]
    for epoch in range(3):
        for data in (kept, copied):
            data.set_epoch(epoch)
        for index in range(3):
            torch.testing.assert_close(image(kept, index), image(copied, index), rtol=0, atol=0)
    for (pixels, *others), item in zip(before, kept._cache, strict=True):
        after, *others_after = said(item)
        assert torch.equal(pixels, after)
        assert others_after == others


def test_cache_device_full_stays_in_memory_and_is_moved_last(tiles, monkeypatch):
    padded = 3 * 100 * 140
    monkeypatch.setattr(seeded, "_free_bytes", lambda device: 5 * padded)
    data = SeededCacheDataset(tiles, pipeline(), device="meta", memory_share=0.45)
    assert [item["image"].device.type for item in data._cache] == ["meta", "meta", "cpu"]
    assert [data[index]["image"].device.type for index in range(3)] == ["meta"] * 3
    data.set_data(tiles[:2])
    assert [item["image"].device.type for item in data._cache] == ["meta"] * 2, "the room of other data is free again"


def test_reading_threads_use_the_current_gpu_of_the_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)  # of each thread: elsewhere it would be the first
    asked = []
    monkeypatch.setattr(seeded, "_free_bytes", lambda device: asked.append(device) or 0)
    found = [SeededCacheDataset([], Compose([]), device=device).device for device in ("cuda", "cuda:1", "cpu")]
    assert found == [torch.device("cuda", 3), torch.device("cuda", 1), torch.device("cpu")]
    assert asked == found


def test_mini_batches_are_made_on_the_device(tiles):
    loader = AheadDataLoader(SeededCacheDataset(tiles, pipeline(), device="meta"), ahead=1, batch_size=3)
    (batch,) = loader
    assert batch["image"].device.type == "meta"
    assert batch["image"].shape == (3, 3, 32, 32)
    assert batch["label"].tolist() == [0, 1, 0]
