# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes mask and soft map as NIfTI."""

from __future__ import annotations

import gzip
from os import PathLike

import nibabel
import numpy as np

from glas_wsol.results.localization import Localization
from glas_wsol.utils.atomic_files import atomic_write

__all__ = ["write_nifti"]


def write_nifti(mask_path: str | PathLike[str], map_path: str | PathLike[str], found: Localization) -> None:
    """Write the mask (uint8: 0 undecidable, 1 decidable) and the soft map ``R+`` (float32), each ``[W, H, 1]``.

    NIfTI's first axis is x: voxel ``(x, y, 0)`` is the pixel in column x and row y. Columns run to the patient's left
    and rows to the back, which is where ITK puts a picture that has no place in a patient: so a viewer that opens the
    tile itself lays the mask on it, upright. Lengths are millimetres where pixels have a size, else pixels (unit
    unknown); the slice is as thick as a pixel is wide.
    """
    _write(mask_path, found.mask.astype(np.uint8), found.mpp)
    _write(map_path, found.decidable.astype(np.float32), found.mpp)


def _write(path: str | PathLike[str], array: np.ndarray, pixel_size: tuple[float, float] | None) -> None:
    width, height = (1.0, 1.0) if pixel_size is None else (side / 1000 for side in pixel_size)
    affine = np.diag([-width, -height, width, 1])
    image = nibabel.Nifti1Image(np.ascontiguousarray(array.T[..., None]), affine)
    # both of NIfTI's ways to place an image, as some readers know one of them only
    image.set_sform(affine, code="aligned")
    image.set_qform(affine, code="aligned")
    image.header.set_xyzt_units("unknown" if pixel_size is None else "mm")
    with atomic_write(path) as file:
        file.write(gzip.compress(image.to_bytes(), mtime=0))  # no time, so that the same result is the same file
