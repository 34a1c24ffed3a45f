# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read single-frame DICOM images as a viewer shows them, and the size of their pixels."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
from pydicom import Dataset, FileDataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, apply_windowing, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, SegmentationStorage

from glas_wsol.errors import ImageFileError

__all__ = ["dicom_pixel_size", "is_dicom", "read_dicom_labels", "read_dicom_rgb"]

# What pydicom gives as RGB: the last two where JPEG 2000 is decoded, and only there.
_COLOURS, _JPEG2000_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422"), ("YBR_ICT", "YBR_RCT")


def is_dicom(path: str | PathLike[str]) -> bool:
    """Whether a file is a DICOM file, by its content; False where it cannot be read at all."""
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except (OSError, ValueError):
        return False


def dicom_pixel_size(path: str | PathLike[str]) -> tuple[float, float] | None:
    """Width and height of a pixel in micrometres, as recorded in a DICOM file; None where it is not, or not DICOM.

    Args:
        path: any file. Its Pixel Spacing counts, also that of its functional groups, or else its Nominal Scanned or its
            Imager Pixel Spacing.
    """
    if not is_dicom(path):
        return None
    try:
        header = _header(path)
        spacing = _spacing(header)
        down, across = (float(side) * 1000 for side in spacing or ())
    except Exception:  # nearly anything in a damaged header
        return None
    return (across, down) if 0 < across < np.inf and 0 < down < np.inf else None


def _spacing(header: Dataset) -> list[float] | None:
    groups = [
        *(header.get("SharedFunctionalGroupsSequence") or ()),
        *(header.get("PerFrameFunctionalGroupsSequence") or ()),
    ]
    measures = [one for group in groups for one in group.get("PixelMeasuresSequence") or ()]
    said = [one.get("PixelSpacing") for one in (header, *measures)]
    said += [header.get(name) for name in ("NominalScannedPixelSpacing", "ImagerPixelSpacing")]
    return next((one for one in said if one), None)


def read_dicom_rgb(path: Path, max_pixels: int) -> np.ndarray:
    """Read a DICOM image of one frame as a viewer shows it.

    Colour is converted to RGB by pydicom; more than 8 bits are scaled from the whole range of the bits stored. Grey
    values go through the file's modality look-up, then its first window or its table of shown values; without either,
    unsigned ones are scaled from their whole range. MONOCHROME1 is inverted.

    Args:
        path: the file.
        max_pixels: the largest width * height that is decoded, checked on the header.

    Returns:
        ``[H, W, 3]`` uint8, rows first.

    Raises:
        ImageFileError: where the file has no pixels, several frames, too many pixels, or no defined brightness.
    """
    image = _open(path, max_pixels)
    if image.get("SOPClassUID") == SegmentationStorage:
        raise ImageFileError("a DICOM Segmentation is no picture", path, "give the image that it belongs to")
    values = pixel_array(image)[_inside(image, path)]
    kind = str(image.get("PhotometricInterpretation", ""))
    if kind == "PALETTE COLOR":
        coloured = apply_color_lut(values, image)[..., :3]
        return _to_bytes(coloured, 0, np.iinfo(coloured.dtype).max)
    known = _COLOURS + (_JPEG2000_COLOURS if image.file_meta.TransferSyntaxUID.is_compressed else ())
    if values.ndim == 3 and kind in known and values.dtype.kind == "u":
        return _to_bytes(values, 0, 2**image.BitsStored - 1)
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        what = f"photometric interpretation {kind!r} of type {values.dtype} is not known"
        raise ImageFileError(what, path, "convert the image to RGB of unsigned values")
    grey = _grey(values, image, path)
    return np.repeat((255 - grey if kind == "MONOCHROME1" else grey)[..., None], 3, axis=2)


