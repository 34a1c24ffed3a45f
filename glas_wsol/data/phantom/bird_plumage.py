# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What the five phantom birds look like: build and colours of each species, after the field guides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["SPECIES", "Feathers", "Species"]

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Feathers:
    """Where a pixel lies on a bird; every field is ``[H, W]`` float32.

    Args:
        u: along the bird from the tail (-1) to the beak (1).
        v: from the belly (-1) to the back (1), relative to the body's axis.
        head: signed distance to the head, in head radii: negative inside.
        head_u: along the head, from its middle, in head radii; the beak is in front at 1.
        head_v: upwards in the head, in head radii.
        wing: 1 on the folded or raised wing, 0 elsewhere, soft in between.
        tail: the same for the tail.
        barb: fine texture along the feathers, mean 0, standard deviation 1.
        streak: coarser texture along the body, mean 0, standard deviation 1.
    """

    u: np.ndarray
    v: np.ndarray
    head: np.ndarray
    head_u: np.ndarray
    head_v: np.ndarray
    wing: np.ndarray
    tail: np.ndarray
    barb: np.ndarray
    streak: np.ndarray


@dataclass(frozen=True)
class Species:
    """Build and plumage of one species.

    Args:
        plumage: paints the feathers, ``[H, W, 3]`` float32, 0 to 1.
        length: body length, share of the picture's shorter side at scale 1.
        girth: thickness of the body relative to its length.
        head: radius of the head relative to the body's half-length.
        beak: length of the beak relative to the body's half-length.
        beak_depth: thickness of the beak at its root, the same measure.
        tail: length of the tail, the same measure.
        beak_colour: red, green, blue, 0 to 1.
        leg_colour: the same.
        eye_ring: colour of the ring around the eye, None for none.
    """

    plumage: Callable[[Feathers], np.ndarray]
    length: float
    girth: float
    head: float
    beak: float
    beak_depth: float
    tail: float
    beak_colour: Colour
    leg_colour: Colour
    eye_ring: Colour | None = None


def _rgb(*channels: float) -> np.ndarray:
    return np.array(channels, dtype=np.float32)


def _step(field: np.ndarray, edge: float = 0.0, soft: float = 0.12) -> np.ndarray:
    """0 below the edge, 1 above it, ``[H, W, 1]``."""
    return np.clip((field - edge) / soft + 0.5, 0, 1)[..., None]


def _blend(under: np.ndarray, over: np.ndarray, cover: np.ndarray) -> np.ndarray:
    return under + (over - under) * cover


def _catbird(f: Feathers) -> np.ndarray:
    """Slate grey all over, black cap, dark tail, chestnut under the tail."""
    grey = _blend(_rgb(0.47, 0.49, 0.52), _rgb(0.36, 0.38, 0.41), _step(f.v, 0.05, 0.8))
    grey = _blend(grey, _rgb(0.30, 0.31, 0.34), f.wing[..., None] * 0.7)
    grey = _blend(grey, _rgb(0.48, 0.22, 0.12), _step(-f.v, 0.10) * _step(-f.u, 0.58))
    grey = _blend(grey, _rgb(0.12, 0.12, 0.14), f.tail[..., None] * 0.85)
    return _blend(grey, _rgb(0.07, 0.07, 0.08), _step(f.head_v, 0.38) * _step(-f.head, -0.25))


def _myrtle_warbler(f: Feathers) -> np.ndarray:
    """Blue-grey with black streaks, white throat and belly, yellow flank, crown and rump, two white wing bars."""
    blue = _blend(_rgb(0.42, 0.48, 0.58), _rgb(0.10, 0.11, 0.13), _step(f.streak, 0.55, 0.5) * 0.8)
    coat = _blend(_rgb(0.95, 0.94, 0.91), blue, _step(f.v, 0.02, 0.2))
    breast = _step(-np.hypot((f.u - 0.42) / 0.35, (f.v + 0.25) / 0.45), -1.0, 0.4)
    coat = _blend(coat, _rgb(0.12, 0.12, 0.15), breast * _step(f.streak, -0.2, 0.6) * 0.85)
    wing = _blend(
        _rgb(0.27, 0.29, 0.33), _rgb(0.93, 0.93, 0.92), _step(-np.abs(np.abs(f.u - 0.12) - 0.11), -0.04, 0.04)
    )
    coat = _blend(coat, wing, f.wing[..., None])
    yellow = _rgb(0.97, 0.82, 0.12)
    flank = _step(-np.hypot((f.u - 0.34) / 0.20, (f.v + 0.14) / 0.20), -1.0, 0.3) * (1 - f.wing[..., None])
    rump = _step(-np.hypot((f.u + 0.68) / 0.18, (f.v - 0.16) / 0.20), -1.0, 0.3)
    coat = _blend(coat, yellow, np.maximum(flank, rump))
    mask = _step(-f.head, -0.1) * _step(0.42 - np.abs(f.head_v - 0.05))
    coat = _blend(coat, _rgb(0.10, 0.11, 0.13), mask * 0.9)
    coat = _blend(coat, yellow, _step(-f.head, -0.1) * _step(f.head_v, 0.72))
    return _blend(coat, _rgb(0.15, 0.16, 0.19), f.tail[..., None] * 0.85)


