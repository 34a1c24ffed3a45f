# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Check the images that the transforms are given."""

from __future__ import annotations

import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.utils import convert_to_tensor

from glas_wsol.errors import ConfigError

__all__ = ["require_unit_rgb", "to_tensor"]


def to_tensor(img: NdarrayOrTensor) -> torch.Tensor:
    """Return a tensor as it is (a MetaTensor stays one), and an array as MONAI's current kind of tensor."""
    return img if isinstance(img, torch.Tensor) else convert_to_tensor(img, track_meta=get_track_meta())


def require_unit_rgb(image: torch.Tensor, where: str) -> None:
    """Raise ConfigError unless ``image`` is a float ``[3, H, W]`` in 0..1; ``where`` names the transform.

    Values are checked on the CPU only: elsewhere it would mean waiting for the device.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ConfigError(f"an image of shape {tuple(image.shape)}", where, "give RGB images [3, H, W]")
    fix = "put ScaleIntensityRanged(a_min=0, a_max=255) before it and normalisation after it"
    if not image.is_floating_point():
        raise ConfigError(f"an image of type {image.dtype}", where, fix)
    if image.device.type != "cpu":
        return
    low, high = (float(v) for v in image.aminmax())
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # so written, NaN fails too
        raise ConfigError(f"pixels from {low:g} to {high:g}, not from 0 to 1", where, fix)
