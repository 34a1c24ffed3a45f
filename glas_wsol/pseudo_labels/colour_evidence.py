# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Brings the pseudo-labels of a photograph to the outline of its object, by the colours of its two sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.special import expit
from skimage.color import rgb2lab
from tqdm import tqdm

from glas_wsol.pseudo_labels.feature_components import Transform, read_image
from glas_wsol.pseudo_labels.seeds import IGNORE

__all__ = ["correct_all_by_colour", "correct_by_colour"]

_BINS = 24  # of a colour histogram, in each of L, a and b
_LOW, _HIGH = np.array([0, -60, -60]), np.array([100, 60, 60])  # of L, a and b, over the bins
_ROUNDS = 20
_TRUST = 0.6, 2.5  # log-odds of the surest seed of R+, whose outlines are too wide, and of R-
_MOST = 3.0  # log-odds that a colour can be worth
_EMPTY = 1e-5  # share of a colour that was not seen
_SIDE = 200  # px of the shorter side at which the histograms are made
_DECIDABLE = 0.6  # probability from which a pixel is a seed of R+; below 0.5 one of R-


def correct_by_colour(seeds: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Seeds of a photograph whose R+ ends where the object's colours do.

    Features of a trunk are coarse: around an object, seeds of R+ have a margin of background. The colours of the pixels
    (CIE Lab, a histogram of each side) tell it from the object: each pixel's probability follows from its seed and from
    how much more frequent its colour is on one side than on the other; the histograms then follow from the
    probabilities, twenty times. Seeds of R- stay, and other pixels may become such. No pixel label has any part in it.

    Source: the idea of Rother et al., GrabCut, ACM Trans. Graph. 23, 2004, with histograms and without a graph cut.

    Args:
        seeds: ``[H, W]`` uint8, see :data:`~glas_wsol.pseudo_labels.seeds.IGNORE`.
        image: ``[3, H, W]`` in [0, 1].

    Returns:
        ``[H, W]`` uint8: the surer, the further from ``IGNORE``.
    """
    sure = (seeds.astype(np.float32) - IGNORE) / 127
    prior = np.where(sure > 0, _TRUST[0], _TRUST[1]) * sure
    lab = rgb2lab(ndimage.gaussian_filter(np.moveaxis(image, 0, -1), (1, 1, 0)))
    bins = ((lab - _LOW) / (_HIGH - _LOW) * _BINS).clip(0, _BINS - 1).astype(np.intp)
    colours = np.asarray(np.ravel_multi_index(tuple(np.moveaxis(bins, -1, 0)), (_BINS,) * 3))
    step = max(1, min(seeds.shape) // _SIDE)
    some, own = colours[::step, ::step], prior[::step, ::step]
    probability = expit(own)
    for _ in range(_ROUNDS):
        worth = _worth(some, probability)
        probability = expit(own + ndimage.gaussian_filter(worth[some], 1 / step))
    probability = expit(prior + ndimage.gaussian_filter(worth[colours], 1))
    found = np.rint(127 * (2 * probability - 1)).clip(-127, 127)
    found[(found > 0) & ((probability < _DECIDABLE) | (seeds == IGNORE))] = 0  # a colour alone makes no object
    return np.where(seeds < IGNORE, seeds, IGNORE + found).astype(np.uint8)


def _worth(colours: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Log-odds of R+ by colour."""
    sides = []
    for weight in (probability, 1 - probability):
        counts = np.bincount(colours.ravel(), weights=weight.ravel(), minlength=_BINS**3)
        smooth = ndimage.gaussian_filter(counts.reshape((_BINS,) * 3), 1).ravel()
        sides.append(smooth / max(smooth.sum(), _EMPTY) + _EMPTY)
    return np.log(sides[0] / sides[1]).clip(-_MOST, _MOST)


def correct_all_by_colour(
    seeds: Sequence[np.ndarray], data: Sequence[Mapping[str, Any]], transform: Transform
) -> list[np.ndarray]:
    """:func:`correct_by_colour` of every item of a data set.

    Args:
        seeds: of every item.
        data: items to read.
        transform: reads one: ``image`` to ``[3, H, W]`` in [0, 1].
    """
    pairs = zip(seeds, tqdm(data, "seeds by colour"), strict=True)
    return [correct_by_colour(one, read_image(item, transform, "cpu")[0].numpy()) for one, item in pairs]
