# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Draw the phantom's connective tissue: collagen, fibroblasts, lymphocytes, erythrocytes and clefts.

In a neutral phantom both grades draw their stroma from one distribution. In a confounded one the stroma shows the grade
too: loose and full of lymphocytes around benign glands, dense, wavy and full of fibroblasts (desmoplastic) around
malignant ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glas_wsol.data.phantom.canvas import Canvas, Ellipses, jittered_grid
from glas_wsol.data.phantom.glands import Glands

__all__ = ["StromaRecipe", "paint_stroma"]


@dataclass(frozen=True)
class StromaRecipe:
    """What the stroma of one tile is made of.

    Args:
        fibrous: contrast of the collagen fibres, 0 to 1.
        wave: amplitude of the collagen's crimp, native px.
        density: eosin concentration of the collagen.
        lymphocytes: per 1000 native px squared.
        fibroblasts: per 1000 native px squared.
        clefts: share of the area that is empty, 0 to 1.
        pores: share of the area with a loose, porous texture, 0 to 1.
        blood: share of the area covered by erythrocytes, 0 to 1.
    """

    fibrous: float
    wave: float
    density: float
    lymphocytes: float
    fibroblasts: float
    clefts: float
    pores: float
    blood: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> StromaRecipe:
        """The one distribution of a neutral phantom."""
        fibrous, wave, density = rng.uniform((0.35, 1.0, 0.42), (0.9, 6.0, 0.56)).tolist()
        lymphocytes = np.exp(rng.uniform(np.log(0.5), np.log(4.5)))
        fibroblasts, clefts, pores, blood = rng.uniform((0.7, 0.02, 0.05, -0.02), (1.7, 0.10, 0.30, 0.025)).tolist()
        return cls(fibrous, wave, density, lymphocytes, fibroblasts, clefts, pores, max(0.0, blood))

    @classmethod
    def draw_confounded(cls, rng: np.random.Generator, *, malignant: bool) -> StromaRecipe:
        """The distribution that depends on the grade."""
        low = (0.8, 5, 0.55, 0.15, 2.0, 0.01, 0.03) if malignant else (0.2, 0, 0.36, 2.6, 0.3, 0.05, 0.2, 0)
        high = (1.0, 8, 0.66, 0.5, 2.8, 0.03, 0.08) if malignant else (0.4, 2, 0.46, 4.5, 0.7, 0.10, 0.35, 0.02)
        return cls(*rng.uniform(low, high).tolist(), *([0.0] if malignant else []))


def paint_stroma(
    rng: np.random.Generator, canvas: Canvas, glands: Glands, recipe: StromaRecipe
) -> tuple[np.ndarray, np.ndarray]:
    """Haematoxylin and eosin, ``[rows, cols]`` float32 each, as without glands, but for the nuclei beside them."""
    direction = rng.uniform(0, np.pi)
    coarse, angle = canvas.fibres(rng, direction, width=7, length=70, wave=recipe.wave, wavelength=rng.uniform(55, 95))
    fine, _ = canvas.fibres(rng, direction, width=2.2, length=34, wave=recipe.wave / 2, wavelength=rng.uniform(30, 50))
    grain, foam, patch = canvas.noise(rng, 2.8), canvas.noise(rng, 8), canvas.noise(rng, 120)
    texture = recipe.fibrous * (0.20 * coarse + 0.20 * fine) + 0.10 * grain + 0.12 * foam + 0.10 * patch
    eosin = np.clip(recipe.density * (1 + texture), 0.08, None)
    haematoxylin = np.clip(0.08 + 0.02 * grain + 0.02 * foam + 0.015 * coarse, 0.01, None)
    streaks = 0.6 * coarse + 0.35 * fine + 0.6 * canvas.noise(rng, 24) + 0.25 * foam
    cleft = _upper(streaks + 0.5 * canvas.noise(rng, 150), recipe.clefts, 0.3)
    pores = _upper(0.8 * foam + 0.5 * fine + 0.4 * grain, recipe.pores, 0.9)
    cells = _cells(rng, canvas, glands, recipe, angle, cleft)
    halo = cells.grown(1.3, 1.0).draw(canvas)
    empty = np.maximum(0.94 * cleft, np.maximum(0.75 * pores, 0.45 * halo))
    nuclei = cells.draw(canvas) * (1 + 0.18 * grain)
    blood = _erythrocytes(rng, canvas, recipe.blood).draw(canvas)
    eosin = np.maximum(eosin * (1 - empty), 0.35 * np.clip(nuclei, 0, 1))
    return np.maximum(haematoxylin * (1 - np.maximum(empty, np.clip(blood, 0, 0.8))), nuclei), np.maximum(eosin, blood)


