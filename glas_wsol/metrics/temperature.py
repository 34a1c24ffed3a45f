# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Fit one temperature that calibrates class probabilities, from image labels alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

__all__ = ["LEAST_IMAGES", "fit_temperature"]

LEAST_IMAGES = 10
"""Of fewer, a temperature is chance."""

_LOWEST, _HIGHEST = 0.05, 20.0
_LEAST_LOG = np.log(1e-12)  # of a probability that float32 rounded to 0


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature ``T`` with the least mean cross-entropy of ``softmax(logits / T)`` and the labels, in [0.05, 20].

    It changes confidences only: never the class, nor any mask. Above 1 it was overconfident. No pixel label has
    any part in it. The images must not be those that were trained on.

    A label is not taken as certain (Platt's targets): with two classes, a label of a class with n images means a
    probability of ``(n + 1) / (n + 2)``. One temperature serves all c classes, so n counts as ``n c / 2``, as many as
    in two classes of as many images together; the rest is shared by the other classes. So few images that were all
    classified right do not make it confident without bound. Where there are fewer than ten images, or labels of one
    class only, the temperature is 1.

    Sources: Guo et al., On calibration of modern neural networks, ICML 2017; Platt, Probabilistic outputs for support
    vector machines, 1999.

    Args:
        logits: ``[N, c]``, or logarithms of probabilities; of a probability 0, minus infinity, as of 1e-12.
        labels: ``[N]``, class indices.

    Raises:
        ValueError: if the shapes do not fit, a label is no class, or a logit is infinite or not a number.
    """
    scores, classes = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or classes.shape != scores.shape[:1]:
        raise ValueError(f"logits [N, c] and labels [N] are needed, got {scores.shape} and {classes.shape}")
    if not np.isin(classes, np.arange(scores.shape[1])).all():
        raise ValueError(f"labels must be class indices below {scores.shape[1]}")
    if len(classes):
        scores = np.where(np.isneginf(scores), scores.max(axis=1, keepdims=True) + _LEAST_LOG, scores)
    if not np.isfinite(scores).all():
        raise ValueError("logits must be finite, or minus infinity for some of an image's classes")
    if len(classes) < LEAST_IMAGES or len(np.unique(classes)) < 2:
        return 1.0
    classes = classes.astype(int)
    number = scores.shape[1]
    doubt = 1 / (np.bincount(classes)[classes][:, None] * number / 2 + 2)
    targets = np.where(np.arange(number) == classes[:, None], 1 - doubt, doubt / (number - 1))

    def loss(log_temperature: float) -> float:
        return -float((targets * log_softmax(scores / np.exp(log_temperature), axis=1)).sum(axis=1).mean())

    found = minimize_scalar(loss, bounds=(np.log(_LOWEST), np.log(_HIGHEST)), method="bounded")
    return float(np.exp(found.x))
