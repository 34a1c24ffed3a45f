# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read the samples of PNG, JPEG and BMP files with Pillow (16-bit colours with imagecodecs, as Pillow has only 8)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL import BmpImagePlugin, ImageFile, JpegImagePlugin, PngImagePlugin

from glas_wsol.errors import ImageFileError
from glas_wsol.transforms.reading.samples import Samples, check_size

__all__ = ["MAGICS", "read_raster"]

#: The first bytes of a file, and what decodes it. The plugins are called without `Image.open`, whose own pixel limit is
#: a process-wide global; and a JPEG with embedded previews (MPO) is then the one picture a viewer shows.
MAGICS: dict[bytes, Callable[..., ImageFile.ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
}

# Pillow stretches 2- and 4-bit grey over 0..255, which is right for an image and wrong for labels.
_STRETCH = {"L;2": 85, "L;4": 17}


def read_raster(plugin: Callable[..., ImageFile.ImageFile], file: BinaryIO, path: Path, max_pixels: int) -> Samples:
    """Decode a PNG, JPEG or BMP file.

    Args:
        plugin: what decodes it, one of `MAGICS`.
        file: open at its first byte.
        path: its name, for messages.
        max_pixels: the largest width * height that is decoded, checked on the header.

    Raises:
        ImageFileError: where it has too many pixels, several frames, lacks its end, or is of a kind not read here. Of a
            damaged file the decoders raise nearly anything.
    """
    image = plugin(file, str(path))
    check_size(*image.size, max_pixels, path)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        what = f"{frames} frames (an animation) in one file, and which is meant is unknown"
        raise ImageFileError(what, path, "export one as PNG")
    # how the samples lie in the file, which is known only before the image is decoded
    args = image.tile[0].args if image.tile else ""
    rawmode = args if isinstance(args, str) else str(args[0]) if args else ""
    image.load()
    if image.format == "PNG":
        _check_png_end(path)
    if ";16B" in rawmode and image.mode in ("LA", "RGB", "RGBA"):
        file.seek(0)
        values = imagecodecs.png_decode(file.read())  # a transparent colour becomes alpha
        alpha = values.shape[-1] in (2, 4)
        colour = "RGB" if values.shape[-1] > 2 else "grey"
        return Samples(values, colour, 65535, "unassociated" if alpha else "none", orientation=_orientation(image))
    return replace(_samples(image, rawmode, path), lossy=image.format in ("JPEG", "MPO"))


def _samples(image: ImageFile.ImageFile, rawmode: str, path: Path) -> Samples:
    mode, values = image.mode, np.asarray(image)
    values = values.reshape(*values.shape[:2], -1)
    turned, key = _orientation(image), image.info.get("transparency")
    transparent = (key,) if isinstance(key, int) else key if isinstance(key, tuple) else None
    if mode == "P":
        image.apply_transparency()
        palette = np.array(image.getpalette("RGBA"), np.uint8).reshape(-1, 4)
        return Samples(values, "palette", palette=palette, orientation=turned)
    if mode == "1":
        return Samples(values.astype(np.uint8), "grey", 1, transparent=transparent, orientation=turned)
    if mode == "L":
        stretch = _STRETCH.get(rawmode[:3], 1)
        return Samples(values // stretch, "grey", 255 // stretch, transparent=transparent, orientation=turned)
    if mode.startswith("I;16"):
        return Samples(values, "grey", 65535, transparent=transparent, orientation=turned)
    if mode in ("LA", "RGBA"):
        return Samples(values, "grey" if mode == "LA" else "RGB", alpha="unassociated", orientation=turned)
    if mode == "RGB":
        return Samples(values, "RGB", transparent=transparent, orientation=turned)
    if mode == "CMYK" and "adobe" in image.info:  # Adobe's are inverted, as Pillow takes all to be
        return Samples(values, "CMYK", orientation=turned)
    stored = "CMYK without Adobe's mark" if mode == "CMYK" else mode
    raise ImageFileError(f"the colours are stored as {stored}, which is not read", path, "export the image as RGB PNG")


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
