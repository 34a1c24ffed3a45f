# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Recognise whole slides by their content, and say how to install what reads them."""

from __future__ import annotations

import importlib.util
from os import PathLike
from pathlib import Path

from monai.utils import optional_import

from glas_wsol.errors import ConfigError
from glas_wsol.transforms.reading.dicom import is_dicom
from glas_wsol.transforms.reading.tiff import TIFF_MAGICS

__all__ = ["is_slide", "open_slide", "require_openslide", "series_of"]

_MAGICS = (*TIFF_MAGICS, b"ZISRAWFILE")
_BY_NAME = (".mrxs", ".vms", ".vmu")  # an index beside the slide's own files: OpenSlide goes by the name too
_NAMES = (*_BY_NAME, ".svs", ".ndpi", ".scn", ".bif", ".czi", ".svslide")
"""What is taken for a slide where OpenSlide is not installed, so that it can be asked for."""
_TILE_PIXELS = 178_956_970
"""A TIFF of one level and at most so many pixels is a tile."""


def require_openslide() -> None:
    """Refuse, by a ConfigError, where the optional packages that read slides are not installed."""
    if importlib.util.find_spec("openslide") is None:
        fix = "pip install openslide-python openslide-bin, or glas_wsol[slides]"
        raise ConfigError("slides are read by OpenSlide, which is not installed", fix=fix)


def open_slide(path: str | PathLike[str]):  # noqa: ANN201 - a class of an optional package
    """Open a slide; whatever OpenSlide raises."""
    return optional_import("openslide")[0].OpenSlide(path)


def is_slide(path: str | PathLike[str]) -> bool:
    """Whether a file is a whole slide: of a scanner's format, a pyramid, or larger than a tile may be.

    Args:
        path: any file; one that cannot be read is none. A slide that OpenSlide recognises and then cannot open is one:
            its failure is the reason that a reader is given.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except (OSError, ValueError):
        return False
    if not head.startswith(_MAGICS) and head[128:] != b"DICM" and suffix not in _BY_NAME:
        return False
    if importlib.util.find_spec("openslide") is None:
        return suffix in _NAMES
    openslide, _ = optional_import("openslide")
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor is None:
        return False
    if vendor not in ("generic-tiff", "dicom"):
        return True
    try:
        with openslide.OpenSlide(path) as slide:
            width, height = slide.dimensions
            return vendor == "dicom" or slide.level_count > 1 or width * height > _TILE_PIXELS
    except openslide.OpenSlideError:
        return vendor == "dicom"


def series_of(path: str | PathLike[str]) -> str:
    """The series that a slide's DICOM file belongs to, whose other files are the same slide; empty of other formats."""
    if not is_dicom(path) or importlib.util.find_spec("openslide") is None:
        return ""
    try:
        with open_slide(path) as slide:
            return str(slide.properties.get("dicom.SeriesInstanceUID", ""))
    except Exception:  # one that cannot be opened, whose failure is reported where it is read
        return ""
