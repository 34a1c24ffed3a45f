# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Trace outlines of a mask along its pixels' edges: filled in again they give the same mask, pixel for pixel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import find_objects
from scipy.ndimage import label as connected_parts

__all__ = ["MaskPart", "Polygon", "Ring", "mask_parts", "trace_polygons"]

Ring = list[tuple[int, int]]
"""Corners ``(x, y)`` in pixels, the first repeated as the last. (0, 0) is the image's upper left corner, so the first
pixel spans 0 to 1 and an image of width W ends at x = W."""

Polygon = list[Ring]
"""The outer ring first, then one ring for each hole."""

_ANY_CONTACT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class MaskPart:
    """One connected part of a mask: pixels that touch by an edge or a corner (8-connectivity), as for boxes.

    Attributes:
        polygons: its outlines, of the whole image's coordinates; several where pixels touch by corners only.
        area: its pixels.
        row: of its first pixel, from top to bottom, then from left to right: no other part has the same.
        column: of its first pixel.
        region: the rows and columns it lies in.
        pixels: ``[h, w]`` bool, which pixels of ``region`` are its own.
    """

    polygons: list[Polygon]
    area: int
    row: int
    column: int
    region: tuple[slice, slice]
    pixels: np.ndarray


def mask_parts(mask: np.ndarray) -> Iterator[MaskPart]:
    """Outline a mask part by part, in the order of their first pixels; no more than one is kept in memory.

    Args:
        mask: ``[H, W]`` bool.
    """
    labels, _ = connected_parts(_checked(mask), _ANY_CONTACT)
    for number, region in enumerate(find_objects(labels), start=1):
        top, left = region[0].start, region[1].start
        pixels = labels[region] == number
        traced = [_rectangle(*pixels.shape)] if pixels.all() else trace_polygons(pixels)
        polygons = [[[(x + left, y + top) for x, y in ring] for ring in polygon] for polygon in traced]
        yield MaskPart(polygons, int(pixels.sum()), top, left + int(pixels[0].argmax()), region, pixels)


def trace_polygons(mask: np.ndarray) -> list[Polygon]:
    """Outline every part of a mask whose pixels touch by an edge (4-connectivity), along the pixels' edges.

    All polygons are valid in the sense of OGC Simple Features: rings neither cross nor touch themselves, and touch
    another ring in single points at most. So pixels that share a corner only are two polygons, and a hole that reaches
    the outside through a corner stays a hole. Rings have no corner on a straight line.

    By its numbers, ``(x, y)`` taken as a plane with y upwards, an outer ring runs counter-clockwise and a hole
    clockwise (RFC 7946); on a screen, whose y runs downwards, the directions look reversed.

    Args:
        mask: ``[H, W]`` bool.

    Returns:
        Polygons in the order of their first pixels.
    """
    starts, directions, following = _segments(_checked(mask))
    labels, count = connected_parts(mask)
    polygons: list[Polygon] = [[] for _ in range(count)]
    visited = bytearray(len(following))
    for first in range(len(following)):
        if visited[first]:
            continue
        walk = []
        segment = first
        while not visited[segment]:
            visited[segment] = 1
            walk.append(starts[segment])
            segment = following[segment]
        # the pixel that the first segment runs around: one walk belongs to one part
        (x, y), direction = starts[first], directions[first]
        polygon = polygons[labels[y - (direction in (2, 3)), x - (direction in (1, 2))] - 1]
        for ring in _simple_rings(walk):
            polygon.insert(0 if _twice_area(ring) > 0 else len(polygon), ring)
    return polygons


def _checked(mask: np.ndarray) -> np.ndarray:
    if mask.dtype != bool or mask.ndim != 2 or 0 in mask.shape:
        raise ValueError(f"a bool mask [H, W] is needed, got {mask.dtype} {mask.shape}")
    return mask


def _rectangle(height: int, width: int) -> Polygon:
    """The same outline as tracing gives, found faster: for most specks of a noisy mask."""
    return [[(0, 0), (width, 0), (width, height), (0, height), (0, 0)]]


def _segments(mask: np.ndarray) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """The straight pieces of all outlines: where each starts, its direction and the piece after it.

    Directions are 0 to 3 for +x, +y, -x, -y: a pixel's upper, right, lower and left edge, in this order around it.
    """
    padded = np.pad(mask, 1)
    rows, columns = padded[:, 1:-1], padded[1:-1].T
    edges = (  # [lines, places along the line]: the pixel is below, left of, above, right of the line
        rows[1:] & ~rows[:-1],
        columns[:-1] & ~columns[1:],
        rows[:-1] & ~rows[1:],
        columns[1:] & ~columns[:-1],
    )
    starts, ends, directions = [], [], []
    for direction, lines in enumerate(edges):
        change = np.diff(np.pad(lines, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        (line, low), (_, high) = np.nonzero(change == 1), np.nonzero(change == -1)
        near, far = (low, high) if direction < 2 else (high, low)
        upright = direction % 2
        starts.append(np.stack((line, near) if upright else (near, line), axis=1))
        ends.append(np.stack((line, far) if upright else (far, line), axis=1))
        directions.append(np.full(len(line), direction))
    start, end, turned = np.concatenate(starts), np.concatenate(ends), np.concatenate(directions)
    weights = np.array([4, 4 * (mask.shape[1] + 1)])
    keys = start @ weights + turned
    order = np.argsort(keys)
    # Where two pixels touch by a corner, two pieces start: the one that stays with the same pixel is wanted.
    same, other = ((end @ weights + (turned + turn) % 4) for turn in (1, 3))
    place = np.searchsorted(keys, same, sorter=order).clip(max=max(0, len(keys) - 1))
    found = keys[order][place] == same if len(keys) else np.zeros(0, bool)
    following = order[np.where(found, place, np.searchsorted(keys, other, sorter=order))] if len(keys) else order
    return [(x, y) for x, y in start.tolist()], turned.tolist(), following.tolist()


def _simple_rings(walk: Ring) -> Iterator[Ring]:
    """Cut a closed walk where it comes back to a corner: none of the closed rings visits one twice."""
    ring: Ring = []
    place: dict[tuple[int, int], int] = {}
    for corner in [*walk, walk[0]]:
        if corner in place:
            loop = ring[place[corner] :]
            yield [*loop, corner]
            for passed in loop[1:]:
                del place[passed]
            del ring[place[corner] + 1 :]
        else:
            place[corner] = len(ring)
            ring.append(corner)


def _twice_area(ring: Ring) -> int:
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in pairwise(ring))
