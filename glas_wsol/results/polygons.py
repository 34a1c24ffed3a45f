# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Trace outlines of a mask along its pixels' edges, which give the mask again, and simplify them for a hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely
from scipy.ndimage import find_objects
from scipy.ndimage import label as connected_parts

__all__ = ["MaskPart", "Polygon", "Ring", "mask_parts", "simplified", "trace_polygons"]

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
    """Outline a mask part by part, in the order of their first pixels.

    Args:
        mask: ``[H, W]`` bool.
    """
    labels, count = connected_parts(_checked(mask), _ANY_CONTACT)
    traced: list[list[Polygon]] = [[] for _ in range(count)]
    for polygon, (row, column) in _traced(mask):
        traced[labels[row, column] - 1].append(polygon)
    for number, region in enumerate(find_objects(labels), start=1):
        pixels = labels[region] == number
        column = region[1].start + int(pixels[0].argmax())
        yield MaskPart(traced[number - 1], int(pixels.sum()), region[0].start, column, region, pixels)


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
    return [polygon for polygon, _ in _traced(_checked(mask))]


def _traced(mask: np.ndarray) -> list[tuple[Polygon, tuple[int, int]]]:
    """The polygons of :func:`trace_polygons`, each with row and column of one of its pixels."""
    starts, following, met, firsts = _segments(mask)
    labels, count = connected_parts(mask)
    polygons: list[Polygon] = [[] for _ in range(count)]
    places: list[tuple[int, int]] = [(0, 0)] * count
    visited = bytearray(len(following))
    for first in range(firsts):
        if visited[first]:
            continue
        walk, segment, simple = [], first, True
        while not visited[segment]:
            visited[segment] = 1
            walk.append(starts[segment])
            simple = simple and not met[segment]
            segment = following[segment]
        column, row = walk[0]  # below the first piece, and one walk belongs to one part
        number = labels[row, column] - 1
        polygon, places[number] = polygons[number], (row, column)
        if simple:  # the uppermost piece of a part is of its outer ring: the first walk is that, the others are holes
            polygon.append([*walk, walk[0]])
            continue
        for ring in _simple_rings(walk):
            polygon.insert(0 if _twice_area(ring) > 0 else len(polygon), ring)
    return list(zip(polygons, places, strict=True))


def simplified(polygons: list[Polygon], tolerance: float) -> list[Polygon]:
    """Leave out corners of a part's outlines, so that a hand can move those that stay.

    Polygons stay valid, and every one and every hole stays; rings turn as before.

    Args:
        polygons: of one part, as :attr:`MaskPart.polygons`.
        tolerance: the farthest that an outline may move, in px.

    Returns:
        The polygons; those given where no simpler ones are valid.
    """
    shapes = shapely.MultiPolygon([(polygon[0], polygon[1:]) for polygon in polygons])
    simple = shapely.simplify(shapes, tolerance, preserve_topology=True)
    parts = shapely.get_parts(simple)
    if not simple.is_valid or [len(part.interiors) + 1 for part in parts] != list(map(len, polygons)):
        return polygons
    found = []
    for polygon in parts:
        rings = [polygon.exterior, *polygon.interiors]
        found.append([[(round(x), round(y)) for x, y in ring.coords] for ring in rings])
    return found


def _checked(mask: np.ndarray) -> np.ndarray:
    if mask.dtype != bool or mask.ndim != 2 or 0 in mask.shape:
        raise ValueError(f"a bool mask [H, W] is needed, got {mask.dtype} {mask.shape}")
    return mask


def _segments(mask: np.ndarray) -> tuple[list[tuple[int, int]], list[int], list[bool], int]:
    """The straight pieces of all outlines.

    Directions are 0 to 3 for +x, +y, -x, -y: a pixel's upper, right, lower and left edge, in this order around it.

    Returns:
        Where each starts, in the order of their directions and then of lines; the piece after each; whether another
        starts at the same corner; how many have the direction 0, of which every closed walk has one.
    """
    padded = np.pad(mask, 1)
    rows, columns = padded[:, 1:-1], np.ascontiguousarray(padded[1:-1].T)
    edges = (  # [lines, places along the line]: the pixel is below, left of, above, right of the line
        rows[1:] & ~rows[:-1],
        columns[:-1] & ~columns[1:],
        rows[:-1] & ~rows[1:],
        columns[1:] & ~columns[:-1],
    )
    starts, ends, directions = [], [], []
    for direction, lines in enumerate(edges):
        places = np.pad(lines, ((0, 0), (1, 1)))
        before, after = places[:, :-1], places[:, 1:]
        (line, low), (_, high) = np.nonzero(after & ~before), np.nonzero(before & ~after)
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
    corners = keys[order] // 4
    met = np.zeros(len(keys), bool)
    again = np.flatnonzero(corners[1:] == corners[:-1])
    met[order[again]] = met[order[again + 1]] = True
    return list(zip(*start.T.tolist(), strict=True)), following.tolist(), met.tolist(), len(starts[0])


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
