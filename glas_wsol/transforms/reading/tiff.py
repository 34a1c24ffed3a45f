# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read the samples of TIFF and BigTIFF files, unpacked by tifffile and imagecodecs, and decide here what they mean.

What is not known to be read correctly is refused by its name.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from monai.utils import ensure_tuple
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from tifffile import TiffFile, TiffPage

from glas_wsol.errors import ImageFileError
from glas_wsol.transforms.reading.samples import Alpha, Colour, Samples, check_size

__all__ = ["TIFF_MAGICS", "read_tiff"]

#: The first bytes of TIFF and BigTIFF files, little- and big-endian.
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_FIX = "save it as PNG, or as uncompressed 8-bit RGB TIFF"
_COLOURS: dict[int, tuple[Colour, int]] = {  # photometric interpretation: the colour and its channels
    0: ("white is zero", 1),
    1: ("grey", 1),
    2: ("RGB", 3),
    3: ("palette", 1),
    5: ("CMYK", 4),
    6: ("YCbCr", 3),
}
_JPEG, _YCBCR_JPEG2000 = 7, 33003
_JPEG2000 = (_YCBCR_JPEG2000, 33005, 34712)
_FAX = (2, 3, 4)
_WITH_PREDICTOR = (5, 8, 32946, 34925, 50000)  # LZW, deflate (two numbers), LZMA, Zstandard
_COMPRESSIONS = (1, *_FAX, *_WITH_PREDICTOR, 32773, _JPEG, *_JPEG2000)

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # the errors here report damaged files


def read_tiff(file: BinaryIO, path: Path, max_pixels: int) -> Samples:
    """Read the one image of a TIFF file.

    Args:
        file: open at its first byte.
        path: its name, for messages.
        max_pixels: the largest width * height that is decoded, checked on the header.

    Raises:
        ImageFileError: where it has several images, too many pixels, lacks some, or is stored in a way that is not
            read. Of a damaged file tifffile raises nearly anything.
    """
    with TiffFile(file) as tiff:
        page = tiff.pages.first
        check_size(page.imagewidth, page.imagelength, max_pixels, path)
        images = max(len(tiff.pages), page.imagedepth)
        if images == 1 and (page.is_imagej or page.is_shaped):  # a stack may lie behind one header
            images = tiff.series[0].size // page.size
        if images > 1:
            axes = dict(zip(tiff.series[0].axes, tiff.series[0].shape, strict=True))
            if axes.get("C") == images:  # a page each, or all behind one header
                raise _refuse(f"{images} channels that are no RGB", path)
            what = f"{images} pages in one file, and which is meant is unknown"
            raise ImageFileError(what, path, "export one as PNG")
        colour, channels = _colour(page, path)
        _check_storage(page, colour, path)
        _check_segments(page, path)
        values = _stored(page, path)
        white = 1 if values.dtype.kind == "f" else 2**page.bitspersample - 1
        values, alpha = _without_extra(values, channels, white, page.tags.valueof(338), colour, path)
        palette = _palette(page, path) if colour == "palette" else None
        turned, lossy = page.tags.valueof(274, 1), page.compression in (6, 7)  # JPEG, old and new
        return Samples(values, colour, white, alpha, palette, orientation=turned, lossy=lossy)


def _refuse(what: str, path: Path) -> ImageFileError:
    return ImageFileError(f"TIFF with {what}, which is not read", path, _FIX)


def _name(value: Any) -> str:
    return f"{value.name} ({value.value})" if hasattr(value, "name") else str(value)


def _colour(page: TiffPage, path: Path) -> tuple[Colour, int]:
    """The colour of the samples as tifffile gives them, and its channels."""
    if 262 not in page.tags:
        raise _refuse("no photometric interpretation", path)
    photometric = int(page.photometric)
    if photometric not in _COLOURS:
        raise _refuse(f"photometric interpretation {_name(page.photometric)}", path)
    colour, channels = _COLOURS[photometric]
    if page.samplesperpixel < channels:
        raise _refuse(f"{page.samplesperpixel} samples a pixel in {colour}", path)
    if colour == "CMYK" and page.tags.valueof(332, 1) != 1:
        raise _refuse("inks other than CMYK", path)
    if page.compression == _JPEG and page.planarconfig == 1:
        if page.samplesperpixel > channels:
            raise _refuse(f"{page.samplesperpixel} samples a pixel in JPEG of {colour}", path)
        colour = "RGB" if colour == "YCbCr" else colour  # the decoder of JPEG converts it
    return colour, channels


def _check_storage(page: TiffPage, colour: Colour, path: Path) -> None:
    """Refuse what tifffile does not decode, or not as others do."""
    compression, bits, name = int(page.compression), page.bitspersample, _name(page.compression)
    if compression not in _COMPRESSIONS:
        raise _refuse(f"compression {name}", path)
    if page.dtype is None or page.dtype.kind not in "buif" or not isinstance(bits, int):
        raise _refuse(f"samples of {bits} bits in sample format {_name(page.sampleformat)}", path)
    if bits < 8 and page.dtype.kind == "i":
        raise _refuse(f"signed samples of {bits} bits", path)
    if compression in _FAX and bits * page.samplesperpixel != 1:
        raise _refuse(f"compression {name} of more than 1 bit a pixel", path)
    predicts = page.predictor != 1 and compression not in (_JPEG, *_JPEG2000)
    if predicts and not (compression in _WITH_PREDICTOR and bits in (8, 16, 32, 64)):
        raise _refuse(f"predictor {_name(page.predictor)} in compression {name} of {bits} bits", path)
    depths = (8,) if compression == _JPEG else (8, 16)
    if compression in (_JPEG, *_JPEG2000) and not (page.dtype.kind == "u" and bits in depths and colour != "palette"):
        raise _refuse(f"{colour} of type {page.dtype} and {bits} bits in compression {name}", path)
    if compression in _JPEG2000 and (colour == "YCbCr") != (compression == _YCBCR_JPEG2000):
        raise _refuse(f"{colour} in compression {name}", path)
    if colour == "YCbCr":
        _check_ycbcr(page, path)


