# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Place the phantom's glands and shape their outlines: the part of the tissue that carries the class.

Benign crypts are round or oval tubes cut across, evenly spaced in one direction, with stroma all around. Malignant
glands are branched and lobulated, lie in disorder and press against each other. Both fill the same share of the tile:
area does not reveal the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage import measure

from glas_wsol.data.phantom.canvas import Canvas, jittered_grid

__all__ = ["Glands", "grow_glands"]

_FAR = np.float32(400)  # farther from any gland than a tile's emptiest corner, native px
_REACH = 70.0  # how far beyond its outline a gland is evaluated, native px
_SPECK = 700.0  # smaller pieces are no glands, native px squared


@dataclass(frozen=True)
class Glands:
    """The glands of one canvas.

    Args:
        labels: instance ids ``[rows, cols]`` int32, 0 = stroma; everything inside a gland's outer border carries its
            id.
        field: about the signed distance to the nearest gland's border ``[rows, cols]`` float32, negative inside, native
            px.
        depth: distance from the inside to the border ``[rows, cols]`` float32, 0 in the stroma, native px.
    """

    labels: np.ndarray
    field: np.ndarray
    depth: np.ndarray

    @property
    def count(self) -> int:
        """The greatest id."""
        return int(self.labels.max(initial=0))


