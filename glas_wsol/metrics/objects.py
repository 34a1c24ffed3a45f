# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Measure glands as objects: detection, area and shape, as the GlaS challenge measured them.

Source: Sirinukunwattana et al., Gland segmentation in colon histology images: the GlaS challenge contest, Med. Image
Anal. 35, 2017, section on evaluation. Sums run over all objects of all images. The object that corresponds to another
is the one that shares most pixels with it; of equal ones, that of the lowest number.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import numpy as np

from glas_wsol.metrics.items import components, true_objects
from glas_wsol.metrics.metric_base import MeasureMetric
from glas_wsol.metrics.shapes import ObjectShapes

__all__ = ["Correspondence", "ObjectDice", "ObjectF1", "ObjectHausdorff", "dice_row", "f1_row", "hausdorff_row"]


class Correspondence:
    """Which true and found objects of one image belong together.

    Objects are numbered from 0 in the order of their labels.

    Args:
        truth: ``[H, W]`` whole numbers, 0 background, each other number one true object.
        found: the same of the objects found.

    Attributes:
        areas: of the true objects ``[n]`` and of the found ones ``[m]``, in px.
        partners: for each true object the found one that shares most pixels, for each found one the true one, -1
            where none shares any.
        shared: the pixels shared with the partner, for true and for found objects.
        labels: the two maps, renumbered from 1.
    """

    def __init__(self, truth: np.ndarray, found: np.ndarray) -> None:
        self.labels = tuple(_renumber(objects) for objects in (truth, found))
        self.areas = tuple(np.bincount(labels.ravel())[1:] for labels in self.labels)
        width = len(self.areas[1])
        both = (self.labels[0] > 0) & (self.labels[1] > 0)
        pairs, counts = np.unique((self.labels[0][both] - 1) * width + self.labels[1][both] - 1, return_counts=True)
        pairs = np.divmod(pairs, max(width, 1))
        matches = [self._best(pairs[side], pairs[1 - side], counts, side) for side in (0, 1)]
        self.partners = tuple(partner for partner, _ in matches)
        self.shared = tuple(shared for _, shared in matches)

    def _best(self, own: np.ndarray, other: np.ndarray, counts: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        partner, shared = np.full(len(self.areas[side]), -1), np.zeros(len(self.areas[side]), dtype=np.int64)
        order = np.lexsort((-other, counts))  # the last one written wins: most pixels, then the lowest number
        partner[own[order]], shared[own[order]] = other[order], counts[order]
        return partner, shared


def _renumber(objects: np.ndarray) -> np.ndarray:
    present, numbers = np.unique(objects, return_inverse=True)
    return numbers.reshape(objects.shape) + (0 if 0 in present else 1)


def f1_row(pair: Correspondence) -> list[float]:
    """True positives, false positives and false negatives.

    A found object is true if it covers at least half of its true object; a true object is found once at most, and
    false negatives are the true objects less the true positives.
    """
    partner, shared = pair.partners[1], pair.shared[1]
    matched = partner >= 0
    covering = 2 * shared[matched] >= pair.areas[0][partner[matched]]
    true = len(np.unique(partner[matched][covering]))
    return [true, len(partner) - true, len(pair.areas[0]) - true]


def dice_row(pair: Correspondence) -> list[float]:
    """Sum of area x Dice and sum of area, over the true objects, then over the found ones."""
    row = []
    for side in (0, 1):
        partner, shared, own, other = pair.partners[side], pair.shared[side], pair.areas[side], pair.areas[1 - side]
        sizes = own + (other[partner] if len(other) else 0)  # of a partner of -1 nothing is shared: any size will do
        row += [float((own * 2 * shared / sizes).sum()), float(own.sum())]
    return row


def hausdorff_row(pair: Correspondence) -> list[float]:
    """Sum of area x Hausdorff distance (px) and sum of area, over the true objects, then over the found ones.

    An object that shares no pixel with any is compared with the nearest, that of the least Hausdorff distance; where
    the other side has no object at all, the distance is the image's diagonal.
    """
    shapes = ObjectShapes(*pair.labels)
    row = []
    for side in (0, 1):
        distances = [shapes.distance(side, i, partner) for i, partner in enumerate(pair.partners[side])]
        row += [float(pair.areas[side] @ np.array(distances)) if distances else 0.0, float(pair.areas[side].sum())]
    return row


class _ObjectMetric(MeasureMetric):
    def __init__(self, key: str, row: Callable[[Correspondence], list[float]]) -> None:
        self._row_of_pair = row
        super().__init__(key, self._row)

    def _row(self, item: MutableMapping[str, Any]) -> list[float] | None:
        if "correspondence" not in item:  # the three measures share it
            truth = true_objects(item)
            found = None if truth is None else Correspondence(truth, components(item["localization"].mask))
            item["correspondence"] = found
        return None if item["correspondence"] is None else self._row_of_pair(item["correspondence"])


class ObjectF1(_ObjectMetric):
    """F1 of detection: a found object that covers at least half of its true object is right, in [0, 1].

    Found objects are the 8-connected parts of the mask; counts are pooled over all images. 1 where no image has a
    true or a found object. Images without a truth mask are left out; without any, the value is not a number.
    """

    def __init__(self) -> None:
        super().__init__("object_f1", f1_row)


class ObjectDice(_ObjectMetric):
    """Object-level Dice, in [0, 1]: each object against its partner, weighted by area, from either side.

    An object without a partner has Dice 0, so an image where one side has no object adds its objects' areas only; an
    image where neither has any adds nothing. 1 where that is so of all images. Images without a truth mask are left
    out; without any, the value is not a number.
    """

    def __init__(self) -> None:
        super().__init__("object_dice", dice_row)


class ObjectHausdorff(_ObjectMetric):
    """Object-level Hausdorff distance, in px of the image: each object against its partner, weighted by area.

    An object that overlaps none is compared with the nearest one of its image (the least Hausdorff distance); where
    its image has none on the other side, the distance is the image's diagonal. An image where neither side has any
    adds nothing; 0 where that is so of all images. Images without a truth mask are left out; without any, the value
    is not a number.
    """

    def __init__(self) -> None:
        super().__init__("object_hausdorff", hausdorff_row)
