# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Constrain a mask without pixel labels: how large it is, and how long its edge is (paper, section 5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["extended_log_barrier", "size_band", "total_variation"]


def extended_log_barrier(excess: Tensor, t: float) -> Tensor:
    """A finite stand-in for "infinite where ``z > 0``, else 0" (Kervadec et al., arXiv:1904.04205).

    ``-log(-z) / t`` where ``z <= -1 / t^2``, else its tangent there, ``t z - log(1 / t^2) / t + 1 / t``: continuous,
    with a continuous slope, and with a gradient where the constraint is violated too.

    Args:
        excess: ``z``, any shape; the constraint is ``z <= 0``.
        t: the larger, the harder: slope of a violation, above 0.

    Returns:
        The barrier's value, same shape.
    """
    edge = -1 / t**2
    inside = -torch.log(-excess.clamp(max=edge)) / t  # clamped, or the branch not taken would give gradients of NaN
    outside = t * excess - math.log(-edge) / t + 1 / t
    return torch.where(excess <= edge, inside, outside)


def size_band(mask: Tensor, low: float | None, high: float | None, t: float) -> Tensor:
    """``low <= area <= high`` by two extended log-barriers; the area is the mask's mean.

    A barrier grows towards its bound from inside already: the bounds 0 and 1, within which every mask lies, keep the
    decidable and the undecidable region from vanishing.

    Args:
        mask: ``[B, 1, H, W]``, in [0, 1].
        low: least area as a fraction of the image; None for no such bound.
        high: largest area as a fraction of the image; None for no such bound.
        t: see :func:`extended_log_barrier`.

    Returns:
        ``[B]``; least, for two bounds, at the middle of the band.
    """
    area = mask.mean(dim=(1, 2, 3))
    barrier = torch.zeros_like(area)
    if low is not None:
        barrier = barrier + extended_log_barrier(low - area, t)
    if high is not None:
        barrier = barrier + extended_log_barrier(area - high, t)
    return barrier


def total_variation(mask: Tensor) -> Tensor:
    """How much the mask changes along a row and a column of the image: anisotropic total variation.

    ``sum |R(y, x + 1) - R(y, x)| / H + sum |R(y + 1, x) - R(y, x)| / W``: for a binary mask the number of edges that a
    row crosses, on average over the rows, plus the same for columns. It does not depend on the resolution: a mask whose
    pixels are repeated, along one side or both, has the same value.

    Args:
        mask: ``[B, 1, H, W]``, in [0, 1].

    Returns:
        ``[B]``, at least 0; 0 for a constant mask.
    """
    along_rows = mask.diff(dim=3).abs().sum(dim=(1, 2, 3)) / mask.shape[2]
    along_columns = mask.diff(dim=2).abs().sum(dim=(1, 2, 3)) / mask.shape[3]
    return along_rows + along_columns
