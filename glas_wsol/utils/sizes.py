# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Arithmetic with sizes of images, which TorchScript compiles and ``torch.export`` keeps a function of the image's.

Python's own ``min``, ``max`` and ``int`` would make a constant of the size that was exported with.
"""

from __future__ import annotations

import torch

__all__ = ["larger", "rounded", "smaller", "truncated"]


def larger(a: int, b: int) -> int:
    """``max(a, b)``.

    Args:
        a: a size, px.
        b: a size, px.
    """
    if torch.jit.is_scripting():
        return max(a, b)
    else:
        return torch.sym_max(a, b)


def smaller(a: int, b: int) -> int:
    """``min(a, b)``.

    Args:
        a: a size, px.
        b: a size, px.
    """
    if torch.jit.is_scripting():
        return min(a, b)
    else:
        return torch.sym_min(a, b)


def rounded(value: float) -> int:
    """``round(value)``; halves to the even number.

    Args:
        value: a size, px.
    """
    if torch.jit.is_scripting():
        return int(round(value))  # noqa: RUF046 - TorchScript's round gives a float
    else:
        return round(value)


def truncated(value: float) -> int:
    """``int(value)``.

    Args:
        value: a size, px.
    """
    if torch.jit.is_scripting():
        return int(value)
    else:
        return torch.sym_int(value)
