# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes mask and soft map of a slide as pyramids of tiles, which OpenSlide, QuPath and others open."""

from __future__ import annotations

import math
import uuid
import zlib
from collections.abc import Iterator
from os import PathLike

import numpy as np
import tifffile

from glas_wsol.utils.atomic_files import atomic_write

__all__ = ["write_pyramid"]

_TILE = 512
_NOTHING = zlib.compress(bytes(_TILE * _TILE))


def write_pyramid(path: str | PathLike[str], array: np.ndarray, mpp: tuple[float, float], *, ome: bool = False) -> None:
    """Write an image as a pyramidal BigTIFF, tile by tile: Deflate, levels of half the size each, px per centimetre.

    Args:
        array: ``[H, W]`` bool, written as 0 and 255, or uint8; may be mapped from the disk.
        mpp: width and height of a pixel, micrometres.
        ome: whether to write OME-TIFF, whose smaller levels OpenSlide does not see. Defaults to False.
    """
    count = 1 + max(0, math.ceil(math.log2(max(array.shape) / _TILE)))
    about = {"axes": "YX", "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, f"glas_wsol {array.shape}"))}
    about |= {f"PhysicalSize{axis}": side for axis, side in zip("XY", mpp, strict=True)}
    about |= {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    with atomic_write(path) as file, tifffile.TiffWriter(file, bigtiff=True, ome=ome) as tiff:
        for every in (2**n for n in range(count)):
            level = array[::every, ::every]
            first = ome and every == 1
            tiff.write(
                _tiles(level),
                shape=level.shape,
                dtype=np.uint8,
                tile=(_TILE, _TILE),
                photometric="minisblack",
                compression="zlib",
                software="glas_wsol",
                subfiletype=0 if every == 1 else 1,
                resolution=(1e4 / (mpp[0] * every), 1e4 / (mpp[1] * every)),
                resolutionunit="CENTIMETER",
                metadata=about if first else None,
                subifds=count - 1 if first else None,
            )


def _tiles(level: np.ndarray) -> Iterator[bytes]:
    """Compressed; those of nothing, which most of a slide are, once for all."""
    for top in range(0, level.shape[0], _TILE):
        for left in range(0, level.shape[1], _TILE):
            part = np.asarray(level[top : top + _TILE, left : left + _TILE])
            if not part.any():
                yield _NOTHING
                continue
            tile = np.zeros((_TILE, _TILE), np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part.astype(np.uint8) * (255 if part.dtype == bool else 1)
            yield zlib.compress(tile.tobytes())
