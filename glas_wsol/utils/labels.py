# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Handle image labels, one class per image or several: how they are written and which classes probabilities name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from glas_wsol.errors import ConfigError

__all__ = ["LEAST_PROBABILITY", "SEPARATOR", "check_multi_label", "multi_hot", "present_classes"]

SEPARATOR = ";"
"""Between the classes of one image, in tables read and written."""

LEAST_PROBABILITY = 0.5
"""Where an image may have several classes, those at least this probable are named; nothing is tuned."""


def check_multi_label(multi_label: bool, where: str) -> bool:
    """Whether an image may have several classes, its label multi-hot ``[c]``; a ConfigError on anything but a bool."""
    if not isinstance(multi_label, bool):
        raise ConfigError(f"multi_label={multi_label!r}", where, "give true or false")
    return multi_label


def multi_hot(classes: Sequence[int], num_classes: int) -> np.ndarray:
    """``[c]`` float32: 1 at the classes an image has, 0 elsewhere."""
    label = np.zeros(num_classes, dtype=np.float32)
    label[list(classes)] = 1
    return label


def present_classes(label: Any) -> tuple[int, ...]:
    """Indices of the classes that a label names, in label order.

    Args:
        label: a class index, or a multi-hot vector ``[c]`` (``c`` is at least 2): a number, an array or a tensor.
    """
    values = np.asarray(label)
    return (int(values.item()),) if values.size == 1 else tuple(np.flatnonzero(values > 0).tolist())