def _white_necked_raven(f: Feathers) -> np.ndarray:
    """Glossy black with a white crescent on the nape."""
    black = _blend(_rgb(0.055, 0.055, 0.065), _rgb(0.16, 0.17, 0.23), _step(f.barb, 0.6, 1.2) * 0.7)
    black = _blend(black, _rgb(0.20, 0.20, 0.25), _step(f.v, 0.25, 0.6) * 0.35)
    nape = _step(-np.hypot((f.head_u + 1.05) / 0.75, (f.head_v - 0.10) / 0.95), -1.0, 0.25)
    return _blend(black, _rgb(0.94, 0.94, 0.95), nape * (1 - f.wing[..., None]))


def _ovenbird(f: Feathers) -> np.ndarray:
    """Olive back, white below with bold dark streaks, orange crown between black stripes."""
    spots = _step(f.streak, 0.35, 0.4) * _step(f.u, -0.55, 0.3)
    under = _blend(_rgb(0.96, 0.95, 0.91), _rgb(0.13, 0.11, 0.08), spots)
    olive = _blend(_rgb(0.45, 0.42, 0.24), _rgb(0.36, 0.33, 0.18), _step(f.barb, 0.3, 1.2))
    coat = _blend(under, olive, np.maximum(_step(f.v, 0.08, 0.2), np.maximum(f.wing, f.tail)[..., None]))
    on_head = _step(-f.head, -0.1)
    coat = _blend(coat, olive, on_head * _step(f.head_v, -0.35, 0.3))
    coat = _blend(coat, _rgb(0.08, 0.07, 0.05), on_head * _step(f.head_v, 0.45))
    return _blend(coat, _rgb(0.88, 0.50, 0.13), on_head * _step(f.head_v, 0.62))


def _swainson_warbler(f: Feathers) -> np.ndarray:
    """Plain brown above, buff below, rufous cap, pale brow over a dark line through the eye."""
    buff = _blend(_rgb(0.88, 0.84, 0.72), _rgb(0.80, 0.75, 0.60), _step(f.streak, 0.6, 1.5))
    brown = _blend(_rgb(0.49, 0.38, 0.25), _rgb(0.40, 0.30, 0.19), _step(f.barb, 0.3, 1.2))
    coat = _blend(buff, brown, np.maximum(_step(f.v, 0.10, 0.25), np.maximum(f.wing, f.tail)[..., None]))
    on_head = _step(-f.head, -0.1)
    coat = _blend(coat, _rgb(0.36, 0.22, 0.12), on_head * _step(0.13 - np.abs(f.head_v - 0.02)))
    coat = _blend(coat, _rgb(0.93, 0.89, 0.76), on_head * _step(0.16 - np.abs(f.head_v - 0.36)))
    return _blend(coat, _rgb(0.53, 0.25, 0.11), on_head * _step(f.head_v, 0.54))


SPECIES: Mapping[str, Species] = {  # in the order of CUB5
    "019.Gray_Catbird": Species(
        _catbird, 0.78, 0.40, 0.37, 0.24, 0.11, 1.05, (0.10, 0.10, 0.11), (0.22, 0.19, 0.18)
    ),
    "171.Myrtle_Warbler": Species(
        _myrtle_warbler, 0.70, 0.47, 0.42, 0.19, 0.09, 0.72, (0.12, 0.12, 0.12), (0.15, 0.13, 0.12)
    ),
    "108.White_necked_Raven": Species(
        _white_necked_raven, 0.86, 0.46, 0.44, 0.46, 0.26, 0.62, (0.14, 0.14, 0.15), (0.10, 0.10, 0.11)
    ),
    "099.Ovenbird": Species(
        _ovenbird, 0.72, 0.52, 0.42, 0.22, 0.11, 0.55, (0.62, 0.48, 0.38), (0.85, 0.58, 0.52), (0.96, 0.95, 0.90)
    ),
    "178.Swainson_Warbler": Species(
        _swainson_warbler, 0.72, 0.45, 0.38, 0.32, 0.12, 0.60, (0.66, 0.53, 0.44), (0.80, 0.60, 0.52)
    ),
}  # fmt: skip
