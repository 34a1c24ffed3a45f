# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read the size of a pixel from the file: once, with the pixels, and carry it in the image's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glas_wsol.transforms.reading.dicom import dicom_pixel_size, is_dicom

__all__ = ["MPP", "mpp_metadata", "mpp_of_metadata", "pixel_size"]

#: The key of an image's metadata: width and height of a pixel in micrometres.
MPP = "mpp"


def pixel_size(path: Path) -> tuple[float, float] | None:
    """Width and height of a pixel in micrometres; None where the file does not record it.

    Only DICOM files are read for it. The resolution of a PNG or TIFF file is often that of a printer.
    """
    return dicom_pixel_size(path) if is_dicom(path) else None


def mpp_metadata(size: tuple[float, float] | None) -> np.ndarray:
    """The value under `MPP`: always two numbers, so that items of a batch agree; NaN where the size is not known."""
    return np.asarray((np.nan, np.nan) if size is None else size, dtype=np.float64)


def mpp_of_metadata(meta: Mapping[str, Any]) -> tuple[float, float] | None:
    """Width and height of a pixel in micrometres, or None where the metadata do not hold it."""
    width, height = (float(side) for side in meta.get(MPP, mpp_metadata(None)))
    return (width, height) if width > 0 and height > 0 else None
