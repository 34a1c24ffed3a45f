# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Tiles and label masks from PNG, JPEG, TIFF, BMP and DICOM files: never transposed, no channel lost or invented.

MONAI's ``PILReader`` swaps rows and columns by default, hands out palette indices as if they were grey levels, and
leaves the number of channels to the file. Here a file becomes what a viewer shows (`read_rgb`) or the labels it stores
(`read_mask`); `TileReader` gives both to MONAI's ``LoadImage(d)``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader, is_supported_format
from monai.utils import MetaKeys, ensure_tuple
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from glas_wsol.dicom import is_dicom, read_dicom_labels, read_dicom_rgb
from glas_wsol.errors import FIX_FILES, ConfigError, GlasWsolError, ImageFileError
from glas_wsol.transforms._pixels import to_labels, to_rgb

__all__ = ["MAX_PIXELS", "TileReader", "read_mask", "read_rgb"]

#: The largest image decoded unless a caller says otherwise, in pixels (where Pillow itself raises an error).
MAX_PIXELS = 178_956_970

# The first bytes decide, never the extension. The plugins are called without `Image.open`, whose own pixel limit is a
# process-wide global; and a JPEG with embedded previews (MPO) is then the one picture a viewer shows.
_FORMATS: tuple[tuple[bytes, Callable[..., ImageFile.ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"II*\x00", TiffImagePlugin.TiffImageFile),
    (b"MM\x00*", TiffImagePlugin.TiffImageFile),
    (b"II+\x00", TiffImagePlugin.TiffImageFile),  # BigTIFF
    (b"MM\x00+", TiffImagePlugin.TiffImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
)
_SUFFIXES = ("png", "jpg", "jpeg", "tif", "tiff", "bmp", "dcm")

# EXIF orientation -> the array as it is to be seen.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def read_rgb(path: str | PathLike[str], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a file as the RGB image a viewer shows.

    1-bit, palette, grey and CMYK images are converted; transparency is laid on white; 16-bit grey is scaled from its
    whole range 0..65535; a float image must lie in 0..1; the EXIF orientation is applied. Colour profiles are not. For
    DICOM see :func:`~glas_wsol.dicom.read_dicom_rgb`.

    Args:
        path: a PNG, JPEG, TIFF, BMP or DICOM file, recognised by its content.
        max_pixels: the largest width * height that is decoded, checked on the header.

    Returns:
        ``[H, W, 3]`` uint8, rows first.

    Raises:
        ImageFileError: where the file is missing, damaged, of another format, multi-page, too large, or has no defined
            brightness (NaN, a float or 32-bit integer range of its own).
        GlasWsolError: where the system lets no more files be opened.
    """
    return _decode(path, max_pixels, to_rgb)


def read_mask(path: str | PathLike[str], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a file as the labels it stores.

    A palette image gives its indices, a grey one its values (1 to 32 bits; 1-bit gives 0 and 1), an RGB one its common
    value where all channels agree. Transparency is ignored and the EXIF orientation applied.

    Args:
        path: a PNG, JPEG, TIFF, BMP or DICOM file, recognised by its content.
        max_pixels: the largest width * height that is decoded, checked on the header.

    Returns:
        ``[H, W]`` int32, not negative.

    Raises:
        ImageFileError: as `read_rgb`, and where the labels are ambiguous (the colour channels differ), fractional or
            negative.
    """
    return _decode(path, max_pixels, to_labels)


class TileReader(ImageReader):
    """`read_rgb` and `read_mask` as a reader of MONAI's ``LoadImage(d)``.

    The array is channel-first already, so ``ensure_channel_first`` changes nothing. Failures are raised by `get_data`:
    an exception in `read` would make ``LoadImage`` try its default readers, which transpose. Example::

        LoadImaged(keys="image", reader="glas_wsol.transforms.TileReader", mode="rgb", dtype=np.uint8)
        LoadImaged(keys="mask", reader="glas_wsol.transforms.TileReader", mode="mask", dtype=np.int32)

    Args:
        mode: ``"rgb"`` for an image ``[3, H, W]`` uint8, ``"mask"`` for labels ``[1, H, W]`` int32.
        max_pixels: the largest width * height that is decoded.
        unknown: refused; ``LoadImage`` would otherwise drop *all* options with no more than a warning.

    Raises:
        ConfigError: on an unknown mode or option.
    """

    def __init__(self, mode: str = "rgb", max_pixels: int = MAX_PIXELS, **unknown: Any) -> None:
        super().__init__()
        if unknown:
            raise ConfigError(f"unknown option {', '.join(sorted(unknown))}", "TileReader", "use mode and max_pixels")
        if mode not in ("rgb", "mask"):
            raise ConfigError(f"mode is {mode!r}", "TileReader", "use 'rgb' or 'mask'")
        if not isinstance(max_pixels, int) or max_pixels < 1:  # after a TypeError LoadImage would leave it out
            raise ConfigError(f"max_pixels is {max_pixels!r}", "TileReader", "use a number of pixels above 0")
        self.mode, self.max_pixels = mode, max_pixels

    def verify_suffix(self, filename: Sequence[PathLike[str] | str] | PathLike[str] | str) -> bool:
        """Tell whether the names look like an image (the content decides when it is read)."""
        return is_supported_format(filename, _SUFFIXES)

    def read(self, data: Sequence[PathLike[str] | str] | PathLike[str] | str, **kwargs: Any) -> tuple[Path, ...]:
        """Return the paths, unread; `get_data` opens them."""
        return tuple(Path(name) for name in ensure_tuple(data))

    def get_data(self, img: Sequence[Path]) -> tuple[np.ndarray, dict[str, Any]]:
        """Decode one file.

        Returns:
            The channel-first array, and the metadata MONAI needs: ``spatial_shape`` (H, W), an identity ``affine``
            (a tile has no orientation in a patient) and ``original_channel_dim`` 0.

        Raises:
            ImageFileError: see `read_rgb` and `read_mask`.
        """
        if len(img) != 1:
            raise ImageFileError(f"{len(img)} files for one item", img[0] if img else "", "give one file per item")
        if self.mode == "rgb":
            array = np.ascontiguousarray(read_rgb(img[0], self.max_pixels).transpose(2, 0, 1))
        else:
            array = read_mask(img[0], self.max_pixels)[None]
        meta: dict[str, Any] = {
            MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape[1:]),
            MetaKeys.ORIGINAL_AFFINE: np.eye(4),
            MetaKeys.AFFINE: np.eye(4),
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        }
        return array, meta


def _decode(
    path: str | PathLike[str], max_pixels: int, convert: Callable[[Image.Image, str, Path], np.ndarray]
) -> np.ndarray:
    """Open, check the header, decode, convert and turn upright."""
    path = Path(path)
    try:
        if not path.exists():
            raise ImageFileError("no such file", path, "check its path")
        if not path.is_file():
            raise ImageFileError("not a file", path, "name an image file, not a folder or device")
        with path.open("rb") as file:
            if is_dicom(path):
                return (read_dicom_rgb if convert is to_rgb else read_dicom_labels)(path, max_pixels)
            image = _open(file, path)
            _check_header(image, path, max_pixels)
            rawmode = _rawmode(image)
            image.load()
            if image.format == "PNG":
                _check_png_end(path)
            array = convert(image, rawmode, path)
            return np.ascontiguousarray(_UPRIGHT.get(_orientation(image), lambda a: a)(array))
    except ImageFileError:
        raise
    except PermissionError as error:
        raise ImageFileError("no permission to read the file", path, "make it readable") from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # no fault of the file
            raise GlasWsolError("too many open files", path, FIX_FILES) from error
        raise ImageFileError(f"cannot be decoded ({error})", path, "export or copy the file again") from error
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise ImageFileError(f"cannot be decoded ({error})", path, "export or copy the file again") from error


def _open(file: Any, path: Path) -> ImageFile.ImageFile:
    head = file.read(16)
    file.seek(0)
    if not head:
        raise ImageFileError("the file is empty", path, "export or copy it again")
    for magic, plugin in _FORMATS:
        if head.startswith(magic):
            return plugin(file, str(path))
    raise ImageFileError("not a PNG, JPEG, TIFF, BMP or DICOM image", path, "export it as PNG")


def _check_header(image: ImageFile.ImageFile, path: Path, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageFileError(f"an image of {width} x {height} pixels", path, "export it again")
    if width * height > max_pixels:
        fix = f"cut it into tiles, or allow it with max_pixels={width * height}"
        raise ImageFileError(f"{width} x {height} pixels are more than the budget of {max_pixels}", path, fix)
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        what = "frames (an animation)" if image.format == "PNG" else "pages"
        raise ImageFileError(f"{pages} {what} in one file, and which is meant is unknown", path, "export one as PNG")


def _check_png_end(path: Path) -> None:
    """Refuse a PNG that lacks its last chunk: Pillow accepts one cut off behind its pixels."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == b"IEND" and len(file.read(4)) == 4:
                return
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    raise ImageFileError("the file is cut off", path, "export or copy the file again")


def _orientation(image: ImageFile.ImageFile) -> int:
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # viewers show an image with a damaged EXIF block as it is stored
        return 1


def _rawmode(image: ImageFile.ImageFile) -> str:
    """How the samples lie in the file (Pillow's name), known only before the image is decoded."""
    args = image.tile[0].args if image.tile else ""
    return args if isinstance(args, str) else str(args[0]) if args else ""