def _upper(field: np.ndarray, share: float, soft: float) -> np.ndarray:
    """Soft indicator of the greatest ``share`` of a field."""
    level = np.quantile(field[::3, ::3], 1 - share)
    return np.clip((field - level) / soft + 0.5, 0, 1)


def _cells(
    rng: np.random.Generator, canvas: Canvas, glands: Glands, recipe: StromaRecipe, angle: np.ndarray, cleft: np.ndarray
) -> Ellipses:
    """Fibroblasts along the fibres and lymphocytes in loose crowds."""
    total = (recipe.lymphocytes + recipe.fibroblasts) / 1000
    crowd = canvas.noise(rng, 110)
    y, x = jittered_grid(rng, canvas.extent, np.sqrt(1 / (total * 1.9)), 0.42)
    kind = rng.random(len(y))
    pull = np.clip(1 + 0.75 * canvas.at(crowd, y, x), 0.1, 1.9)  # lymphocytes gather, fibroblasts do not
    small = kind < recipe.lymphocytes / 1000 / (total * 1.9) * pull
    spindle = ~small & (rng.random(len(y)) < recipe.fibroblasts / 1000 / (total * 1.9))
    kept = (small | spindle) & (canvas.at(cleft, y, x) < 0.6)
    y, x, small = _beside_glands(canvas, glands, y[kept], x[kept], small[kept])
    n = len(y)
    radius = rng.uniform(3.6, 4.8, n)
    long, thin = rng.uniform(6.5, 11, n), rng.uniform(1.9, 2.9, n)
    along = canvas.at(angle, y, x) + rng.normal(0, 0.22, n)
    return Ellipses(
        y=y,
        x=x,
        a=np.where(small, radius * rng.uniform(1, 1.2, n), long),
        b=np.where(small, radius, thin),
        angle=np.where(small, rng.uniform(0, np.pi, n), along),
        value=np.where(small, rng.uniform(0.95, 1.45, n), rng.uniform(0.7, 1.15, n)),
        hollow=rng.uniform(0, 0.35, n),
        lobed=rng.uniform(0, 0.1, n),
    )


def _beside_glands(
    canvas: Canvas, glands: Glands, y: np.ndarray, x: np.ndarray, small: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Move nuclei that a border would cut outwards, as pericryptal fibroblasts: dropping them would thin the stroma."""
    slope_y, slope_x = np.gradient(glands.field)
    distance = canvas.at(glands.field, y, x)
    gy, gx = canvas.at(slope_y, y, x), canvas.at(slope_x, y, x)
    norm = np.hypot(gy, gx) + 1e-6
    push = np.where((distance > 0) & (distance < 4.5), 4.5 - distance, 0)
    y, x = y + push * gy / norm, x + push * gx / norm
    outside = distance > 0
    return y[outside], x[outside], small[outside]


def _erythrocytes(rng: np.random.Generator, canvas: Canvas, share: float) -> Ellipses:
    """Red cells in small pools; the drawn value is eosin."""
    y, x = jittered_grid(rng, canvas.extent, 7.5, 0.25)
    pool = canvas.noise(rng, 60)
    level = np.quantile(pool[::3, ::3], 1 - share) if share > 0 else np.inf
    kept = canvas.at(pool, y, x) > level
    y, x = y[kept], x[kept]
    n = len(y)
    radius = rng.uniform(3.2, 4.3, n)
    return Ellipses(y, x, radius * rng.uniform(1, 1.25, n), radius, rng.uniform(0, np.pi, n),
                    rng.uniform(0.75, 1.05, n), np.full(n, 0.15), np.zeros(n))  # fmt: skip
