# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Draw one phantom bird: a silhouette of ellipses in the colours of its species, before a blurred scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import ndimage

from glas_wsol.data.phantom.canvas import Canvas, Ellipses, jittered_grid

__all__ = ["SPECIES", "Species", "draw_bird"]

Colour = tuple[float, float, float]
_float32 = cast("Callable[..., np.ndarray]", np.float32)  # of sequences and arrays; NumPy's types know scalars only
_NATIVE = 150.0  # the shorter side of a picture in native px: leaves and feathers keep their share of the picture


@dataclass(frozen=True)
class Species:
    """Colours of one species after the field guides, each red, green and blue in [0, 1].

    Args:
        back: of the upper half of the body, and of the head.
        belly: of the lower half.
        wing: of the wing, and of the tail.
        cap: of the crown.
        mark: of the streaks of the belly and of the patch on the nape.
        streaks: how much of the belly is streaked, 0 to 1.
        nape: radius of the patch on the nape, in radii of the head; 0 for none.
        beak: its length, in radii of the head.
    """

    back: Colour
    belly: Colour
    wing: Colour
    cap: Colour
    mark: Colour
    streaks: float
    nape: float
    beak: float


SPECIES: Mapping[str, Species] = {  # in the order of CUB5
    "019.Gray_Catbird": Species(
        (0.38, 0.40, 0.43), (0.47, 0.49, 0.52), (0.20, 0.21, 0.23), (0.07, 0.07, 0.08), (0.30, 0.31, 0.34), 0.2, 0, 0.7
    ),
    "171.Myrtle_Warbler": Species(
        (0.42, 0.48, 0.58), (0.95, 0.94, 0.91), (0.27, 0.29, 0.33), (0.97, 0.82, 0.12), (0.97, 0.82, 0.12), 0.4, 0, 0.5
    ),
    "108.White_necked_Raven": Species(
        (0.06, 0.06, 0.07), (0.09, 0.09, 0.11), (0.14, 0.15, 0.20), (0.06, 0.06, 0.07), (0.94, 0.94, 0.95), 0, 0.8, 1.2
    ),
    "099.Ovenbird": Species(
        (0.43, 0.40, 0.22), (0.96, 0.95, 0.91), (0.40, 0.37, 0.20), (0.88, 0.50, 0.13), (0.13, 0.11, 0.08), 0.5, 0, 0.5
    ),
    "178.Swainson_Warbler": Species(
        (0.47, 0.36, 0.23), (0.88, 0.84, 0.72), (0.40, 0.30, 0.19), (0.53, 0.25, 0.11), (0.80, 0.75, 0.60), 0.3, 0, 0.9
    ),
}


