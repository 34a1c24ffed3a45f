# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Turn a random transform of images in [0, 1] into a dictionary-based one: one draw for all keys."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform

from glas_wsol.transforms._tensors import to_tensor

__all__ = ["SharedDrawd"]


class SharedDrawd(RandomizableTransform, MapTransform):
    """Applies one array transform (:attr:`array_transform`), drawn once, with a probability, to every key."""

    array_transform: ClassVar[Callable[..., Any]]
    """Has ``randomize()`` and ``__call__(img, randomize)``; made to change always (``prob=1``)."""

    def __init__(
        self, keys: KeysCollection, prob: float = 1.0, allow_missing_keys: bool = False, **strengths: Any
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.jitter = type(self).array_transform(**strengths)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> SharedDrawd:
        """Seed this transform and the one it wraps."""
        super().set_random_state(seed, state)
        self.jitter.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Change every key's ``[3, H, W]`` float image in 0..1."""
        d = dict(data)
        self.randomize(None)
        if self._do_transform:
            self.jitter.randomize()
        for key in self.key_iterator(d):
            d[key] = self.jitter(d[key], randomize=False) if self._do_transform else to_tensor(d[key])
        return d
