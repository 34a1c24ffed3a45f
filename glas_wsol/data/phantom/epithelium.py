# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Draw the inside of the phantom's glands: nuclei, cytoplasm, goblet vacuoles, lumen and what lies in it.

Both grades show the same share of pale area (lumen, vacuoles) and the same mean stain concentrations; only the
arrangement differs. So a mean colour does not reveal the class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage import measure

from glas_wsol.data.phantom.canvas import Canvas, Ellipses, jittered_grid
from glas_wsol.data.phantom.glands import Glands

__all__ = ["paint_epithelium"]

_PALE = (0.20, 0.36)  # share of the glands' area that is lumen or vacuole
_MEAN_H = (0.42, 0.50)  # mean concentrations over the glands
_MEAN_E = (0.27, 0.33)


@dataclass(frozen=True)
class _Inside:
    """Shared by the painters of both grades: the canvas, the glands, and the direction towards each gland's middle."""

    rng: np.random.Generator
    canvas: Canvas
    glands: Glands
    inward: np.ndarray

    @property
    def depth(self) -> np.ndarray:
        return self.glands.depth

    def each(self, values: np.ndarray) -> np.ndarray:
        """Spread one value per gland over the canvas, float32."""
        return values.astype(np.float32)[self.glands.labels]

    def share(self, field: np.ndarray) -> float:
        """Mean of a field over the glands in the tile."""
        inside = self.canvas.tile(self.glands.labels) > 0
        return float(self.canvas.tile(field)[inside].mean())

    def row(
        self,
        *,
        level: float,
        spacing: float,
        a: tuple[float, float],
        b: tuple[float, float],
        wobble: float,
        tilt: float,
        value: tuple[float, float],
        hollow: tuple[float, float],
        share: float,
    ) -> Ellipses:
        """Nuclei along the line at one depth, their long axes across it.

        Args:
            level: depth of the line, native px.
            spacing: between neighbours, native px.
            a: range of the semi-axes across the line, native px.
            b: range of the semi-axes along the line, native px.
            wobble: standard deviation of the depth, native px.
            tilt: standard deviation of the direction, radians.
            value: range of the haematoxylin concentration.
            hollow: range of the paleness of the middle.
            share: of the places that hold a nucleus.
        """
        rng = self.rng
        ys, xs = [np.zeros(0)], [np.zeros(0)]
        soft = ndimage.gaussian_filter(self.depth, 0.8 * max(self.canvas.scale, 0.5))
        for contour in measure.find_contours(soft, level):
            line = (contour + 0.5) / self.canvas.scale
            run = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
            count = int(run[-1] / spacing)
            if count < 2:
                continue
            stops = (np.arange(count) + rng.uniform(-0.22, 0.22, count) + rng.random()) * run[-1] / count
            ys.append(np.interp(stops, run, line[:, 0]))
            xs.append(np.interp(stops, run, line[:, 1]))
        y, x = np.concatenate(ys), np.concatenate(xs)
        kept = rng.random(len(y)) < share
        y, x = y[kept], x[kept]
        n = len(y)
        angle = self.canvas.at(self.inward, y, x)
        shift = rng.normal(0, wobble, n)
        return Ellipses(
            y=y + shift * np.sin(angle),
            x=x + shift * np.cos(angle),
            a=rng.uniform(*a, n),
            b=rng.uniform(*b, n),
            angle=angle + rng.normal(0, tilt, n),
            value=rng.uniform(*value, n),
            hollow=rng.uniform(*hollow, n),
            lobed=rng.uniform(0, 0.14, n),
        )


