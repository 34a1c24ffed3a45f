# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Arithmetic with sizes of images, which TorchScript compiles and ``torch.export`` keeps a function of the image's.

Python's own ``min``, ``max``, ``round`` and ``int`` would make a constant of the size that was exported with, or have
no place in a file. Integers are exact in every format; ONNX would compute a product with a fraction in 32 bits.
"""

from __future__ import annotations

from fractions import Fraction

import torch

__all__ = ["fraction_of", "larger", "opaque", "scaled", "smaller"]


def larger(a: int, b: int) -> int:
    """``max(a, b)``.

    Args:
        a: a size, px.
        b: a size, px.
    """
    if torch.jit.is_scripting():
        return max(a, b)
    else:
        return torch.sym_max(a, b)  # pyright: ignore[reportReturnType]


def smaller(a: int, b: int) -> int:
    """``min(a, b)``.

    Args:
        a: a size, px.
        b: a size, px.
    """
    if torch.jit.is_scripting():
        return min(a, b)
    else:
        return torch.sym_min(a, b)  # pyright: ignore[reportReturnType]


def fraction_of(factor: float) -> tuple[int, int]:
    """Numerator and denominator of a factor as it is written: 9 and 100 of 0.09.

    Args:
        factor: above 0.
    """
    found = Fraction(str(factor)).limit_denominator(10**6)
    return found.numerator, found.denominator


def opaque(size: int) -> int:
    """The same size, in ``torch.export`` without how it follows from the image's: what is computed of it stays short.

    No size that follows is then taken to be above 1 because that of the exported image was.

    Args:
        size: at least 1.
    """
    if torch.jit.is_scripting():
        return size
    else:
        if not torch.compiler.is_exporting():
            return size
        number = torch.scalar_tensor(size, dtype=torch.int64).item()
        torch._check(number >= 1)
        return number  # pyright: ignore[reportReturnType]


def scaled(size: int, numerator: int, denominator: int) -> int:
    """``round(size * numerator / denominator)``; halves to the even number, as Python's ``round``.

    Args:
        size: at least 0, px.
        numerator: of the factor.
        denominator: of the factor.
    """
    doubled = 2 * numerator * size + denominator
    nearest = doubled // (2 * denominator)
    half = 1 - smaller(doubled % (2 * denominator), 1)
    return nearest - half * (nearest % 2)
