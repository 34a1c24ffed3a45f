# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Maps the names of formats to the files that each writes and their writers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.results.localization import Localization
from glas_wsol.writers.dicom_seg import require_highdicom, write_dicom_seg
from glas_wsol.writers.drawing import write_png
from glas_wsol.writers.entries import write_boxes, write_entry
from glas_wsol.writers.geojson import write_geojson
from glas_wsol.writers.nifti import write_nifti
from glas_wsol.writers.overlay import write_overlay
from glas_wsol.writers.tiff_mask import write_tiff

__all__ = ["FORMATS", "OVERLAY", "Format", "check_formats", "save_localization", "write_localization"]


OVERLAY = "overlays/{}.png"
"""Below the folder of results, ``{}`` standing for the image's name: what a person opens first."""


@dataclass(frozen=True)
class Format:
    """One way to write a result.

    Attributes:
        files: below the folder of results, ``{}`` standing for the image's name.
        write: takes those paths, the result, and whether the undecidable region is to be outlined too, which formats
            without outlines pass over. It may leave out a file that the result does not need.
    """

    files: tuple[str, ...]
    write: Callable[[Sequence[Path], Localization, bool], Any]


def _write_map(path: Path, found: Localization) -> None:
    write_png(path, np.rint(found.decidable.astype(np.float64).clip(0, 1) * 65535).astype(np.uint16), found.mpp)


FORMATS: Mapping[str, Format] = {
    "png": Format(("masks/{}.png",), lambda paths, found, undecidable: write_png(paths[0], found.mask, found.mpp)),
    "png_map": Format(("maps/{}.png",), lambda paths, found, undecidable: _write_map(paths[0], found)),
    "geojson": Format(
        ("geojson/{}.geojson",),
        lambda paths, found, undecidable: write_geojson(paths[0], found, undecidable=undecidable),
    ),
    "nifti": Format(
        ("masks/{}.nii.gz", "maps/{}.nii.gz"), lambda paths, found, undecidable: write_nifti(paths[0], paths[1], found)
    ),
    "tiff": Format(
        ("masks/{}.tif", "maps/{}.tif"), lambda paths, found, undecidable: write_tiff(paths[0], paths[1], found)
    ),
    "dicom": Format(
        ("dicom/{}_seg.dcm", "dicom/{}_image.dcm"),
        lambda paths, found, undecidable: write_dicom_seg(paths[0], paths[1], found),
    ),
    "json": Format(("json/{}.json",), lambda paths, found, undecidable: write_entry(paths[0], found)),
    "csv": Format(("boxes/{}.csv",), lambda paths, found, undecidable: write_boxes(paths[0], found)),
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


def write_localization(
    folder: Path,
    found: Localization,
    formats: Iterable[str] = ("png",),
    *,
    overlay: bool = False,
    undecidable: bool = False,
) -> list[Path]:
    """Write a result in some formats; each file is written atomically, and replaces one of its name.

    Args:
        folder: receives a folder for each kind of file.
        formats: of :data:`FORMATS`.
        overlay: whether to draw the overlay too, at :data:`OVERLAY`; the result must have its image. Defaults to False.
        undecidable: whether outlines are drawn of the undecidable region too. Defaults to False.

    Raises:
        ImageFileError: where a format needs what the image's file does not have.
        OutputError: where a file cannot be written.
    """
    written: list[Path] = []
    for name in formats:
        paths = [Path(folder, file.format(found.name)) for file in FORMATS[name].files]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        FORMATS[name].write(paths, found, undecidable)
        written += [path for path in paths if path.exists()]
    if overlay:
        written.append(Path(folder, OVERLAY.format(found.name)))
        written[-1].parent.mkdir(parents=True, exist_ok=True)
        write_overlay(written[-1], found)
    return written


def save_localization(
    folder: str | Path,
    found: Localization,
    formats: str | Iterable[str] = ("png",),
    *,
    overlay: bool = True,
    undecidable: bool = False,
) -> list[Path]:
    """Write one result that no run wrote, see :func:`glas_wsol.save`."""
    chosen, folder = check_formats(formats), Path(folder)
    if found.name in ("", ".", "..") or set("/\\\0") & set(found.name):
        fix = "give it the name that its files are to have"
        raise OutputError(f"{found.name!r} is no name of a file", folder, fix)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return write_localization(
            folder, found, chosen, overlay=overlay and found.image is not None, undecidable=undecidable
        )
    except OSError as error:
        fix = "choose another folder"
        raise OutputError(f"cannot be written ({error.strerror or error})", folder, fix) from error
