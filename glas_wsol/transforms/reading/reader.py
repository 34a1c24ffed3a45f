# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read tiles and label masks from PNG, JPEG, TIFF, BMP and DICOM files, never transposed, no channel lost or added.

MONAI's ``PILReader`` swaps rows and columns by default, hands out palette indices as if they were grey levels, and
leaves the number of channels to the file. Here a file becomes what a viewer shows (`read_rgb`) or the labels it stores
(`read_mask`); `TileReader` gives both to MONAI's ``LoadImage(d)``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from monai.data import ImageReader, is_supported_format
from monai.utils import MetaKeys, ensure_tuple

from glas_wsol.errors import FIX_FILES, ConfigError, GlasWsolError, ImageFileError
from glas_wsol.transforms.reading.dicom import is_dicom, read_dicom_labels, read_dicom_rgb
from glas_wsol.transforms.reading.masks import to_labels
from glas_wsol.transforms.reading.raster import MAGICS, read_raster
from glas_wsol.transforms.reading.samples import Samples, to_rgb
from glas_wsol.transforms.reading.spacing import DOUBT, MPP, PixelSize, mpp_metadata, pixel_size
from glas_wsol.transforms.reading.tiff import TIFF_MAGICS, read_tiff

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "Picture", "TileReader", "read_image", "read_mask", "read_rgb"]

#: The largest image decoded unless a caller sets another limit, in pixels (where Pillow itself raises an error).
MAX_PIXELS = 178_956_970

#: The endings of the files that are taken for images in a folder; what they are is decided by their content.
IMAGE_SUFFIXES = (".bmp", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")

# EXIF orientation -> the array as it is to be shown.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@dataclass(frozen=True)
class Picture:
    """What is read of a file.

    Attributes:
        pixels: ``[H, W, 3]`` uint8 of an image, ``[H, W]`` int32 of a mask.
        size: of a pixel of an image; not known of a mask.
    """

    pixels: np.ndarray
    size: PixelSize

    @property
    def mpp(self) -> tuple[float, float] | None:
        """Width and height of a pixel in micrometres; None where the file does not record it, or is not believed."""
        return self.size.mpp


def read_image(path: str | PathLike[str], max_pixels: int = MAX_PIXELS) -> Picture:
    """`read_rgb`, and the size of a pixel."""
    return _decode(path, max_pixels, "rgb")


def read_rgb(path: str | PathLike[str], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a file as the RGB image a viewer shows.

    1-bit, palette, grey, CMYK and YCbCr images are converted, and grey of which 0 is white is turned round;
    transparency is laid on white; integers of 9 to 16 bits are scaled from their whole range; float images must lie in
    0..1; the EXIF orientation is applied. Colour profiles are not. For DICOM see
    :func:`~glas_wsol.transforms.reading.dicom.read_dicom_rgb`.

    Args:
        path: a PNG, JPEG, TIFF, BMP or DICOM file, recognised by its content.
        max_pixels: the largest width * height that is decoded, checked on the header.

    Returns:
        ``[H, W, 3]`` uint8, rows first.

    Raises:
        ImageFileError: where the file is missing, damaged, of another format, multi-page, too large, stored in a way
            that is not read, or has no defined brightness (NaN, a float or 32-bit integer range of its own).
        GlasWsolError: where the system lets no more files be opened.
    """
    return read_image(path, max_pixels).pixels


def read_mask(path: str | PathLike[str], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a file as the labels it stores.

    A palette image gives its indices, a grey one its stored values (1 to 32 bits; 1-bit gives 0 and 1), also where a
    viewer shows 0 as white; an RGB one its common value where all channels agree. Transparency is ignored and the EXIF
    orientation applied.

    Args:
        path: a PNG, JPEG, TIFF, BMP or DICOM file, recognised by its content.
        max_pixels: the largest width * height that is decoded, checked on the header.

    Returns:
        ``[H, W]`` int32, not negative.

    Raises:
        ImageFileError: as `read_rgb`, and where the labels are ambiguous (the colour channels differ), fractional or
            negative.
    """
    return _decode(path, max_pixels, "mask").pixels


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
        """Whether the names look like an image (the content decides when it is read)."""
        return is_supported_format(filename, [suffix[1:] for suffix in IMAGE_SUFFIXES])

    def read(self, data: Sequence[PathLike[str] | str] | PathLike[str] | str, **kwargs: Any) -> tuple[Path, ...]:
        """Return the paths, unread; `get_data` opens them."""
        return tuple(Path(name) for name in ensure_tuple(data))

    def get_data(self, img: Sequence[Path]) -> tuple[np.ndarray, dict[str, Any]]:
        """Decode one file.

        Returns:
            The channel-first array, and the metadata: ``spatial_shape`` (H, W), an identity ``affine`` (a tile has no
            orientation in a patient), ``original_channel_dim`` 0, and of an image ``mpp``, see `mpp_of_metadata`,
            and ``mpp_doubt``, why the size in its file is not believed.

        Raises:
            ImageFileError: see `read_rgb` and `read_mask`.
        """
        if len(img) != 1:
            raise ImageFileError(f"{len(img)} files for one item", img[0] if img else "", "give one file per item")
        picture = _decode(img[0], self.max_pixels, self.mode)
        pixels = picture.pixels
        array = np.ascontiguousarray(pixels.transpose(2, 0, 1)) if self.mode == "rgb" else pixels[None]
        meta: dict[str, Any] = {
            MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape[1:]),
            MetaKeys.ORIGINAL_AFFINE: np.eye(4),
            MetaKeys.AFFINE: np.eye(4),
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
            MPP: mpp_metadata(picture.mpp),
            DOUBT: picture.size.doubt,
        }
        return array, meta


def _decode(path: str | PathLike[str], max_pixels: int, mode: str) -> Picture:
    """Open, check the header, decode, convert and turn upright."""
    path, orientation = Path(path), 1
    try:
        if not path.exists():
            raise ImageFileError("no such file", path, "check its path")
        if not path.is_file():
            raise ImageFileError("not a file", path, "name an image file, not a folder or device")
        with path.open("rb") as file:
            if is_dicom(path):
                pixels = (read_dicom_rgb if mode == "rgb" else read_dicom_labels)(path, max_pixels)
            else:
                samples = _samples(file, path, max_pixels)
                pixels = (to_rgb if mode == "rgb" else to_labels)(samples, path)
                orientation = samples.orientation
                pixels = np.ascontiguousarray(_UPRIGHT.get(orientation, lambda a: a)(pixels))
        size = pixel_size(path) if mode == "rgb" else PixelSize(None)
        if size.mpp and orientation in range(5, 9):  # its sides change places
            size = PixelSize((size.mpp[1], size.mpp[0]))
        return Picture(pixels, size)
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


def _samples(file: BinaryIO, path: Path, max_pixels: int) -> Samples:
    """Decode by the first bytes, never by the extension."""
    head = file.read(16)
    file.seek(0)
    if not head:
        raise ImageFileError("the file is empty", path, "export or copy it again")
    if head.startswith(TIFF_MAGICS):
        return read_tiff(file, path, max_pixels)
    for magic, plugin in MAGICS.items():
        if head.startswith(magic):
            return read_raster(plugin, file, path, max_pixels)
    raise ImageFileError("not a PNG, JPEG, TIFF, BMP or DICOM image", path, "export it as PNG")
