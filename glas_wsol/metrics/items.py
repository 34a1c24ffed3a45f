# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read what the metrics need from an evaluated item, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from glas_wsol.data.splits import BOX

__all__ = ["components", "score_levels", "soft_map", "true_box", "true_mask", "true_objects"]

_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def components(mask: np.ndarray) -> np.ndarray:
    """8-connected components of a mask, ``[H, W]`` int32, numbered from 1; 0 is background."""
    return ndimage.label(mask, structure=_NEIGHBOURS)[0]


def true_mask(item: Mapping[str, Any]) -> np.ndarray | None:
    """The true foreground, ``[H, W]`` bool; None where the item has no truth."""
    return torch.as_tensor(item["truth"]).cpu().numpy()[0].astype(bool) if "truth" in item else None


def true_box(item: Mapping[str, Any]) -> np.ndarray | None:
    """The official box, ``[1, 4]`` float64: top, left, bottom, right edge, px; None where the item has none."""
    if BOX not in item:
        return None
    return torch.as_tensor(item[BOX]).cpu().double().numpy()[None, [1, 0, 3, 2]]


def true_objects(item: Mapping[str, Any]) -> np.ndarray | None:
    """The true objects' numbers, ``[H, W]``, 0 background: the item's own or the components of its truth, or None."""
    truth = true_mask(item)
    if truth is None:
        return None
    if item.get("truth_objects") is None:
        return components(truth)
    return torch.as_tensor(item["truth_objects"]).cpu().numpy().reshape(truth.shape)


def soft_map(item: Mapping[str, Any]) -> np.ndarray:
    """The soft decidable region, ``[H, W]`` float64 in [0, 1]; 0 everywhere if the image shows nothing to decide on."""
    found = item["localization"]
    return found.decidable.astype(np.float64).clip(0, 1) * found.evidence


def score_levels(soft: np.ndarray, steps: int) -> np.ndarray:
    """How many of the thresholds ``1/steps .. 1`` each float32 score in [0, 1] reaches, exactly up to 10^4 steps."""
    return np.floor(soft * steps).astype(np.int64)
