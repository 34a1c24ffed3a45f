# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read the size of a pixel from the file: once, with the pixels, and carry it in the image's metadata."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from monai.data import MetaTensor
from PIL.BmpImagePlugin import BmpImageFile
from tifffile import TiffFile

from glas_wsol.errors import ConfigError
from glas_wsol.transforms.pixel_size import doubt_of
from glas_wsol.transforms.reading.dicom import dicom_pixel_size, is_dicom
from glas_wsol.transforms.reading.raster import MAGICS
from glas_wsol.transforms.reading.tiff import TIFF_MAGICS

__all__ = ["DOUBT", "MPP", "PixelSize", "mpp_metadata", "mpp_of", "mpp_of_metadata", "pixel_size"]

#: The key of an image's metadata: width and height of a pixel in micrometres.
MPP = "mpp"

#: The key of an image's metadata: why the size in its file is not believed; empty where it is, or there is none.
DOUBT = "mpp_doubt"

_MICROMETRES = {"nm": 1e-3, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25400.0, "in": 25400.0}
_MICROMETRES |= dict.fromkeys(("micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"), 1.0)
_TIFF_UNITS = {2: 25400.0, 3: 1e4}


class PixelSize(NamedTuple):
    """What a file says of its pixels.

    Attributes:
        mpp: width and height of a pixel in micrometres; None where they are not recorded or not believed.
        doubt: why they are not believed, see :func:`~glas_wsol.transforms.pixel_size.doubt_of`; else empty.
    """

    mpp: tuple[float, float] | None
    doubt: str = ""


def pixel_size(path: str | Path) -> PixelSize:
    """Read the size of a pixel from a file's header.

    Of a TIFF file OME-XML, the description of Aperio's scanners, ImageJ's and the resolution tags, the first that is
    believed; of PNG ``pHYs``, of JPEG its density (JFIF, else EXIF), of BMP its pixels per metre, of DICOM see
    :func:`~glas_wsol.transforms.reading.dicom.dicom_pixel_size`. Programs write the resolution of a screen or printer
    (72 dpi, 300 dpi) where they know none: such a size, and any other that no scanner has, is not believed.

    Args:
        path: any file; one that cannot be read has no size.
    """
    doubt = ""
    try:
        for size in _recorded(Path(path)):
            found = doubt_of(*size)
            if not found:
                return PixelSize(size)
            doubt = doubt or found
    except Exception:  # nearly anything in a damaged header, which the decoder reports
        return PixelSize(None, doubt)
    return PixelSize(None, doubt)


def mpp_metadata(size: tuple[float, float] | None) -> np.ndarray:
    """The value under `MPP`: always two numbers, so that items of a batch agree; NaN where the size is not known."""
    return np.asarray((np.nan, np.nan) if size is None else size, dtype=np.float64)


def mpp_of_metadata(meta: Mapping[str, Any]) -> tuple[float, float] | None:
    """Width and height of a pixel in micrometres, or None where the metadata do not hold it."""
    width, height = (float(side) for side in meta.get(MPP, mpp_metadata(None)))
    return (width, height) if width > 0 and height > 0 else None


def mpp_of(image: Any) -> tuple[float, float] | None:
    """Width and height of a pixel of an image, or of all images of a batch; None where they are not known.

    Args:
        image: MONAI's tensor with metadata; any other has no size.

    Raises:
        ConfigError: if the images of a batch differ.
    """
    if not isinstance(image, MetaTensor) or MPP not in image.meta:
        return None
    sizes = {mpp_of_metadata({MPP: one}) for one in np.asarray(image.meta[MPP], np.float64).reshape(-1, 2)}
    if len(sizes) > 1:
        raise ConfigError("images of different pixel sizes in one batch", "mpp", "use a batch_size of 1")
    return sizes.pop()


def _recorded(path: Path) -> Iterator[tuple[float, float]]:
    """The sizes that a file records, the most trustworthy first."""
    if is_dicom(path):
        size = dicom_pixel_size(path)
        yield from () if size is None else (size,)
        return
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(0)
        if head.startswith(TIFF_MAGICS):
            yield from _of_tiff(file)
        plugin = next((plugin for magic, plugin in MAGICS.items() if head.startswith(magic)), None)
        if plugin is not None:
            image = plugin(file, str(path))
            inch = 1e6 / 39.3701 if isinstance(image, BmpImageFile) else 25400.0  # as Pillow made dpi of it
            dpi = [float(one) for one in image.info.get("dpi", ())]
            if len(dpi) == 2 and min(dpi) > 0:
                yield inch / dpi[0], inch / dpi[1]


def _of_tiff(file: BinaryIO) -> Iterator[tuple[float, float]]:
    with TiffFile(file) as tiff:
        page = tiff.pages.first
        text = page.description
        yield from _of_ome(text)
        aperio = re.search(r"\bMPP\s*=\s*([0-9.]+)", text)
        if aperio:
            yield float(aperio[1]), float(aperio[1])
        imagej = re.search(r"^unit=(.*)$", text, re.MULTILINE) if text.startswith("ImageJ=") else None
        unit = _micrometres(imagej[1].replace("\\u00B5", "u")) if imagej else None
        unit = unit or _TIFF_UNITS.get(int(page.tags.valueof(296, 2)))
        counts = [page.tags.valueof(tag) for tag in (282, 283)]
        if unit and all(counts) and all(min(count) > 0 for count in counts):
            across, down = (unit * below / above for above, below in counts)
            yield across, down


def _of_ome(text: str) -> Iterator[tuple[float, float]]:
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", text)
    said = dict(re.findall(r"\b(PhysicalSize[XY](?:Unit)?)\s*=\s*[\"']([^\"']*)", pixels[0])) if pixels else {}
    if {"PhysicalSizeX", "PhysicalSizeY"} <= said.keys():
        units = [_micrometres(html.unescape(said.get(f"PhysicalSize{side}Unit", "um"))) for side in "XY"]
        if None not in units:
            across, down = (
                float(said[f"PhysicalSize{side}"]) * (unit or 1) for side, unit in zip("XY", units, strict=True)
            )
            yield across, down


def _micrometres(unit: str) -> float | None:
    """Micrometres of a unit of length by its name; None where it is another."""
    return _MICROMETRES.get(re.sub("[\u00b5\u03bc]", "u", unit.strip()))  # both ways to write a micro sign
