# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Pad by reflection to any size, for training crops; pad to a multiple of the stride, and crop back, for whole tiles.

MONAI and torch refuse a reflection longer than the image, which a small tile before a large crop needs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, ensure_tuple_rep

from glas_wsol.errors import ConfigError
from glas_wsol.transforms._tensors import to_tensor

__all__ = ["ReflectPad", "ReflectPadd", "Window", "crop_back", "pad_to_multiple", "reflect_pad"]


class Window(NamedTuple):
    """Where an image lies inside its padded self, in pixels."""

    top: int
    left: int
    height: int
    width: int


def reflect_pad(image: torch.Tensor, top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    """Pad by reflection about the border pixels, as ``numpy.pad(mode="reflect")`` does, by any amount.

    A pad longer than the image reflects again and again; an axis of one pixel repeats it.

    Args:
        image: ``[..., H, W]`` of any type, on any device.
        top: rows to add above.
        bottom: rows to add below.
        left: columns to add on the left.
        right: columns to add on the right.

    Returns:
        ``[..., top + H + bottom, left + W + right]``; the image itself where there is nothing to add. Differentiable.
    """
    if min(top, bottom, left, right) < 0:
        raise ValueError(f"pads must not be negative, got {(top, bottom, left, right)}")
    if image.ndim < 2 or 0 in image.shape[-2:]:
        raise ValueError(f"an image [..., H, W] with pixels is needed, got shape {tuple(image.shape)}")
    for dim, before, after in ((-2, top, bottom), (-1, left, right)):
        if before or after:
            image = image.index_select(dim, _reflected(image.shape[dim], before, after, image.device))
    return image


def _reflected(length: int, before: int, after: int, device: torch.device) -> torch.Tensor:
    """Source indices of a padded axis: a triangle wave of period ``2 * (length - 1)``."""
    position = torch.arange(-before, length + after, device=device)
    if length == 1:
        return torch.zeros_like(position)
    period = 2 * (length - 1)
    position = position % period
    return torch.minimum(position, period - position)


def pad_to_multiple(image: torch.Tensor, divisor: int) -> tuple[torch.Tensor, Window]:
    """Reflect-pad both sides of each axis evenly up to the next multiple of ``divisor``; `crop_back` undoes it exactly.

    Args:
        image: ``[..., H, W]``.
        divisor: the stride both sizes must be a multiple of.

    Returns:
        The padded image (an odd row or column goes to the bottom or right), and where the original lies in it.
    """
    if divisor < 1:
        raise ValueError(f"the divisor must be at least 1, got {divisor}")
    height, width = image.shape[-2:]
    rows, columns = -height % divisor, -width % divisor
    top, left = rows // 2, columns // 2
    return reflect_pad(image, top, rows - top, left, columns - left), Window(top, left, height, width)


def crop_back(padded: torch.Tensor, window: Window) -> torch.Tensor:
    """Return the part of ``padded`` ``[..., H, W]`` that `window` names (a view)."""
    top, left, height, width = window
    return padded[..., top : top + height, left : left + width]


class ReflectPad(Transform):
    """Pad each side by a fraction of its own length, then evenly up to a least size, by reflection.

    A random crop of ``min_size`` that follows always fits. ``fraction=0.5`` is "reflect-pad 50 % per side" of the
    paper's training recipe: it lets border tissue into the middle of a crop.

    Args:
        fraction: of the height for top and bottom, of the width for left and right (rounded down); 0 or more.
        min_size: the least height and width afterwards, in px; one number for both; ``None`` for no least size.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(self, fraction: float = 0.5, min_size: Sequence[int] | int | None = None) -> None:
        if not fraction >= 0:
            raise ConfigError(f"fraction is {fraction}", "ReflectPad", "use 0 or more")
        self.fraction = fraction
        self.min_size: tuple[int, int] = (1, 1) if min_size is None else ensure_tuple_rep(min_size, 2)
        if min(self.min_size) < 1:
            raise ConfigError(f"min_size is {min_size}", "ReflectPad", "use 1 or more")

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Pad ``[C, H, W]`` of any type."""
        image = to_tensor(img)
        (top, bottom), (left, right) = (
            self.pads(length, least) for length, least in zip(image.shape[-2:], self.min_size, strict=True)
        )
        return reflect_pad(image, top, bottom, left, right)

    def pads(self, length: int, least: int) -> tuple[int, int]:
        """Return the pixels to add before and after an axis of ``length`` px that must be at least ``least`` px."""
        side = int(self.fraction * length)
        missing = max(0, least - length - 2 * side)
        return side + missing // 2, side + missing - missing // 2


class ReflectPadd(MapTransform):
    """Dictionary-based version of `ReflectPad`: image and mask alike."""

    backend = ReflectPad.backend

    def __init__(
        self,
        keys: KeysCollection,
        fraction: float = 0.5,
        min_size: Sequence[int] | int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.padder = ReflectPad(fraction, min_size)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Pad every key's ``[C, H, W]``."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.padder(d[key])
        return d