def paint_epithelium(
    rng: np.random.Generator, canvas: Canvas, glands: Glands, *, malignant: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Haematoxylin and eosin of the glands, ``[rows, cols]`` float32 each, valid inside them."""
    smooth = ndimage.gaussian_filter(glands.depth, 2.5 * canvas.scale)
    slope_y, slope_x = np.gradient(smooth)
    inside = _Inside(rng, canvas, glands, np.arctan2(slope_y, slope_x))
    pale = rng.uniform(*_PALE)
    h, e = (_malignant if malignant else _benign)(inside, pale)
    h *= np.float32(np.clip(rng.uniform(*_MEAN_H) / inside.share(h), 0.6, 1.6))
    e *= np.float32(np.clip(rng.uniform(*_MEAN_E) / inside.share(e), 0.6, 1.6))
    return h, e


def _benign(inside: _Inside, pale: float) -> tuple[np.ndarray, np.ndarray]:
    """One row of basal nuclei, goblet cells, and a small round lumen or a honeycomb of mucin."""
    rng, canvas = inside.rng, inside.canvas
    count = inside.glands.count + 1
    basal = inside.row(level=7.0, spacing=rng.uniform(6.2, 7.4), a=(4.6, 7.0), b=(2.8, 4.0), wobble=1.3, tilt=0.18,
                       value=(1.05, 1.6), hollow=(0.0, 0.4), share=0.97)  # fmt: skip
    stray = inside.row(level=14, spacing=10, a=(4.2, 6.0), b=(2.8, 3.8), wobble=2.2, tilt=0.35,
                       value=(0.95, 1.5), hollow=(0.0, 0.4), share=rng.uniform(0.05, 0.45))  # fmt: skip
    bodies = Ellipses.join([basal, stray]).draw(canvas)
    # Some crypts are cut where their lumen is wide, others where only goblet cells show.
    wall = inside.each(rng.normal(0, 5, count)) + 3.0 * canvas.noise(rng, 20)
    lumen, wall = _lumen(inside, wall, np.zeros_like(inside.depth), rng.uniform(0.2, 0.6) * pale, least=21)
    vacuoles = _vacuoles(inside, wall, pale - inside.share(lumen)).draw(canvas) * (bodies <= 0)
    return _mix(inside, np.maximum(lumen, vacuoles), lumen, bodies, mucin=rng.uniform(0.0, 0.07))


def _malignant(inside: _Inside, pale: float) -> tuple[np.ndarray, np.ndarray]:
    """Piled-up large nuclei in disorder, slit-like and cribriform lumina, necrotic debris."""
    rng, canvas = inside.rng, inside.canvas
    count = inside.glands.count + 1
    atypia = rng.uniform(0.2, 1.0)
    holes = _cribriform(inside, rng.random(count) < rng.uniform(0.1, 0.7)).draw(canvas)
    wall = inside.each(rng.normal(0, 4, count)) + 5.0 * canvas.noise(rng, 40) + 2.2 * canvas.noise(rng, 14)
    lumen, wall = _lumen(inside, wall, holes, pale, least=14)
    rows = [
        inside.row(level=level, spacing=rng.uniform(8.2, 9.4), a=(5.6, 7.4 + 1.6 * atypia), b=(3.3, 4.0 + 1.3 * atypia),
                   wobble=2.4, tilt=0.12 + 0.4 * atypia, value=(1.0, 1.5 + 0.4 * atypia), hollow=(0.15, 0.65),
                   share=share)
        for level, share in ((8.5, 0.97), (20, 0.85), (31, 0.6), (42, 0.4))
    ]  # fmt: skip
    nuclei = Ellipses.join(rows)
    apical = canvas.at(ndimage.gaussian_filter(lumen, 4 * canvas.scale), nuclei.y, nuclei.x)
    nuclei = nuclei[apical < 0.1].spread(8.0)
    bodies = np.maximum(nuclei.draw(canvas), nuclei.nucleoli(rng).draw(canvas))
    debris = _debris(inside, lumen)
    h, e = _mix(inside, lumen, lumen, bodies, mucin=rng.uniform(0.04, 0.14))
    return np.maximum(h, debris), np.maximum(e, 0.7 * np.clip(debris, 0, 0.8))


def _lumen(
    inside: _Inside, offset: np.ndarray, holes: np.ndarray, share: float, *, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Open the glands from their middle until a share of their area is lumen.

    Args:
        inside: the glands.
        offset: how much thicker than elsewhere the epithelium is here, native px.
        holes: lumina there are already, 0 to 1.
        share: of the glands' area, 0 to 1.
        least: least thickness of the epithelium, native px.

    Returns:
        The lumen, 0 to 1, and the thickness of the epithelium in native px.
    """
    canvas = inside.canvas
    solid = (canvas.tile(inside.glands.labels) > 0) & (canvas.tile(holes) < 0.5)
    missing = share - inside.share(holes)
    part = np.clip(missing / max(1 - inside.share(holes), 1e-3), 0, 1)
    middle = canvas.tile(inside.depth - offset)[solid]
    thickness = max(least, float(np.quantile(middle, 1 - part))) if middle.size else least
    wall = np.maximum(np.float32(thickness) + offset, np.float32(least * 0.8))
    return np.maximum(holes, np.clip((inside.depth - wall) / 1.6 + 0.5, 0, 1)), wall


def _mix(
    inside: _Inside, pale: np.ndarray, lumen: np.ndarray, bodies: np.ndarray, *, mucin: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cytoplasm, membranes, mucin and the grain of chromatin."""
    rng, canvas, depth = inside.rng, inside.canvas, inside.depth
    grain, foam, cloud = canvas.noise(rng, 2.6), canvas.noise(rng, 7), canvas.noise(rng, 34)
    strands = np.clip(1 - 1.6 * np.abs(canvas.noise(rng, 22) + 0.3 * foam), 0, 1) * np.clip(0.6 + cloud, 0, 1.6)
    basophilia = rng.uniform(0.24, 0.34)
    membrane = np.exp(-(((depth - 0.8) / 1.3) ** 2))
    brush = np.clip(4 * lumen * (1 - lumen), 0, 1)  # the apical border is dense
    basal = np.exp(-depth / 14)  # so is the cytoplasm near the nuclei
    h = basophilia * (0.85 + 0.35 * basal + 0.14 * cloud + 0.12 * foam + 0.12 * grain) * (1 - pale)
    h += mucin * pale * (0.3 + strands)
    e = (0.44 * (1 + 0.10 * cloud + 0.14 * foam + 0.14 * grain) + 0.12 * membrane + 0.12 * brush) * (1 - pale)
    e += (0.03 + 0.5 * mucin * strands) * pale
    return np.maximum(h, bodies * (1 + 0.20 * grain)), np.maximum(e, 0) * (1 - 0.2 * np.clip(bodies, 0, 1))


def _vacuoles(inside: _Inside, wall: np.ndarray, share: float) -> Ellipses:
    """Mucin droplets of goblet cells between nuclei and lumen, elongated towards the lumen.

    Args:
        inside: the glands.
        wall: thickness of the epithelium, native px.
        share: of the glands' area that they cover together.
    """
    rng, canvas = inside.rng, inside.canvas
    spacing = rng.uniform(13.5, 18.5)
    y, x = jittered_grid(rng, canvas.extent, spacing, 0.2)
    depth = canvas.at(inside.depth, y, x)
    kept = rng.permutation(np.flatnonzero((depth > 15) & (depth < canvas.at(wall, y, x) + 2)))
    radius = np.minimum(spacing * rng.uniform(0.32, 0.5, len(kept)), depth[kept] - 8)
    longer = rng.uniform(1.05, 1.8, len(kept))
    area = np.cumsum(np.pi * radius**2 * longer) * 0.9  # neighbours overlap a little
    n = int(np.searchsorted(area, share * (inside.glands.labels > 0).sum() / canvas.scale**2))
    y, x, radius, longer = y[kept][:n], x[kept][:n], radius[:n], longer[:n]
    return Ellipses(y, x, radius * longer, radius, canvas.at(inside.inward, y, x),
                    rng.uniform(0.94, 1.0, len(y)), np.zeros(len(y)), rng.uniform(0, 0.08, len(y)))  # fmt: skip


def _cribriform(inside: _Inside, chosen: np.ndarray) -> Ellipses:
    """Punched-out round lumina inside the chosen glands."""
    rng, canvas = inside.rng, inside.canvas
    y, x = jittered_grid(rng, canvas.extent, rng.uniform(36, 46), 0.22)
    room = canvas.at(inside.depth, y, x)
    kept = chosen[canvas.at(inside.glands.labels, y, x)] & (room > 18)
    y, x, room = y[kept], x[kept], room[kept]
    n = len(y)
    radius = np.minimum(rng.uniform(5, 13, n), room - 12)
    return Ellipses(y, x, radius * rng.uniform(1, 1.5, n), radius, rng.uniform(0, np.pi, n),
                    np.ones(n), np.zeros(n), rng.uniform(0, 0.15, n))  # fmt: skip


def _debris(inside: _Inside, lumen: np.ndarray) -> np.ndarray:
    """Dark dust of dead cells in some lumina."""
    rng, canvas = inside.rng, inside.canvas
    y, x = jittered_grid(rng, canvas.extent, 6.5, 0.45)
    dusty = canvas.at(canvas.noise(rng, 70), y, x) + 0.4 * rng.standard_normal(len(y)) > rng.uniform(0.6, 2.0)
    kept = dusty & (canvas.at(lumen, y, x) > 0.95)
    y, x = y[kept], x[kept]
    n = len(y)
    radius = rng.uniform(1.2, 3.4, n)
    return Ellipses(y, x, radius * rng.uniform(1, 1.8, n), radius, rng.uniform(0, np.pi, n),
                    rng.uniform(0.3, 1.2, n), np.zeros(n), rng.uniform(0, 0.2, n)).draw(canvas)  # fmt: skip
