# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Change images in [0, 1] at random, and dictionaries of them: one draw for all keys."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor

from glas_wsol.transforms._tensors import require_unit_rgb, to_tensor

__all__ = ["RandImage", "SharedDrawd"]


class RandImage(RandomizableTransform):
    """A random change of float images ``[3, H, W]`` in 0..1; a subclass draws it, and makes it in ``changed``."""

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> torch.Tensor:
        """Return the changed ``[3, H, W]``, of the type given; ``randomize=False`` repeats the last draw."""
        if randomize:
            self.randomize(None)
        image = to_tensor(img)
        if not self._do_transform:
            return image
        plain = convert_to_tensor(image, track_meta=False)
        require_unit_rgb(plain, type(self).__name__)
        return convert_to_dst_type(self.changed(plain), image)[0]

    def changed(self, image: torch.Tensor) -> torch.Tensor:
        """The image, a plain tensor, with the change that was drawn."""
        raise NotImplementedError  # abstract: every random change of an image defines it


class SharedDrawd(RandomizableTransform, MapTransform):
    """Applies one array transform (:attr:`array_transform`), drawn once, with a probability, to every key."""

    backend = RandImage.backend
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