def read_dicom_labels(path: Path, max_pixels: int) -> np.ndarray:
    """Read a DICOM image of one frame as the labels it stores: values before any look-up.

    Args:
        path: the file; for example a DICOM Segmentation with one frame.
        max_pixels: the largest width * height that is decoded, checked on the header.

    Returns:
        ``[H, W]`` int32, not negative.

    Raises:
        ImageFileError: where the file has no pixels, several frames, too many pixels, colours or negative values.
    """
    image = _open(path, max_pixels)
    values = pixel_array(image, raw=True)[_inside(image, path)]
    if values.ndim != 2 or values.dtype.kind not in "bui" or values.min() < 0 or values.max() >= 2**31:
        what = "colours, fractions, huge or negative values are no labels"
        raise ImageFileError(what, path, "save the labels as a grey PNG")
    return values.astype(np.int32)


def _open(path: Path, max_pixels: int) -> FileDataset:
    image = _header(path)
    frames = int(image.get("NumberOfFrames") or 1)
    width, height = int(image.get("Columns") or 0), int(image.get("Rows") or 0)
    if width < 1 or height < 1:
        raise ImageFileError("a DICOM file without an image", path, "give an image of one frame")
    if frames > 1:
        what = f"{frames} frames in one DICOM file, and which is meant is unknown"
        raise ImageFileError(what, path, "export one frame, or the tile as PNG")
    if width * height > max_pixels:
        fix = f"cut it into tiles, or allow it with max_pixels={width * height}"
        raise ImageFileError(f"{width} x {height} pixels are more than the budget of {max_pixels}", path, fix)
    return dcmread(path)


def _inside(image: Dataset, path: Path) -> tuple[slice, slice]:
    """The rows and columns of a frame that lie in the total pixel matrix; what lies outside is padding."""
    places = [Dataset()]
    for name in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        places += [place for group in image.get(name) or () for place in group.get("PlanePositionSlideSequence") or ()]
    inside = []
    for side, length in (("Row", image.Rows), ("Column", image.Columns)):
        total = int(image.get(f"TotalPixelMatrix{side}s") or 0)
        first = int(places[-1].get(f"{side}PositionInTotalImagePixelMatrix") or 1)
        left = total - first + 1 if total else length
        if first < 1 or left < 1:
            what = f"a frame at {side.lower()} {first} of a total pixel matrix of {total}"
            raise ImageFileError(what, path, "export the tile as PNG")
        inside.append(slice(min(length, left)))
    return inside[0], inside[1]


def _header(path: str | PathLike[str]) -> FileDataset:
    """All but the pixels."""
    if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        # pydicom inflates the whole file at once, to whatever size it has
        raise ImageFileError("a deflated DICOM file", path, "export it uncompressed, or as PNG")
    return dcmread(path, stop_before_pixels=True)


def _grey(values: np.ndarray, image: Dataset, path: Path) -> np.ndarray:
    if image.get("WindowCenter") is not None and image.get("WindowWidth") is not None:
        # far values show what the window makes of black and of white
        far = np.array([-1e12, 1e12])
        shown = apply_windowing(apply_modality_lut(values, image).astype(np.float64), image)
        return _to_bytes(shown, *apply_windowing(far, image))
    if image.get("VOILUTSequence"):
        table = image.VOILUTSequence[0].LUTDescriptor
        return _to_bytes(apply_voi_lut(apply_modality_lut(values, image), image), 0, 2 ** int(table[2]) - 1)
    if values.dtype.kind == "u":
        return _to_bytes(values, 0, 2 ** int(image.BitsStored) - 1)
    what = "signed or float values without a window, of which black and white are unknown"
    raise ImageFileError(what, path, "set a window in the file, or export the image as PNG")


def _to_bytes(values: np.ndarray, black: float, white: float) -> np.ndarray:
    if values.dtype == np.uint8 and (black, white) == (0, 255):
        return values
    return np.rint((values.astype(np.float64) - black) * (255 / (white - black))).clip(0, 255).astype(np.uint8)
