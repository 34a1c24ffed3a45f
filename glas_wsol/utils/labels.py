# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Image labels: one class per image, or several; how they are written and which classes probabilities name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from glas_wsol.errors import ConfigError

__all__ = ["CLASSES_PER_IMAGE", "LEAST_PROBABILITY", "SEPARATOR", "is_several", "multi_hot", "present_classes"]

CLASSES_PER_IMAGE = ("one", "several")
"""``"one"``: a label is a class index. ``"several"``: it is a multi-hot vector ``[c]``, no class excludes another."""

SEPARATOR = ";"
"""Between the classes of one image, in tables read and written."""

LEAST_PROBABILITY = 0.5
"""Where an image may have several classes, those at least this probable are named; nothing is tuned."""


def is_several(classes_per_image: str, where: str) -> bool:
    """Whether an image may have several classes.

    Args:
        classes_per_image: ``"one"`` or ``"several"``.
        where: named in the error.

    Raises:
        ConfigError: on another word.
    """
    if classes_per_image not in CLASSES_PER_IMAGE:
        choices = " or ".join(CLASSES_PER_IMAGE)
        raise ConfigError(f"classes_per_image={classes_per_image!r}", where, f"choose {choices}")
    return classes_per_image == "several"


def multi_hot(classes: Sequence[int], num_classes: int) -> np.ndarray:
    """``[c]`` float32: 1 at the classes an image has, 0 elsewhere.

    Args:
        classes: their indices.
        num_classes: ``c``.
    """
    label = np.zeros(num_classes, dtype=np.float32)
    label[list(classes)] = 1
    return label


def present_classes(label: Any) -> tuple[int, ...]:
    """Indices of the classes that a label says, in label order.

    Args:
        label: a class index, or a multi-hot vector ``[c]`` (``c`` is at least 2): a number, an array or a tensor.
    """
    values = np.asarray(label)
    return (int(values.item()),) if values.size == 1 else tuple(np.flatnonzero(values > 0).tolist())
