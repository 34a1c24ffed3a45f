# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Holds the paper's published results of the compared methods."""

from __future__ import annotations

from collections.abc import Mapping

from glas_wsol.bundle.methods import IMAGE_LABELS, METHODS

__all__ = [
    "PASSES",
    "PUBLISHED",
    "PUBLISHED_DATASETS",
    "PUBLISHED_MEASURES",
    "PUBLISHED_TIME_RATIO",
    "published_backbone",
    "published_value",
]

PASSES = (0, 4)
"""Depths of the recursive erasing that the paper compares; each is a method of its own."""


PUBLISHED_MEASURES = ("classification_error", "f1_foreground", "f1_background")
PUBLISHED_DATASETS: Mapping[str, int] = {"GlaS": 80, "CUB5": 145}
"""Data sets of the paper's tables 1 and 2, and the number of images in their test sets."""

_Figures = tuple[float | None, float, float]  # in %: image error (None: the method names no class), F1+, F1-
PUBLISHED: Mapping[tuple[str, int | None], Mapping[str, _Figures]] = {
    ("all_ones", None): {"GlaS": (None, 66.01, 0.00), "CUB5": (None, 23.72, 0.00)},
    ("cam_avg", None): {"GlaS": (1.25, 67.20, 18.90), "CUB5": (11.72, 37.08, 69.54)},
    ("cam_max", None): {"GlaS": (0.00, 66.90, 23.26), "CUB5": (45.51, 24.76, 79.97)},
    ("cam_lse", None): {"GlaS": (1.25, 65.83, 25.88), "CUB5": (35.86, 34.79, 78.27)},
    ("wildcat", None): {"GlaS": (0.00, 67.11, 21.24), "CUB5": (35.86, 35.63, 76.89)},
    ("deep_mil", None): {"GlaS": (2.50, 69.40, 50.41), "CUB5": (18.62, 27.44, 56.60)},
    ("minmax", 0): {"GlaS": (1.25, 39.99, 65.30), "CUB5": (19.31, 40.07, 89.99)},
    ("minmax", 4): {"GlaS": (0.00, 72.54, 66.51), "CUB5": (10.34, 52.97, 90.69)},
    ("unet", None): {"GlaS": (None, 90.19, 88.52), "CUB5": (None, 60.06, 93.73)},
}
"""By method and passes, then data set: image error, F1+ and F1- in % (Belharbi et al., tables 1 and 2), one training
each, on the test sets, whose sizes are `PUBLISHED_DATASETS`: 80 images of GlaS, 145 of CUB5."""

PUBLISHED_TIME_RATIO: Mapping[str, float] = {"CUB5": 2.16}
"""Training time with 4 passes over that with none (table 3: 141 against 65 minutes for 400 epochs on one V100)."""


def published_value(dataset: str, synthetic: bool, method: str, passes: int | None, measure: str) -> float | None:
    """What the paper published, a share in [0, 1]; None where it did not, as of drawn images in a data set's layout."""
    figures = PUBLISHED.get((method, passes), {}).get(dataset)
    if synthetic or figures is None or measure not in PUBLISHED_MEASURES:
        return None
    percent = figures[PUBLISHED_MEASURES.index(measure)]
    return None if percent is None else round(percent / 100, 4)


def published_backbone(method: str) -> str | None:
    """The backbone of a method's published values.

    The paper gives its own method a larger network than its rivals (section 4); it does not name U-Net's.
    """
    if method == "minmax":
        return "resnet101"
    published = any(method == key for key, _ in PUBLISHED)
    return "resnet18" if published and METHODS[method].supervision == IMAGE_LABELS else None