def _check_ycbcr(page: TiffPage, path: Path) -> None:
    if page.is_subsampled:
        raise _refuse(f"subsampled YCbCr in compression {_name(page.compression)}", path)
    usual = {529: (0.299, 0.587, 0.114), 532: (0, 255, 128, 255, 128, 255)}
    for tag, values in usual.items():
        pairs = np.reshape(page.tags.valueof(tag, [x for value in values for x in (value, 1)]), (-1, 2))
        if pairs.shape != (len(values), 2) or not np.allclose(pairs[:, 0] / pairs[:, 1], values, atol=1e-3):
            raise _refuse("YCbCr of other coefficients than usual", path)
    if page.dtype != np.uint8:
        raise _refuse(f"YCbCr of {page.bitspersample} bits", path)


def _check_segments(page: TiffPage, path: Path) -> None:
    """Refuse a file that lacks strips or tiles, and pictures in them that are larger than they may be."""
    offsets, counts, file = page.dataoffsets, page.databytecounts, page.parent.filehandle
    expected = int(np.prod(page.chunked))
    if not len(offsets) == len(counts) == expected or min(offsets) < 1 or min(counts) < 1:
        raise ImageFileError("the file lacks strips or tiles", path, "export or copy the file again")
    if any(offset + count > file.size for offset, count in zip(offsets, counts, strict=True)):
        raise ImageFileError("the file is truncated", path, "export or copy the file again")
    if page.compression == _JPEG or page.compression in _JPEG2000:
        plugin = JpegImageFile if page.compression == _JPEG else Jpeg2KImageFile
        across, down = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
        for offset, count in zip(offsets, counts, strict=True):
            file.seek(offset)
            width, height = plugin(io.BytesIO(file.read(count))).size
            if width > across or height > down:
                what = f"a strip or tile of {width} x {height} pixels where {across} x {down} are expected"
                raise ImageFileError(what, path, "export or copy the file again")


def _stored(page: TiffPage, path: Path) -> np.ndarray:
    """``[H, W, S]`` in the machine's byte order, 1 bit as 0 and 1."""
    planes, _, height, width, samples = page.shaped
    dtype = np.dtype(np.uint8) if page.dtype == bool else page.dtype
    values = np.empty((planes, height, width, samples), dtype)
    for segment, (plane, _, top, left, _), _ in page.segments(maxworkers=1):
        assert segment is not None  # a file that lacks one is refused before
        part = segment[0, : height - top, : width - left]
        if part.dtype not in (page.dtype, dtype):  # of a picture in a strip or tile
            raise _refuse(f"{part.dtype} samples where the header has {dtype}", path)
        values[plane, top : top + part.shape[0], left : left + part.shape[1]] = part
    return np.ascontiguousarray(np.moveaxis(values, 0, -2).reshape(height, width, planes * samples))


def _without_extra(
    values: np.ndarray, channels: int, white: int, said: Any, colour: Colour, path: Path
) -> tuple[np.ndarray, Alpha]:
    """The channels of the colour with alpha, if there is one; ``said`` is the tag ExtraSamples."""
    extra = values.shape[-1] - channels
    if not extra:
        return values, "none"
    kinds = () if said is None else tuple(int(kind) for kind in ensure_tuple(said))[:extra]
    alphas = [place for place, kind in enumerate(kinds) if kind in (1, 2)]
    if not alphas:
        if channels == 1:
            raise _refuse(f"{extra + 1} channels that are no RGB", path)
        if not kinds and (values[..., channels:] != white).any():
            raise _refuse(f"{extra} further channels of unknown meaning beside {colour}", path)
        return np.ascontiguousarray(values[..., :channels]), "none"
    alpha: Alpha = "associated" if kinds[alphas[0]] == 1 else "unassociated"
    if alpha == "associated" and colour not in ("RGB", "grey"):
        raise _refuse(f"{colour} multiplied by transparency", path)
    return values[..., [*range(channels), channels + alphas[0]]], alpha


def _palette(page: TiffPage, path: Path) -> np.ndarray:
    """``[n, 4]`` uint8 of a colour map, whose entries have 16 bits, or 8 where none is larger, as libtiff takes it."""
    colours = page.colormap
    whole_numbers = page.dtype is not None and page.dtype.kind in "bu"
    if colours is None or colours.shape != (3, 2**page.bitspersample) or not whole_numbers:
        raise _refuse("a damaged colour map", path)
    colours = np.asarray(colours, np.uint16)
    opaque = np.full((1, colours.shape[1]), 255, np.uint16)
    return np.concatenate([colours >> (8 if colours.max() > 255 else 0), opaque]).T.astype(np.uint8)
