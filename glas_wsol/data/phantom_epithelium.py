# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The inside of the phantom's glands: nuclei, cytoplasm, goblet vacuoles, lumen and what lies in it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage import measure

from .phantom_canvas import Canvas, Ellipses, jittered_grid
from .phantom_glands import Glands

__all__ = ["paint_epithelium"]


def paint_epithelium(
    rng: np.random.Generator, canvas: Canvas, glands: Glands, *, malignant: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Stain concentrations of the glands, valid inside them.

    Returns:
        Haematoxylin and eosin, ``[rows, cols]`` float32.
    """
    smooth = ndimage.gaussian_filter(glands.depth, 2.5 * canvas.scale)
    slope_y, slope_x = np.gradient(smooth)
    inward = np.arctan2(slope_y, slope_x)
    paint = _paint_malignant if malignant else _paint_benign
    return paint(rng, canvas, glands, inward)


def _paint_benign(
    rng: np.random.Generator, canvas: Canvas, glands: Glands, inward: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One row of basal nuclei, goblet cells, a small open lumen or a honeycomb of mucin."""
    depth, labels = glands.depth, glands.labels
    n = glands.count + 1
    goblets, open_lumen = rng.uniform(0.55, 1.0), rng.uniform(0.2, 0.7)
    thickness = rng.normal(rng.uniform(26, 33), 3.5, n) + np.where(rng.random(n) < open_lumen, 0, 14)
    wall = thickness.astype(np.float32)[labels] * (1 + 0.13 * canvas.noise(rng, 22))
    lumen = np.clip((depth - wall) / 1.6 + 0.5, 0, 1)
    nuclei = _row(rng, canvas, depth, inward, level=6.6, spacing=rng.uniform(7.2, 8.4), a=(4.4, 6.2), b=(3.1, 4.1),
                  wobble=0.9, tilt=0.16, value=(0.95, 1.35), hollow=(0.1, 0.5), share=0.97)  # fmt: skip
    stray = _row(rng, canvas, depth, inward, level=13.5, spacing=13, a=(4.0, 5.6), b=(3.0, 4.0), wobble=2.0, tilt=0.4,
                 value=(0.85, 1.25), hollow=(0.1, 0.5), share=rng.uniform(0.12, 0.4))  # fmt: skip
    bodies = np.maximum(nuclei.draw(canvas), stray.draw(canvas))
    vacuoles = _vacuoles(rng, canvas, depth, wall, labels, inward, goblets).draw(canvas) * (bodies <= 0)
    return _mix(
        rng, canvas, depth, lumen, vacuoles, bodies, basophilia=rng.uniform(0.22, 0.34), mucin=rng.uniform(0.03, 0.16)
    )


def _paint_malignant(
    rng: np.random.Generator, canvas: Canvas, glands: Glands, inward: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Piled-up large dark nuclei, slit-like and cribriform lumina, necrotic debris."""
    depth, labels = glands.depth, glands.labels
    n = glands.count + 1
    thickness = np.clip(rng.normal(rng.uniform(26, 38), 5, n), 20, None)
    wall = thickness.astype(np.float32)[labels] + 4.5 * canvas.noise(rng, 38) + 2.5 * canvas.noise(rng, 14)
    lumen = np.clip((depth - wall) / 1.6 + 0.5, 0, 1)
    holes = _cribriform(rng, canvas, depth, labels, rng.random(n) < rng.uniform(0.1, 0.6)).draw(canvas)
    lumen = np.maximum(lumen, holes)
    atypia = rng.uniform(0.3, 1.0)
    rows = []
    for level, share in ((7.5, 0.95), (16, 0.85), (24.5, 0.6), (33, 0.35), (42, 0.2)):
        rows.append(_row(rng, canvas, depth, inward, level=level, spacing=rng.uniform(8.8, 10.2),
                         a=(5.6, 7.0 + 2 * atypia), b=(3.8, 4.6 + atypia), wobble=2.6, tilt=0.25 + 0.35 * atypia,
                         value=(0.8, 1.3 + 0.3 * atypia), hollow=(0.1, 0.65), share=share))  # fmt: skip
    bodies = np.max([row.draw(canvas) for row in rows], axis=0)
    bodies *= np.clip(1 - 1.3 * ndimage.gaussian_filter(lumen, 1.5 * canvas.scale), 0, 1)
    debris = _debris(rng, canvas, lumen)
    vacuoles = np.zeros_like(depth)
    h, e = _mix(
        rng, canvas, depth, lumen, vacuoles, bodies, basophilia=rng.uniform(0.22, 0.34), mucin=rng.uniform(0.0, 0.05)
    )
    return np.maximum(h, debris), np.maximum(e, 0.7 * np.clip(debris, 0, 0.8))


def _mix(
    rng: np.random.Generator,
    canvas: Canvas,
    depth: np.ndarray,
    lumen: np.ndarray,
    vacuoles: np.ndarray,
    bodies: np.ndarray,
    *,
    basophilia: float,
    mucin: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Cytoplasm, membranes and chromatin grain."""
    grain = canvas.noise(rng, 3.2)
    cloud = canvas.noise(rng, 34)
    rim = np.exp(-(((depth - 0.8) / 1.3) ** 2))  # basement membrane
    brush = np.clip(4 * lumen * (1 - lumen), 0, 1)  # apical border
    pale = np.clip(np.maximum(lumen, vacuoles), 0, 1)
    cytoplasm_h = basophilia * (1 + 0.16 * cloud + 0.12 * grain)
    cytoplasm_e = 0.46 * (1 + 0.10 * cloud + 0.10 * grain) + 0.12 * rim + 0.10 * brush
    h = cytoplasm_h * (1 - pale) + mucin * pale * (1 + 0.5 * cloud)
    e = cytoplasm_e * (1 - pale) + 0.05 * pale
    solid = np.clip(bodies, 0, 1)
    return np.maximum(h, bodies * (1 + 0.13 * grain)), e * (1 - 0.3 * solid)


def _row(
    rng: np.random.Generator,
    canvas: Canvas,
    depth: np.ndarray,
    inward: np.ndarray,
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
    """Nuclei along the line at one depth, their long axes across it."""
    ys, xs = [np.zeros(0)], [np.zeros(0)]
    for line in measure.find_contours(ndimage.gaussian_filter(depth, 0.8 * max(canvas.scale, 0.5)), level):
        line = (line + 0.5) / canvas.scale
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
    angle = canvas.at(inward, y, x)
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


def _vacuoles(
    rng: np.random.Generator,
    canvas: Canvas,
    depth: np.ndarray,
    wall: np.ndarray,
    labels: np.ndarray,
    inward: np.ndarray,
    goblets: float,
) -> Ellipses:
    """Mucin droplets of goblet cells between the nuclei and the lumen, elongated towards the lumen."""
    spacing = rng.uniform(13, 18)
    y, x = jittered_grid(rng, canvas.extent, spacing, 0.2)
    inner, apical = canvas.at(depth, y, x), canvas.at(wall, y, x)
    kept = (inner > 15.5) & (inner < apical - 1) & (rng.random(len(y)) < goblets) & (canvas.at(labels, y, x) > 0)
    y, x, inner = y[kept], x[kept], inner[kept]
    n = len(y)
    radius = np.minimum(spacing * rng.uniform(0.30, 0.52, n), inner - 8)
    longer = rng.uniform(1.0, 1.3, n)
    return Ellipses(
        y,
        x,
        radius * longer,
        radius,
        canvas.at(inward, y, x),
        rng.uniform(0.75, 1.0, n),
        np.zeros(n),
        rng.uniform(0, 0.08, n),
    )


def _cribriform(
    rng: np.random.Generator, canvas: Canvas, depth: np.ndarray, labels: np.ndarray, chosen: np.ndarray
) -> Ellipses:
    """Punched-out round lumina inside some glands."""
    y, x = jittered_grid(rng, canvas.extent, rng.uniform(36, 46), 0.22)
    room = canvas.at(depth, y, x)
    kept = chosen[canvas.at(labels, y, x)] & (room > 17)
    y, x, room = y[kept], x[kept], room[kept]
    n = len(y)
    radius = np.minimum(rng.uniform(5, 13, n), room - 11)
    return Ellipses(
        y,
        x,
        radius * rng.uniform(1, 1.5, n),
        radius,
        rng.uniform(0, np.pi, n),
        np.ones(n),
        np.zeros(n),
        rng.uniform(0, 0.15, n),
    )


def _debris(rng: np.random.Generator, canvas: Canvas, lumen: np.ndarray) -> np.ndarray:
    """Dark dust of dead cells in some lumina."""
    y, x = jittered_grid(rng, canvas.extent, 7.0, 0.4)
    where = canvas.at(canvas.noise(rng, 70), y, x) > rng.uniform(0.4, 1.6)
    kept = where & (canvas.at(lumen, y, x) > 0.95) & (rng.random(len(y)) < 0.7)
    y, x = y[kept], x[kept]
    n = len(y)
    radius = rng.uniform(1.4, 3.4, n)
    return Ellipses(
        y,
        x,
        radius * rng.uniform(1, 1.6, n),
        radius,
        rng.uniform(0, np.pi, n),
        rng.uniform(0.4, 1.3, n),
        np.zeros(n),
        rng.uniform(0, 0.2, n),
    ).draw(canvas)
