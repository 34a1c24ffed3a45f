# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes mask and soft map as TIFF, with the pixel size."""

from __future__ import annotations

from os import PathLike

import numpy as np
import tifffile

from glas_wsol.results.localization import Localization
from glas_wsol.utils.atomic_files import atomic_write

__all__ = ["write_tiff"]


def write_tiff(mask_path: str | PathLike[str], map_path: str | PathLike[str], found: Localization) -> None:
    """Write the mask (uint8: 0 undecidable, 255 decidable) and the soft map ``R+`` (float32 in [0, 1]), rows first.

    The resolution is in pixels per centimetre where pixels have a size; else it has no unit. Compression (Deflate)
    loses nothing.
    """
    _write(mask_path, found.mask.astype(np.uint8) * 255, found.mpp)
    _write(map_path, found.decidable.astype(np.float32), found.mpp)


def _write(path: str | PathLike[str], array: np.ndarray, pixel_size: tuple[float, float] | None) -> None:
    per_centimetre = (1.0, 1.0) if pixel_size is None else (1e4 / pixel_size[0], 1e4 / pixel_size[1])
    with atomic_write(path) as file:
        tifffile.imwrite(
            file,
            array,
            photometric="minisblack",
            compression="zlib",
            metadata=None,
            software="glas_wsol",
            resolution=per_centimetre,
            resolutionunit="NONE" if pixel_size is None else "CENTIMETER",
        )
