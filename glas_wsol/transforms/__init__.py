# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What MONAI lacks: colour and stain jitter, stain normalisation, exact padding, 2-D reading that never transposes."""

from __future__ import annotations

from glas_wsol.transforms.affine import RandIsotropicAffineD, RandIsotropicAffined, RandIsotropicAffineDict
from glas_wsol.transforms.color import RandColorJitter, RandColorJitterD, RandColorJitterd, RandColorJitterDict
from glas_wsol.transforms.geometry import (
    ReflectPad,
    ReflectPadD,
    ReflectPadd,
    ReflectPadDict,
    Window,
    crop_back,
    pad_to_multiple,
    reflect_pad,
)
from glas_wsol.transforms.normalization import NormalizeStain, NormalizeStainD, NormalizeStaind, NormalizeStainDict
from glas_wsol.transforms.reading import MAX_PIXELS, TileReader, read_mask, read_rgb
from glas_wsol.transforms.rescaling import Rescale, RescaleD, Rescaled, RescaleDict
from glas_wsol.transforms.stain import (
    RandHEStainJitter,
    RandHEStainJitterD,
    RandHEStainJitterd,
    RandHEStainJitterDict,
)

__all__ = [
    "MAX_PIXELS",
    "NormalizeStain",
    "NormalizeStainD",
    "NormalizeStainDict",
    "NormalizeStaind",
    "RandColorJitter",
    "RandColorJitterD",
    "RandColorJitterDict",
    "RandColorJitterd",
    "RandHEStainJitter",
    "RandHEStainJitterD",
    "RandHEStainJitterDict",
    "RandHEStainJitterd",
    "RandIsotropicAffineD",
    "RandIsotropicAffineDict",
    "RandIsotropicAffined",
    "ReflectPad",
    "ReflectPadD",
    "ReflectPadDict",
    "ReflectPadd",
    "Rescale",
    "RescaleD",
    "RescaleDict",
    "Rescaled",
    "TileReader",
    "Window",
    "crop_back",
    "pad_to_multiple",
    "read_mask",
    "read_rgb",
    "reflect_pad",
]