def draw_bird(rng: np.random.Generator, species: Species, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw one bird.

    Args:
        size: rows and columns, px.

    Returns:
        The picture, uint8 ``[H, W, 3]`` RGB, and the votes of five annotators, uint8 ``[H, W]``: 0, 51, ... 255 for 0
        to 5 votes. Above 127 is exactly the drawn silhouette.
    """
    canvas = Canvas(size, min(size) / _NATIVE, margin=0)
    picture = _scene(rng, canvas)
    unit = min(rng.uniform(0.2, 0.33) * min(size), 0.27 * size[1])  # half a body, px
    row, col = size[0] * rng.uniform(0.44, 0.58), size[1] * rng.uniform(0.46, 0.56)
    tilt, flip = rng.uniform(-0.15, 0.6), rng.choice((-1, 1))
    rows, cols = np.mgrid[: size[0], : size[1]].astype(np.float32) + 0.5
    x = ((cols - col) * flip * np.cos(tilt) + (row - rows) * np.sin(tilt)) / unit  # along the bird, to its beak
    y = ((row - rows) * np.cos(tilt) - (cols - col) * flip * np.sin(tilt)) / unit  # up
    girth, round_, high = rng.uniform(0.40, 0.50), rng.uniform(0.34, 0.42), rng.uniform(0.34, 0.48)
    body, tail = _ellipse(x, y, 0.92, girth), _ellipse(x + 1.3, y - 0.05, 0.65, 0.13)
    head, beak = _ellipse(x - 0.8, y - high, round_), _ellipse(x - 0.8 - round_, y - high, round_ * species.beak, 0.1)
    legs = np.maximum(np.abs(np.abs(x - 0.1) - 0.12) - 0.035, np.abs(y + girth + 0.05) - 0.28)
    wing = np.maximum(_ellipse(x + 0.25, y - 0.1, 0.62, 0.24), body + 0.05)
    marks = np.clip((canvas.noise(rng, 7) + 2 * species.streaks - 1.2) * 2, 0, 1) * (species.streaks > 0)

    bird = np.broadcast_to(_float32(species.belly), picture.shape)
    bird = _paint(bird, species.mark, marks)
    bird = _paint(bird, species.back, np.clip(y / 0.15 + 0.3, 0, 1))
    for part, colour in (
        (wing, species.wing),
        (tail, species.wing),
        (head, species.back),
        (np.maximum(head, high + 0.4 * round_ - y), species.cap),
        (np.maximum(_ellipse(x - 0.8 + round_, y - high, max(round_ * species.nape, 1e-3)), 0.2 - x), species.mark),
        (np.maximum(beak, -head), (0.35, 0.28, 0.22)),
        (np.maximum(legs, -body), (0.35, 0.28, 0.22)),
        (_ellipse(x - 0.8 - 0.35 * round_, y - high - 0.15 * round_, 0.2 * round_), (0.02, 0.02, 0.02)),
    ):
        bird = _paint(bird, colour, np.clip(0.5 - part * unit, 0, 1))
    bird = bird * (0.95 + 0.2 * np.clip(y / girth, -1, 1) + 0.06 * canvas.noise(rng, 4))[..., None]  # lit from above

    distance = np.min([body, head, tail, beak, legs], axis=0) * np.float32(unit)
    picture = _paint(picture, bird, np.clip(0.5 - distance, 0, 1))
    picture = ndimage.gaussian_filter(picture, (0.55, 0.55, 0)) * rng.uniform(0.85, 1.1)
    picture = picture + rng.normal(0, 0.012, picture.shape)
    # five annotators: two drew a little outside, two a little inside, and the middle one exactly
    wobble = np.abs(canvas.noise(rng, 18)) * 0.5 + 0.6
    drawn = ((distance < offset * wobble).astype(np.uint8) for offset in (-1.8, -0.9, 0.0, 0.9, 1.8))
    votes = cast("np.ndarray", sum(drawn))
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8), (votes * 51).astype(np.uint8)


def _ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float | None = None) -> np.ndarray:
    """About the signed distance to an ellipse around the origin, a circle where there is one semi-axis; < 0 inside."""
    b = b or a
    q = np.hypot(x / a, y / b) + np.float32(1e-5)
    return q * (q - 1) / (np.hypot(x / a**2, y / b**2) + np.float32(1e-5))


def _paint(under: np.ndarray, colour: Colour | np.ndarray, cover: np.ndarray) -> np.ndarray:
    return under + (_float32(colour) - under) * _float32(cover)[..., None]


def _scene(rng: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """Blurred sky, foliage or leaf litter with some sharper leaves, ``[H, W, 3]`` float32, about 0 to 1."""
    kind = rng.choice(3, p=(0.35, 0.4, 0.25))
    ground = _float32(((0.68, 0.78, 0.90), (0.42, 0.52, 0.28), (0.50, 0.42, 0.32))[kind]) * rng.uniform(0.8, 1.15)
    leaf = _float32(((0.25, 0.38, 0.14), (0.24, 0.40, 0.13), (0.50, 0.36, 0.19))[kind]) * rng.uniform(0.8, 1.2)
    blur = 0.08 * (canvas.noise(rng, 60) + 0.6 * canvas.noise(rng, 25)) + 0.03 * canvas.noise(rng, 8)
    picture = ground + blur[..., None]
    for depth in (3.0, 0.5):  # px; far leaves are blurred
        y, x = jittered_grid(rng, canvas.extent, 17, 0.5)
        kept = rng.random(len(y)) < (0.1, 0.25, 0.45)[kind]
        y, x, n = y[kept], x[kept], int(kept.sum())
        a, none = rng.uniform(6, 13, n), np.zeros(n)
        leaves = Ellipses(y, x, a, a * 0.4, rng.uniform(0, np.pi, n), rng.uniform(0.6, 0.9, n), none, none)
        cover = ndimage.gaussian_filter(leaves.draw(canvas), depth * canvas.scale)
        picture = _paint(picture, leaf + rng.normal(0, 0.03, 3), cover)
    return picture
