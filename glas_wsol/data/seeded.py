# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Cache a dataset whose random transforms are a function of (seed, epoch, index) alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from monai.data import CacheDataset, DistributedSampler
from monai.transforms import Compose, Randomizable
from torch import Tensor

from glas_wsol.utils import distributed
from glas_wsol.utils.background import AheadDataLoader

__all__ = ["SeededCacheDataset", "mix_seeds", "training_loader"]


def mix_seeds(*seeds: int) -> int:
    """One 32-bit seed from several numbers; neighbouring numbers give unrelated seeds (zeros at the end do not count).

    Args:
        seeds: non-negative integers.
    """
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])


class SeededCacheDataset(CacheDataset):
    """MONAI's ``CacheDataset``, with augmentation that does not depend on workers, order, or a resumed process.

    Everything before the first random transform is computed once and cached in memory: best as bytes.

    With a device, the cache is on it while there is room, and augmented there; other items are augmented on the CPU and
    then moved. Random numbers are drawn on the CPU either way, from the same seeds: the same crops and colours on any
    device, but for rounding. A process of a loader cannot share a GPU: then ``num_workers`` must be 0.

    Args:
        data: items, as MONAI takes them.
        transform: a ``Compose``.
        seed: of the augmentation. Defaults to 0.
        device: where tensors are cached and augmented; ``cuda`` is the current GPU of the thread that makes it.
            Defaults to the CPU.
        memory_share: of the memory that is free on the device when the images are read, as much may be used.
            Defaults to 0.25.
        kwargs: further arguments of ``CacheDataset``; ``progress`` defaults to False.
    """

    def __init__(
        self,
        data: Sequence,
        transform: Sequence[Callable] | Callable,
        seed: int = 0,
        device: str | torch.device = "cpu",
        memory_share: float = 0.25,
        **kwargs: Any,
    ) -> None:
        self.seed, self.epoch = seed, 0
        self._generator = np.random.RandomState(0)
        self.device, self.memory_share, self._room = _with_index(torch.device(device)), memory_share, 0.0
        # MONAI would take everything in a nested Compose as random, and cache nothing.
        transform = transform.flatten() if isinstance(transform, Compose) else transform
        super().__init__(data, transform, **{"num_workers": 1, "progress": False, **kwargs})

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation is drawn next. ``epoch``: from 0."""
        self.epoch = epoch

    def _transform(self, index: int) -> Any:
        if isinstance(self.transform, Randomizable):
            self._generator.seed(mix_seeds(self.seed, self.epoch, index % len(self)))
            _draw_from(self._generator, self.transform)
        return self._moved(cast("dict[str, Any]", super()._transform(index)))

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list:
        self._cache = []  # of other data, whose memory is needed now
        self._room = self.memory_share * _free_bytes(self.device)
        return super()._fill_cache(indices)

    def _load_cache_item(self, idx: int) -> Any:
        item = cast("dict[str, Any]", super()._load_cache_item(idx))
        size = sum(value.nbytes for value in item.values() if isinstance(value, Tensor))
        if size > self._room:
            return item
        self._room -= size
        return self._moved(item)

    def _moved(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.device.type == "cpu":  # where everything is read
            return item
        return {key: value.to(self.device) if isinstance(value, Tensor) else value for key, value in item.items()}


def training_loader(
    dataset: SeededCacheDataset, batch_size: int, seed: int = 0, num_workers: int = 0, name: str = "batch_size"
) -> AheadDataLoader:
    """Shuffled mini-batches, of several processes this one's part of each; made ahead where a GPU makes them.

    Args:
        batch_size: images of a mini-batch, over all processes.
        seed: of the order; ``loader.sampler.set_epoch`` draws another.

    Raises:
        ConfigError: if the mini-batches do not divide evenly.
    """
    sampler = DistributedSampler(
        dataset,
        even_divisible=True,
        num_replicas=distributed.world_size(),
        rank=distributed.rank(),
        shuffle=True,
        seed=seed,
    )
    own = distributed.local_share(batch_size, name)
    ahead = 0 if dataset.device.type == "cpu" else 1
    return AheadDataLoader(dataset, ahead, batch_size=own, sampler=sampler, num_workers=num_workers)


def _draw_from(generator: np.random.RandomState, transform: Randomizable) -> None:
    # One generator for all, seeded anew: to make one for each, as a seed given to a Compose does, took a fourth of the
    # time of loading, and MONAI's loaders replace those of their processes.
    if not isinstance(transform, Compose):
        transform.set_random_state(state=generator)
        return
    Randomizable.set_random_state(transform, state=generator)
    for one in transform.transforms:
        if isinstance(one, Randomizable):
            _draw_from(generator, one)


def _with_index(device: torch.device) -> torch.device:
    # The threads that read have a current GPU of their own, the first, whatever this one has chosen.
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _free_bytes(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")
