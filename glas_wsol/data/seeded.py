# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A cached dataset whose random transforms are a function of (seed, epoch, index) alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from monai.data import CacheDataset
from monai.transforms import Randomizable

__all__ = ["SeededCacheDataset", "mix_seeds"]


def mix_seeds(*seeds: int) -> int:
    """One 32-bit seed from several numbers; neighbouring numbers give unrelated seeds (zeros at the end do not count).

    Args:
        seeds: non-negative integers.
    """
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])


class SeededCacheDataset(CacheDataset):
    """MONAI's ``CacheDataset``, with augmentation that does not depend on workers, order, or a resumed process.

    Everything before the first random transform is computed once and kept in memory: keep it in bytes.

    Args:
        data: items, as MONAI takes them.
        transform: a ``Compose``.
        seed: of the augmentation. Defaults to 0.
        kwargs: further arguments of ``CacheDataset``; ``progress`` defaults to False.
    """

    def __init__(self, data: Sequence, transform: Sequence[Callable] | Callable, seed: int = 0, **kwargs: Any) -> None:
        self.seed, self.epoch = seed, 0
        super().__init__(data, transform, **{"num_workers": 1, "progress": False, **kwargs})

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation is drawn next.

        Args:
            epoch: from 0.
        """
        self.epoch = epoch

    def _transform(self, index: int) -> Any:
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=mix_seeds(self.seed, self.epoch, index % len(self)))
        return super()._transform(index)
