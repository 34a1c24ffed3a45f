# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The formats of a result by name: which files each writes, and what writes them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from glas_wsol.dicom import pixel_size
from glas_wsol.errors import ConfigError
from glas_wsol.localization import Localization
from glas_wsol.writers.atomic import atomic_write
from glas_wsol.writers.dicom_seg import require_highdicom, write_dicom_seg
from glas_wsol.writers.geojson import write_geojson
from glas_wsol.writers.images import write_png
from glas_wsol.writers.nifti import write_nifti
from glas_wsol.writers.tiff import write_tiff

__all__ = ["FORMATS", "Format", "check_formats", "check_mpp", "pixel_size_of", "write_localization"]

_MPP_RANGE = (0.001, 10_000.0)


@dataclass(frozen=True)
class Format:
    """One way to write a result.

    Attributes:
        files: below the folder of results, ``{}`` standing for the image's name.
        write: takes those paths, the result, the image ``[H, W, 3]`` uint8 and the width and height of a pixel in
            micrometres or None. It may leave out a file that the result does not need.
    """

    files: tuple[str, ...]
    write: Callable[[Sequence[Path], Localization, np.ndarray, tuple[float, float] | None], Any]


def _write_map(path: Path, decidable: np.ndarray) -> None:
    values = np.rint(decidable.astype(np.float64).clip(0, 1) * 65535).astype(np.uint16)
    with atomic_write(path) as file:
        Image.fromarray(values).save(file, format="PNG")


FORMATS: Mapping[str, Format] = {
    "png": Format(("masks/{}.png",), lambda paths, found, image, size: write_png(*paths, found.mask)),
    "png_map": Format(("maps/{}.png",), lambda paths, found, image, size: _write_map(*paths, found.decidable)),
    "geojson": Format(("geojson/{}.geojson",), lambda paths, found, image, size: write_geojson(*paths, found, size)),
    "nifti": Format(
        ("masks/{}.nii.gz", "maps/{}.nii.gz"), lambda paths, found, image, size: write_nifti(*paths, found, size)
    ),
    "tiff": Format(("masks/{}.tif", "maps/{}.tif"), lambda paths, found, image, size: write_tiff(*paths, found, size)),
    "dicom": Format(
        ("dicom/{}_seg.dcm", "dicom/{}_image.dcm"),
        lambda paths, found, image, size: write_dicom_seg(*paths, found, image, size),
    ),
}
"""By the names that settings use. A new writer is an entry here."""


def check_formats(names: str | Iterable[str]) -> tuple[str, ...]:
    """Check which formats are to be written.

    Args:
        names: of :data:`FORMATS`, or one of them.

    Returns:
        Each once, in the order given.

    Raises:
        ConfigError: on an unknown name, or where a format needs a package that is not installed.
    """
    chosen = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    for name in chosen:
        if name not in FORMATS:
            near = difflib.get_close_matches(str(name).casefold(), FORMATS, n=1, cutoff=0.4)
            fix = f"did you mean {near[0]!r}? There are" if near else "choose of"
            raise ConfigError(f"there is no format {name!r}", "formats", f"{fix} {', '.join(FORMATS)}")
    if "dicom" in chosen:
        require_highdicom()
    return chosen


def check_mpp(mpp: float | Sequence[float] | None) -> tuple[float, float] | None:
    """Check a size of pixels.

    Args:
        mpp: micrometres per pixel; or two, the width and the height of a pixel; or None where unknown.

    Returns:
        Width and height of a pixel in micrometres, or None.

    Raises:
        ConfigError: if it is not a number from 0.001 to 10000, or two of them.
    """
    if mpp is None:
        return None
    low, high = _MPP_RANGE
    try:
        sides = tuple(map(float, mpp if isinstance(mpp, Sequence) and not isinstance(mpp, str) else (mpp, mpp)))
    except (TypeError, ValueError):
        sides = ()
    if len(sides) != 2 or not all(math.isfinite(side) and low <= side <= high for side in sides):
        fix = f"give micrometres per pixel from {low:g} to {high:g}, such as 0.5, or null"
        raise ConfigError(f"mpp={mpp!r} is no size of a pixel", fix=fix)
    return sides


def pixel_size_of(found: Localization, mpp: tuple[float, float] | None = None) -> tuple[float, float] | None:
    """Width and height of a result's pixels in micrometres: as given, else as its DICOM file says, else None."""
    return mpp or pixel_size(found.path)


def write_localization(
    folder: Path,
    found: Localization,
    image: np.ndarray,
    formats: Iterable[str] = ("png",),
    size: tuple[float, float] | None = None,
) -> list[Path]:
    """Write a result in some formats; each file appears whole or not at all, and replaces one of its name.

    Args:
        folder: receives a folder for each kind of file.
        found: the result.
        image: ``[H, W, 3]`` uint8, the image itself.
        formats: of :data:`FORMATS`.
        size: width and height of a pixel in micrometres; None where unknown.

    Returns:
        The files written.

    Raises:
        ImageFileError: where a format needs what the image's file does not have.
        OutputError: where a file cannot be written.
    """
    written: list[Path] = []
    for name in formats:
        paths = [Path(folder, file.format(found.name)) for file in FORMATS[name].files]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        FORMATS[name].write(paths, found, image, size)
        written += [path for path in paths if path.exists()]
    return written
