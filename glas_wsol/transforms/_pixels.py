# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What the samples of a decoded Pillow image mean: as RGB, or as labels. See `glas_wsol.transforms.reading`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from glas_wsol.errors import ImageFileError

__all__ = ["to_labels", "to_rgb"]

# Pillow stretches 2- and 4-bit grey over 0..255, which is right for an image and wrong for labels.
_STRETCH = {"L;2": 85, "L;4": 17}


def to_rgb(image: Image.Image, rawmode: str, path: Path) -> np.ndarray:
    """Return ``[H, W, 3]`` uint8 as a viewer shows it; ``rawmode`` is Pillow's name of the samples in the file."""
    if image.mode.startswith("I;16"):
        return _grey16(image, 4095 if rawmode == "I;12" else 65535)
    if image.mode == "I":
        raise ImageFileError("32-bit or signed integers have no agreed white", path, "save it with 8 bits a channel")
    if image.mode == "F":
        return _grey_float(np.asarray(image), path)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def to_labels(image: Image.Image, rawmode: str, path: Path) -> np.ndarray:
    """Return ``[H, W]`` int32 as stored: palette indices, grey values, or the common value of all colour channels."""
    values = np.asarray(image)
    if image.mode in ("L", "1", "P") or image.mode.startswith("I;16"):
        return values.astype(np.int32) // _STRETCH.get(rawmode[:3], 1)
    if image.mode in ("LA", "PA"):
        return values[..., 0].astype(np.int32)
    if image.mode in ("RGB", "RGBA", "RGBX"):
        return _common_channel(values[..., :3], rawmode, path)
    if image.mode == "F":
        return _whole_numbers(values, path)
    if image.mode == "I":
        return _not_negative(values, path)
    raise ImageFileError(f"a {image.mode} image is no label mask", path, "save the mask as 8- or 16-bit grey PNG")


def _grey16(image: Image.Image, white: int) -> np.ndarray:
    stored = np.asarray(image).astype(np.uint32)
    grey = ((stored * 255 + white // 2) // white).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[stored == transparent] = 255
    return np.repeat(grey[..., None], 3, axis=2)


def _grey_float(values: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ImageFileError("NaN or infinite pixels", path, "save the image with 8 bits a channel")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        what = f"float pixels from {low:g} to {high:g}, of which black and white are unknown"
        raise ImageFileError(what, path, "scale them to 0..1, or save the image with 8 bits a channel")
    return np.repeat(np.rint(values * 255).astype(np.uint8)[..., None], 3, axis=2)


def _common_channel(values: np.ndarray, rawmode: str, path: Path) -> np.ndarray:
    if ";16" in rawmode:
        raise ImageFileError("a mask of 16-bit colours, which would lose bits", path, "save it as 16-bit grey PNG")
    if (values != values[..., :1]).any():
        what = "the mask is coloured (its red, green and blue differ), so its labels are unknown"
        raise ImageFileError(what, path, "save the labels as a grey or palette PNG")
    return values[..., 0].astype(np.int32)


def _whole_numbers(values: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ImageFileError("NaN or infinite labels", path, "save the labels as 8- or 16-bit grey PNG")
    if (values != np.rint(values)).any() or np.abs(values).max() > 2**24:
        raise ImageFileError("fractional labels", path, "threshold the map, then save the labels as 8-bit grey PNG")
    return _not_negative(values.astype(np.int32), path)


def _not_negative(values: np.ndarray, path: Path) -> np.ndarray:
    if (values < 0).any():
        raise ImageFileError("negative labels", path, "number the labels from 0")
    return values.astype(np.int32)
