# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Check the size of a pixel: micrometres per pixel, where it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

from glas_wsol.errors import ConfigError

__all__ = ["check_mpp"]

_MPP_RANGE = (0.001, 10_000.0)


def check_mpp(mpp: float | Sequence[float] | None) -> tuple[float, float] | None:
    """Check a size of pixels.

    Args:
        mpp: micrometres per pixel; or two, the width and the height of a pixel; or None where unknown.

    Returns:
        Width and height of a pixel in micrometres, or None.

    Raises:
        ConfigError: if it is not a number from 0.001 to 10000, or two of them.
    """
    if mpp is None:
        return None
    low, high = _MPP_RANGE
    try:
        sides = tuple(map(float, mpp if isinstance(mpp, Sequence) and not isinstance(mpp, str) else (mpp, mpp)))
    except (TypeError, ValueError):
        sides = ()
    if len(sides) != 2 or not all(math.isfinite(side) and low <= side <= high for side in sides):
        fix = f"give micrometres per pixel from {low:g} to {high:g}, such as 0.5, or null"
        raise ConfigError(f"mpp={mpp!r} is not a valid size of a pixel", fix=fix)
    return sides
