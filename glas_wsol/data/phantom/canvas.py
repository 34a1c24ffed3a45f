# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Draw the elements of the tissue phantom: smooth noise, fibre texture and anti-aliased ellipses at any scale.

Everything is described in *native pixels*, the pixels of a 775 x 522 tile at 20x (about 0.62 um), and drawn on a
canvas whose pixels are ``scale`` times as fine. The same description therefore shows the same tissue in a small test
tile and in a full one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

__all__ = ["Canvas", "Ellipses", "jittered_grid"]

_SPLINE_VARIANCE = 151 / 315  # of a cubic B-spline curve through unit white noise, averaged over phases
_CACHED = 20_000  # pixels worked on at once


@dataclass(frozen=True)
class Canvas:
    """A tile with a margin, so that what is cut by the tile's border is drawn whole and then cropped.

    Args:
        size: rows and columns of the tile, px.
        scale: canvas pixels per native pixel.
        margin: width of the frame around the tile, native px.
    """

    size: tuple[int, int]
    scale: float
    margin: float = 44.0

    @property
    def frame(self) -> int:
        """Width of the margin, px."""
        return int(np.ceil(self.margin * self.scale))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the canvas, px."""
        return self.size[0] + 2 * self.frame, self.size[1] + 2 * self.frame

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width of the canvas, native px."""
        return self.shape[0] / self.scale, self.shape[1] / self.scale

    def tile(self, field: np.ndarray) -> np.ndarray:
        """Crop a field ``[rows, cols, ...]`` of the canvas to the tile."""
        return field[self.frame : self.frame + self.size[0], self.frame : self.frame + self.size[1]]

    def grid(self, window: tuple[slice, slice] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Pixel centres as an open grid, ``[rows, 1]`` and ``[1, cols]`` float32, native px."""
        rows, cols = window or (slice(None), slice(None))
        y = (np.arange(self.shape[0], dtype=np.float32)[rows] + 0.5) / np.float32(self.scale)
        x = (np.arange(self.shape[1], dtype=np.float32)[cols] + 0.5) / np.float32(self.scale)
        return y[:, None], x[None, :]

    def window(self, y: float, x: float, reach: float) -> tuple[slice, slice]:
        """The part of the canvas within ``reach`` native px of a point; empty slices where there is none."""
        return tuple(
            slice(max(0, int((c - reach) * self.scale)), max(0, min(n, int((c + reach) * self.scale) + 2)))
            for c, n in zip((y, x), self.shape, strict=True)
        )  # type: ignore[return-value]

    def at(self, field: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Values of a canvas field at native points, the nearest pixel's; points outside take the border's."""
        rows = np.clip((y * self.scale).astype(np.intp), 0, self.shape[0] - 1)
        cols = np.clip((x * self.scale).astype(np.intp), 0, self.shape[1] - 1)
        return field[rows, cols]

    def noise(self, rng: np.random.Generator, wavelength: float) -> np.ndarray:
        """Smooth noise ``[rows, cols]`` float32 of mean 0 and standard deviation 1.

        Args:
            wavelength: distance over which it changes sign, native px.
        """
        step = max(wavelength / 2, 1 / self.scale)  # knots closer than pixels would only alias
        (rows, row_weights, height), (cols, col_weights, width) = (
            _spline(n, step * self.scale, rng.random()) for n in self.shape
        )
        knots = rng.standard_normal((height, width), dtype=np.float32)
        # Sums of four, not matrix products: their rounding does not depend on the number of threads.
        wide = np.asarray(sum(weight * knots[:, cols + k] for k, weight in enumerate(col_weights)))
        return np.asarray(sum(weight[:, None] * wide[rows + k] for k, weight in enumerate(row_weights)))

    def fibres(
        self, rng: np.random.Generator, direction: float, *, width: float, length: float, wave: float, wavelength: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bundles of wavy fibres, as collagen in a section.

        Args:
            direction: main direction, radians from the x axis.
            width: width of a fibre, native px.
            length: length over which a fibre keeps its brightness, native px.
            wave: amplitude of the crimp, native px.
            wavelength: wavelength of the crimp, native px.

        Returns:
            Texture of mean 0 and standard deviation 1, and the fibre's local direction in radians; both ``[rows,
            cols]`` float32.
        """
        y, x = self.grid()
        cos, sin = np.float32(np.cos(direction)), np.float32(np.sin(direction))
        along = x * cos + y * sin + 12 * self.noise(rng, 160)
        phase = along * np.float32(2 * np.pi / wavelength) + 1.6 * self.noise(rng, 140)
        across = y * cos - x * sin + 28 * self.noise(rng, 260) + np.float32(wave) * np.sin(phase)
        # A table of noise, 1.5 cells smooth and read with strides: what is finer than pixels would alias.
        cell = max(width / 3, 0.4 / self.scale), length / 3
        table = ndimage.gaussian_filter(rng.standard_normal((512, 128), dtype=np.float32), 1.5, mode="wrap")
        where = [across / np.float32(cell[0]), along / np.float32(cell[1])]
        texture = ndimage.map_coordinates(table / table.std(), where, order=1, mode="grid-wrap")
        slope_y, slope_x = np.gradient(across)
        return texture, np.arctan2(-slope_x, slope_y)


def _spline(count: int, step: float, phase: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Cubic B-spline of ``count`` pixels on knots ``step`` px apart.

    Returns:
        The first of each pixel's four knots ``[count]``, their weights ``[4, count]`` float32, scaled so that a surface
        through unit white noise has a standard deviation of 1, and the number of knots.
    """
    position = np.arange(count) / step + phase
    cell = position.astype(np.intp)
    t = position - cell
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    return cell, (weights / np.sqrt(_SPLINE_VARIANCE)).astype(np.float32), int(cell[-1]) + 4


def jittered_grid(
    rng: np.random.Generator, extent: tuple[float, float], spacing: float, jitter: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points of a hexagonal grid, each moved by up to ``jitter`` spacings: even, but not regular.

    Args:
        extent: height and width to cover, native px.
        spacing: distance between neighbours, native px.
        jitter: greatest displacement along each axis, spacings.

    Returns:
        ``y`` and ``x`` of the points, ``[n]`` float64, native px.
    """
    pitch = spacing * np.sqrt(3) / 2
    row, col = np.mgrid[0 : int(extent[0] / pitch) + 2, 0 : int(extent[1] / spacing) + 2]
    y = row * pitch
    x = (col + 0.5 * (row % 2)) * spacing
    shift = rng.uniform(-jitter, jitter, (2, *y.shape)) * spacing
    origin = rng.random(2) * spacing
    return (y - origin[0] + shift[0]).ravel(), (x - origin[1] + shift[1]).ravel()


@dataclass(frozen=True)
class Ellipses:
    """Many small bodies (nuclei, vacuoles) with slightly irregular outlines; every field is ``[n]``.

    Args:
        y: centres, native px.
        x: centres, native px.
        a: semi-axes along ``angle``, native px.
        b: semi-axes across it, native px.
        angle: direction of ``a``, radians from the x axis.
        value: what is drawn inside, such as a stain concentration.
        hollow: how much paler the middle is than the rim, 0 to 1 (vesicular chromatin).
        lobed: amplitude of the three-lobed deformation of the outline, 0 to about 0.3.
    """

    y: np.ndarray
    x: np.ndarray
    a: np.ndarray
    b: np.ndarray
    angle: np.ndarray
    value: np.ndarray
    hollow: np.ndarray
    lobed: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    @classmethod
    def join(cls, parts: Sequence[Ellipses]) -> Ellipses:
        """One list of several."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def __getitem__(self, chosen: np.ndarray) -> Ellipses:
        return Ellipses(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def spread(self, apart: float) -> Ellipses:
        """Without those whose centre is nearer than ``apart`` native px to that of an earlier one."""
        pairs = cKDTree(np.column_stack([self.y, self.x])).query_pairs(apart, output_type="ndarray")
        kept = np.ones(len(self), dtype=bool)
        for first, other in pairs[np.lexsort(pairs.T[::-1])]:
            if kept[first]:
                kept[other] = False
        return self[kept]

    def nucleoli(self, rng: np.random.Generator) -> Ellipses:
        """A small dark dot near the middle of about half of them."""
        dotted = self[rng.random(len(self)) < 0.55]
        n, radius = len(dotted), rng.uniform(1.0, 1.7, (2, len(dotted)))
        y, x = dotted.y + rng.uniform(-1.5, 1.5, n), dotted.x + rng.uniform(-1.5, 1.5, n)
        return Ellipses(y, x, radius[0], radius[1], dotted.angle, 1.15 * dotted.value, np.zeros(n), np.zeros(n))

    def grown(self, by: float, value: float) -> Ellipses:
        """The same bodies with a rim of ``by`` native px, all of one value."""
        n = len(self)
        return Ellipses(
            self.y, self.x, self.a + by, self.b + by, self.angle, np.full(n, value), np.zeros(n), np.zeros(n)
        )

    def draw(self, canvas: Canvas) -> np.ndarray:
        """Draw all, the greater value where two overlap: ``[rows, cols]`` float32, 0 outside, edges one pixel soft."""
        field = np.zeros(canvas.shape, dtype=np.float32)
        reach = np.ceil(np.maximum(self.a, self.b) * 1.25 * canvas.scale + 1).astype(int)
        for half in np.unique(reach):  # equal patches are drawn at once, as many as a processor's cache holds
            chosen = np.flatnonzero(reach == half)
            for some in np.array_split(chosen, 1 + len(chosen) * (2 * half + 1) ** 2 // _CACHED):
                self[some]._draw_patches(field, np.float32(canvas.scale), int(half))
        return field

    def _draw_patches(self, field: np.ndarray, scale: np.float32, half: int) -> None:
        y, x, a, b, angle, value, hollow, lobed = (
            np.asarray(getattr(self, f.name), np.float32)[:, None, None] for f in fields(self)
        )
        y, x, a, b = y * scale, x * scale, a * scale, b * scale
        cos, sin = np.cos(angle), np.sin(angle)
        offset = np.arange(-half, half + 1, dtype=np.int32)
        rows = np.floor(y).astype(np.int32) + offset[:, None]
        cols = np.floor(x).astype(np.int32) + offset[None, :]
        dy, dx = rows + np.float32(0.5) - y, cols + np.float32(0.5) - x
        u = dx * (cos / a) + dy * (sin / a)
        v = dy * (cos / b) - dx * (sin / b)
        square = u * u + v * v
        q = np.sqrt(square) + np.float32(1e-6)
        slope = np.sqrt((u / a) ** 2 + (v / b) ** 2) + np.float32(1e-6)
        if lobed.any():
            cosine = u / q
            q *= 1 + lobed * cosine * (4 * cosine * cosine - 3)
        drawn = np.clip(0.5 + q * (1 - q) / slope, 0, 1) * value
        if hollow.any():
            drawn *= 1 - np.clip(1 - square, 0, 1) * hollow
        inside = (drawn > 0) & (rows >= 0) & (rows < field.shape[0]) & (cols >= 0) & (cols < field.shape[1])
        np.maximum.at(field.reshape(-1), (rows * field.shape[1] + cols)[inside], drawn[inside])
