# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Compute exact Hausdorff distances between the objects of two label maps, only those that are needed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

__all__ = ["ObjectShapes"]


class _Shape:
    """An object's pixels, those at its rim, and a search tree of the rim, made when needed."""

    def __init__(self, labels: np.ndarray, number: int, place: tuple[slice, slice]) -> None:
        self.labels, self.number = labels, number
        mask = np.pad(labels[place] == number, 1)
        corner = np.array([place[0].start - 1, place[1].start - 1])
        self.pixels = np.argwhere(mask) + corner
        # From outside, the nearest pixel of an object is one with a free side.
        self.rim = np.argwhere(mask & ~ndimage.binary_erosion(mask)) + corner
        self.low, self.high = self.pixels.min(axis=0), self.pixels.max(axis=0)
        self._middle = self.rim[len(self.rim) // 2]
        self._radius = np.sqrt(_squares(self.rim - self._middle).max())
        self._tree: Any = None

    def farthest(self, points: np.ndarray) -> float:
        """The largest distance of any of the points to this object."""
        # No point's distance to the object is larger than that to one of its pixels, or smaller by more than the
        # radius around that pixel: of a small object, few points are candidates.
        squares = _squares(points - self._middle)
        points = points[squares >= max(0.0, np.sqrt(squares.max()) - self._radius - 1e-6) ** 2]
        points = points[self.labels[tuple(points.T)] != self.number]
        if not len(points):
            return 0.0
        self._tree = self._tree or KDTree(self.rim)
        return float(self._tree.query(points)[0].max())


def _squares(steps: np.ndarray) -> np.ndarray:
    return steps[:, 0] ** 2 + steps[:, 1] ** 2


def _distance(a: _Shape, b: _Shape) -> float:
    return max(b.farthest(a.pixels), a.farthest(b.pixels))


def _least(a: _Shape, b: _Shape) -> float:
    """What the Hausdorff distance is at least: the largest difference between the sides of the two boxes."""
    return float(max(np.abs(a.low - b.low).max(), np.abs(a.high - b.high).max()))


class ObjectShapes:
    """The objects, numbered from 1, of two label maps ``[H, W]`` of one image: the true ones and those found."""

    def __init__(self, truth: np.ndarray, found: np.ndarray) -> None:
        self.diagonal = math.hypot(*truth.shape)
        self._shapes = [
            [_Shape(labels, i + 1, place) for i, place in enumerate(ndimage.find_objects(labels))]
            for labels in (truth, found)
        ]
        self._known: dict[tuple[int, int], float] = {}

    def distance(self, side: int, number: int, partner: int) -> float:
        """An object's Hausdorff distance, in px, to its partner.

        Args:
            side: 0 for a true object, 1 for a found one.
            number: the object, from 0.
            partner: the other side's object, from 0; -1 for the one of the least distance, and where the other side
                has none, the image's diagonal.
        """
        if partner >= 0:
            return self._between(side, number, partner)
        own, others = self._shapes[side][number], self._shapes[1 - side]
        best = self.diagonal
        least = [_least(own, other) for other in others]
        for i in np.argsort(least, kind="stable"):
            if least[i] >= best:
                break
            best = min(best, self._between(side, number, int(i)))
        return best

    def _between(self, side: int, number: int, other: int) -> float:
        key = (number, other) if side == 0 else (other, number)
        if key not in self._known:
            self._known[key] = _distance(self._shapes[0][key[0]], self._shapes[1][key[1]])
        return self._known[key]
