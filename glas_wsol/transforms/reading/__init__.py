# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read tiles and label masks from files: one module for each family of formats, one for what their samples mean."""

from __future__ import annotations

from glas_wsol.transforms.reading.outlines import OUTLINE_SUFFIX
from glas_wsol.transforms.reading.reader import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    MAX_PIXELS,
    TileReader,
    read_image,
    read_mask,
    read_rgb,
)
from glas_wsol.transforms.reading.spacing import mpp_of_metadata

__all__ = [
    "IMAGE_SUFFIXES",
    "MASK_SUFFIXES",
    "MAX_PIXELS",
    "OUTLINE_SUFFIX",
    "TileReader",
    "mpp_of_metadata",
    "read_image",
    "read_mask",
    "read_rgb",
]