@dataclass(frozen=True)
class _Crypt:
    """A tube cut across: an ellipse with a slightly wavy outline."""

    y: float
    x: float
    a: float
    b: float
    angle: float
    waves: np.ndarray  # cosine and sine amplitudes of the outline's 2nd to 4th harmonic

    @property
    def reach(self) -> float:
        return 1.2 * max(self.a, self.b)

    def distance(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        dy, dx = y - np.float32(self.y), x - np.float32(self.x)
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        u, v = (dx * cos + dy * sin) / np.float32(self.a), (dy * cos - dx * sin) / np.float32(self.b)
        q = np.sqrt(u * u + v * v) + np.float32(1e-4)
        turn = (u + np.complex64(1j) * v) / q
        harmonic, outline = turn, np.float32(1)
        for cosine, sine in self.waves:
            harmonic = harmonic * turn
            outline = outline + np.float32(cosine) * harmonic.real + np.float32(sine) * harmonic.imag
        return (
            q
            * (q - outline)
            / (np.sqrt((u / np.float32(self.a)) ** 2 + (v / np.float32(self.b)) ** 2) + np.float32(1e-6))
        )


@dataclass(frozen=True)
class _Branched:
    """A tube with branches: capsules ``[n, 5]`` of two end points (y, x) and a radius, melted together."""

    y: float
    x: float
    capsules: np.ndarray

    @property
    def reach(self) -> float:
        ends = np.abs(self.capsules[:, :4] - np.tile([self.y, self.x], 2)).max()
        return float(ends + self.capsules[:, 4].max())

    def distance(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        result = None
        for y0, x0, y1, x1, radius in np.asarray(self.capsules, np.float32):
            ay, ax = y1 - y0, x1 - x0
            t = np.clip(((y - y0) * ay + (x - x0) * ax) / (ay * ay + ax * ax + np.float32(1e-6)), 0, 1)
            d = np.hypot(y - y0 - t * ay, x - x0 - t * ax) - radius
            if result is None:
                result = d
            else:  # a smooth minimum rounds the angle between branches
                h = np.clip(16 - np.abs(result - d), 0, None) / 16
                result = np.minimum(result, d) - h * h * 4
        assert result is not None, "a gland has a capsule"
        return result


def grow_glands(rng: np.random.Generator, canvas: Canvas, *, malignant: bool, fraction: float) -> Glands:
    """Lay out the glands of a tile so that they cover a wanted share of it.

    Args:
        malignant: the grade.
        fraction: share of the tile inside glands, 0 to 1; met up to the removal of specks.
    """
    skeletons = _branched_glands(rng, canvas, fraction) if malignant else _crypts(rng, canvas, fraction)
    nearest, second, owner = _compete(canvas, skeletons)
    if malignant:
        nearest_gap = rng.uniform(2, 7) + 4 * canvas.noise(rng, 130)  # back to back here, apart there
        ripple = 6.0 * canvas.noise(rng, 52) + 2.2 * canvas.noise(rng, 20)
    else:
        nearest_gap = rng.uniform(9, 14) + 2 * canvas.noise(rng, 130)
        ripple = 1.8 * canvas.noise(rng, 60) + 0.7 * canvas.noise(rng, 22)
    squeeze = np.maximum(nearest_gap, 0.8) - (second - nearest)
    nearest = nearest + ripple
    field = np.maximum(nearest - _level(canvas, nearest, squeeze, fraction), squeeze / 2)
    labels = _instances(canvas, np.where(field < 0, owner, 0))
    edge = np.float32(0.5 / canvas.scale)
    field = np.where(labels > 0, np.minimum(field, -edge / 4), np.maximum(field, edge / 4)).astype(np.float32)
    inner = (labels > 0) & ~_touching(labels)
    depth = ndimage.distance_transform_edt(inner).astype(np.float32) / np.float32(canvas.scale)
    return Glands(labels, field, depth)


def _crypts(rng: np.random.Generator, canvas: Canvas, fraction: float) -> list[_Crypt]:
    spacing, stretch, direction = rng.uniform(108, 146), rng.uniform(1.0, 1.5), rng.uniform(0, np.pi)
    y, x = _sites(rng, canvas, spacing, jitter=0.1, stretch=stretch, direction=direction)
    keep = _settled(rng, canvas, y, x, share=fraction / 0.60)
    crypts = []
    for cy, cx in zip(y[keep], x[keep], strict=True):
        size = spacing / 2 * rng.uniform(0.78, 1.0)
        longer = np.sqrt(stretch * rng.uniform(0.9, 1.2))
        angle = direction + rng.normal(0, 0.16)
        crypts.append(
            _Crypt(cy, cx, size * longer, size / longer, angle, rng.normal(0, [[0.025], [0.02], [0.012]], (3, 2)))
        )
    return crypts


def _branched_glands(rng: np.random.Generator, canvas: Canvas, fraction: float) -> list[_Branched]:
    spacing, direction, order = rng.uniform(150, 195), rng.uniform(0, np.pi), rng.uniform(0.25, 0.9)
    y, x = _sites(rng, canvas, spacing, jitter=0.26, stretch=rng.uniform(1.0, 1.6), direction=direction)
    keep = _settled(rng, canvas, y, x, share=fraction / 0.72)
    glands = []
    for cy, cx in zip(y[keep], x[keep], strict=True):
        angle = direction + rng.normal(0, order)
        half = rng.uniform(15, 75)
        dy, dx = np.sin(angle), np.cos(angle)
        parts = [(cy - half * dy, cx - half * dx, cy + half * dy, cx + half * dx, rng.uniform(26, 46))]
        for _ in range(rng.integers(1, 5)):
            start, turn, length = rng.uniform(-half, half), rng.uniform(0.6, np.pi - 0.6), rng.uniform(35, 85)
            turn = angle + turn * rng.choice((-1, 1))
            sy, sx = cy + start * dy, cx + start * dx
            parts.append((sy, sx, sy + length * np.sin(turn), sx + length * np.cos(turn), rng.uniform(18, 34)))
        glands.append(_Branched(cy, cx, np.array(parts)))
    return glands


def _sites(
    rng: np.random.Generator, canvas: Canvas, spacing: float, *, jitter: float, stretch: float, direction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Centres of glands on and a little beyond the canvas, on a jittered grid stretched along a direction."""
    height, width = canvas.extent
    span = np.hypot(height, width) + 2 * spacing
    v, u = jittered_grid(rng, (span * np.sqrt(stretch), span), spacing, jitter)
    v, u = (v - v.mean()) / np.sqrt(stretch), (u - u.mean()) * np.sqrt(stretch)
    y = height / 2 + v * np.cos(direction) + u * np.sin(direction)
    x = width / 2 + u * np.cos(direction) - v * np.sin(direction)
    near = (np.abs(y - height / 2) < height / 2 + spacing / 2) & (np.abs(x - width / 2) < width / 2 + spacing / 2)
    return y[near], x[near]


def _settled(rng: np.random.Generator, canvas: Canvas, y: np.ndarray, x: np.ndarray, share: float) -> np.ndarray:
    """Choose a share of the sites, leaving whole regions to the stroma, but never the middle of the tile."""
    empty = canvas.at(canvas.noise(rng, 300), y, x) + 0.5 * rng.standard_normal(len(y))
    empty[np.argmin(np.hypot(y - canvas.extent[0] / 2, x - canvas.extent[1] / 2))] = -np.inf
    return np.argsort(empty)[: max(1, round(min(share, 1.0) * len(y)))]


def _compete(canvas: Canvas, glands: Sequence[_Crypt | _Branched]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance to the nearest and the second nearest gland, and the nearest one's number from 1."""
    nearest, second = (np.full(canvas.shape, _FAR) for _ in range(2))
    owner = np.zeros(canvas.shape, dtype=np.int32)
    for number, gland in enumerate(glands, start=1):
        window = canvas.window(gland.y, gland.x, gland.reach + _REACH)
        y, x = canvas.grid(window)
        if y.size == 0 or x.size == 0:
            continue
        distance = gland.distance(y, x).astype(np.float32)
        closer = distance < nearest[window]
        second[window] = np.where(closer, nearest[window], np.minimum(second[window], distance))
        nearest[window] = np.where(closer, distance, nearest[window])
        owner[window][closer] = number
    return nearest, second, owner


def _level(canvas: Canvas, nearest: np.ndarray, squeeze: np.ndarray, fraction: float) -> np.float32:
    """How far every outline moves outwards so that the glands cover ``fraction`` of the tile."""
    free = np.sort(canvas.tile(nearest)[canvas.tile(squeeze) < 0])
    wanted = max(1, round(fraction * canvas.size[0] * canvas.size[1]))
    return np.float32(free[min(wanted, len(free)) - 1] + 1e-3) if len(free) else np.float32(0)


def _instances(canvas: Canvas, owner: np.ndarray) -> np.ndarray:
    """One id per connected piece of a gland, specks and holes removed."""
    labels = measure.label(owner, background=0, connectivity=1)
    area = np.bincount(labels.ravel())
    area[0] = 0
    in_tile = np.bincount(canvas.tile(labels).ravel(), minlength=len(area))
    in_tile[0] = 0
    keep = area >= _SPECK * canvas.scale**2
    keep[np.argmax(in_tile)] = True  # a tile always shows a gland
    keep[0] = False
    labels = np.where(keep[labels], labels, 0)
    _fill_holes(labels)
    return labels.astype(np.int32)


def _fill_holes(labels: np.ndarray) -> None:
    """Give each piece of stroma that one gland surrounds to that gland, in place; the canvas's border is no gland."""
    pieces, _ = ndimage.label(labels == 0)
    shape = labels.shape
    for number, (rows, cols) in enumerate(ndimage.find_objects(pieces), start=1):
        if rows.start == 0 or cols.start == 0 or rows.stop == shape[0] or cols.stop == shape[1]:
            continue
        window = slice(rows.start - 1, rows.stop + 1), slice(cols.start - 1, cols.stop + 1)
        hole = pieces[window] == number
        around = np.unique(labels[window][ndimage.binary_dilation(hole) & ~hole])
        if len(around) == 1:
            labels[window][hole] = around[0]


def _touching(labels: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour belongs to another gland."""
    touching = np.zeros(labels.shape, dtype=bool)
    touching[:-1] |= (labels[:-1] != labels[1:]) & (labels[1:] > 0)
    touching[:, :-1] |= (labels[:, :-1] != labels[:, 1:]) & (labels[:, 1:] > 0)
    return touching
