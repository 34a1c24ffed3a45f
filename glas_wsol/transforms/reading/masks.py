# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read the labels that a mask's file stores: its values, however a viewer shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from glas_wsol.errors import ImageFileError
from glas_wsol.transforms.reading.samples import Samples

__all__ = ["to_labels", "whole_labels"]

_FIX = "save the labels as 8- or 16-bit grey PNG"


def to_labels(samples: Samples, path: Path) -> np.ndarray:
    """Return ``[H, W]`` int32 as stored: palette indices, grey values, or the common value of red, green and blue.

    The stored value is the label. A grey mask whose 0 is shown white ("white is zero") is not inverted, and
    transparency is ignored.

    Raises:
        ImageFileError: where the labels are ambiguous, blurred, fractional, negative or too large.
    """
    values = samples.colours
    if samples.colour in ("CMYK", "YCbCr"):
        raise ImageFileError(f"a {samples.colour} image is no label mask", path, _FIX)
    if samples.alpha == "associated" and (samples.values[..., -1] != samples.values[..., -1].max()).any():
        raise ImageFileError("a mask whose labels are multiplied by transparency", path, _FIX)
    if samples.alpha != "none" and (values == values.flat[0]).all() and np.ptp(samples.values[..., -1]) > 0:
        raise ImageFileError("every label is the same, and only the transparency differs", path, _FIX)
    if values.shape[-1] > 1 and (values != values[..., :1]).any():
        what = "the mask is coloured (its red, green and blue differ), so its labels are unknown"
        raise ImageFileError(what, path, "save the labels as a grey or palette PNG")
    labels = whole_labels(values[..., 0], path)
    if samples.lossy and len(np.unique(labels)) > 2:
        raise ImageFileError("JPEG compression has blurred the labels of this mask", path, _FIX)
    return labels


def whole_labels(values: np.ndarray, path: Path) -> np.ndarray:
    """Return values of any type as int32.

    Raises:
        ImageFileError: where a value is not a whole number of 0 to 2**31 - 1.
    """
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ImageFileError("NaN or infinite labels", path, _FIX)
        if (values != np.rint(values)).any():
            fix = "threshold the map, then save the labels as 8-bit grey PNG"
            raise ImageFileError("fractional labels", path, fix)
    least, most = float(values.min()), float(values.max())
    if least < 0:
        raise ImageFileError(f"negative labels (the least is {least:g})", path, "number the labels from 0")
    if most > (2**24 if values.dtype.kind == "f" else 2**31 - 1):
        raise ImageFileError(f"a label of {most:g}, which is too large", path, "number the labels from 0")
    return values.astype(np.int32)
