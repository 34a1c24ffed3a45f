# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Transform images where MONAI cannot: colour and stain jitter, exact padding, 2-D reading that never transposes."""

from __future__ import annotations

from glas_wsol.transforms.affine import RandIsotropicAffined
from glas_wsol.transforms.color import RandColorJitter, RandColorJitterd
from glas_wsol.transforms.geometry import ReflectPad, ReflectPadd, Window, crop_back, pad_to_multiple, reflect_pad
from glas_wsol.transforms.pixel_sized import PixelSized
from glas_wsol.transforms.reading import MAX_PIXELS, TileReader, read_mask, read_rgb
from glas_wsol.transforms.rescaling import Rescale, Rescaled
from glas_wsol.transforms.stain import RandHEStainJitter, RandHEStainJitterd

__all__ = [
    "MAX_PIXELS",
    "PixelSized",
    "RandColorJitter",
    "RandColorJitterd",
    "RandHEStainJitter",
    "RandHEStainJitterd",
    "RandIsotropicAffined",
    "ReflectPad",
    "ReflectPadd",
    "Rescale",
    "Rescaled",
    "TileReader",
    "Window",
    "crop_back",
    "pad_to_multiple",
    "read_mask",
    "read_rgb",
    "reflect_pad",
]
