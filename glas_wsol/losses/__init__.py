# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Compute losses on class distributions and on maps."""

from __future__ import annotations

from glas_wsol.losses.min_max_entropy import (
    ClassifierLoss,
    LossKeys,
    MaskLoss,
    MinMaxEntropyLoss,
    cross_entropy,
    even_cross_entropy,
    uniform_cross_entropy,
)

__all__ = [
    "ClassifierLoss",
    "LossKeys",
    "MaskLoss",
    "MinMaxEntropyLoss",
    "cross_entropy",
    "even_cross_entropy",
    "uniform_cross_entropy",
]
