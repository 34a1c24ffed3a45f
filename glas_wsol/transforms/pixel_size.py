# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Check the size of a pixel: micrometres per pixel, as typed, and as files record it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from glas_wsol.errors import ConfigError

__all__ = ["MPP_RANGE", "ONE_SIZE", "SAME", "check_mpp", "doubt_of"]

MPP_RANGE = (0.05, 20.0)
"""Least and largest micrometres of a pixel: from finer than any objective to a slide's overview."""

SAME = 5e-4
"""Sizes of a pixel that differ by less than this share are one size, which files round differently."""

_PRINTED = (72, 75, 90, 96, 100, 110, 120, 144, 150, 180, 200, 220, 240, 254, 300, 350, 360, 400, 600, 720, 1200, 1440)
_PRINTED += (2400, 2880)
ONE_SIZE = 0.01
"""Share by which the sides of a pixel, or the pixels of a data set, may differ and still count as one size."""


def check_mpp(mpp: float | Sequence[float] | None) -> tuple[float, float] | None:
    """Check a size of pixels that somebody typed.

    Args:
        mpp: micrometres per pixel; or two, the width and the height of a pixel; or None where unknown.

    Returns:
        Width and height of a pixel in micrometres, or None.

    Raises:
        ConfigError: if it is not a number from 0.05 to 20, or two of them.
    """
    if mpp is None:
        return None
    low, high = MPP_RANGE
    try:
        sides = tuple(map(float, mpp if isinstance(mpp, Sequence) and not isinstance(mpp, str) else (mpp, mpp)))
    except (TypeError, ValueError):
        sides = ()
    if isinstance(mpp, bool) or len(sides) != 2 or not all(low <= side <= high for side in sides):
        fix = f"give micrometres per pixel from {low:g} to {high:g}, such as 0.5, or null"
        raise ConfigError(f"mpp={mpp!r} is not a valid size of a pixel", fix=fix)
    return sides


def doubt_of(width: float, height: float) -> str:
    """Why a size of pixels that a file records is not believed; empty where it is.

    The kind of fault only, without the numbers, so that each kind is reported once.

    Args:
        width: of a pixel, micrometres.
        height: of a pixel, micrometres.
    """
    low, high = MPP_RANGE
    small, large = min(width, height), max(width, height)
    if not (math.isfinite(large) and small >= low):
        return f"smaller than {low:g} um"
    if any(abs(25400 / large - dots) <= 1 for dots in _PRINTED):
        return "a resolution of screens and printers"
    if large > high:
        return f"larger than {high:g} um"
    return "pixels that are not square" if large / small > 1 + ONE_SIZE else ""
