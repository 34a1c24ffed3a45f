# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""One picture of a phantom bird: a posed silhouette from distance functions, its feathers, and a scene behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from glas_wsol.data.phantom.bird_plumage import Feathers, Species
from glas_wsol.data.phantom.canvas import Canvas, Ellipses, jittered_grid

__all__ = ["draw_bird"]

_NATIVE = 150.0  # the shorter side of a picture in native px: leaves and feathers keep their share of the picture


@dataclass(frozen=True)
class _Pose:
    """How a bird sits: a frame around the body's middle, x towards the head, y upwards, half a body long its unit."""

    row: float
    col: float
    unit: float  # px
    tilt: float  # radians, head up
    flip: int  # -1: looks to the left
    head: tuple[float, float]
    tail: float  # radians, raised
    raised: bool  # wing raised, legs tucked

    def frame(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        x = (np.arange(shape[1], dtype=np.float32) + 0.5 - self.col)[None, :] * self.flip / self.unit
        y = (self.row - np.arange(shape[0], dtype=np.float32) - 0.5)[:, None] / self.unit
        cos, sin = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        return x * cos + y * sin, y * cos - x * sin

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Row and column of a point of the frame."""
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        return self.row - (x * sin + y * cos) * self.unit, self.col + (x * cos - y * sin) * self.unit * self.flip


def draw_bird(rng: np.random.Generator, species: Species, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw one bird.

    Args:
        rng: source of randomness.
        species: build and plumage.
        size: rows and columns, px.

    Returns:
        The picture, uint8 ``[H, W, 3]`` RGB, and the votes of five annotators, uint8 ``[H, W]``: 0, 51, ... 255 for 0
        to 5 votes. Above 127 is exactly the drawn silhouette.
    """
    canvas = Canvas(size, min(size) / _NATIVE, margin=0)
    pose = _draw_pose(rng, species, size)
    x, y = pose.frame(size)
    parts = _silhouette(species, pose, x, y)
    distance = np.min(list(parts.values()), axis=0) * np.float32(pose.unit)
    flying = pose.raised
    picture = _scene(rng, canvas, pose, perch=not flying)
    bird = _feathers(rng, canvas, species, pose, parts, x, y)
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    picture = picture * (1 - cover) + bird * cover
    picture = ndimage.gaussian_filter(picture, (0.55, 0.55, 0)) * np.float32(rng.uniform(0.85, 1.1))
    picture += rng.normal(0, 0.012, picture.shape)
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8), _votes(rng, canvas, distance)


def _draw_pose(rng: np.random.Generator, species: Species, size: tuple[int, int]) -> _Pose:
    """Draw a pose, small enough that most of the bird is in the picture."""
    unit = 0.5 * min(size) * species.length * rng.uniform(0.62, 0.95)
    unit = min(unit, 0.5 * size[1] / (1.15 + 0.7 * species.tail))
    tilt = rng.uniform(-0.15, 0.75)
    row, col = size[0] * rng.uniform(0.42, 0.56), size[1] * rng.uniform(0.45, 0.55)
    flip = int(rng.choice((-1, 1)))
    # the tail is behind: keep the middle of the whole bird, not of its body, in the middle
    col += flip * 0.5 * unit * (species.tail - species.beak) * np.cos(tilt)
    head = 0.92 + rng.uniform(-0.08, 0.06), 0.42 + rng.uniform(-0.10, 0.12)
    return _Pose(row, col, unit, tilt, flip, head, rng.uniform(-0.25, 0.25), bool(rng.random() < 0.15))


def _ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    """About the signed distance to an ellipse around the origin."""
    q = np.hypot(x / a, y / b) + np.float32(1e-5)
    return q * (q - 1) / (np.hypot(x / a**2, y / b**2) + np.float32(1e-5))


def _cone(
    x: np.ndarray, y: np.ndarray, start: tuple[float, float], end: tuple[float, float], r0: float, r1: float
) -> np.ndarray:
    """About the signed distance to a rounded stroke whose radius goes from ``r0`` to ``r1``."""
    ax, ay = end[0] - start[0], end[1] - start[1]
    t = np.clip(((x - start[0]) * ax + (y - start[1]) * ay) / (ax * ax + ay * ay), 0, 1).astype(np.float32)
    return np.hypot(x - start[0] - t * ax, y - start[1] - t * ay) - (r0 + t * (r1 - r0))


def _melt(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """Smooth union."""
    h = np.clip(k - np.abs(a - b), 0, None) / k
    return np.minimum(a, b) - h * h * k / 4


def _silhouette(species: Species, pose: _Pose, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Signed distances of the parts in units of the pose, negative inside."""
    girth, hx, hy = species.girth, *pose.head
    belly = _ellipse(x + 0.02, y + 0.02, 0.92, girth)
    chest = _ellipse(x - 0.42, y - 0.02, 0.50, girth * 0.96)
    rump = _cone(x, y, (-0.45, 0.02), (-1.02, 0.04), girth * 0.62, 0.12)
    neck = _cone(x, y, (0.55, 0.12), (hx, hy), girth * 0.72, species.head * 0.85)
    body = _melt(_melt(belly, chest, 0.25), _melt(rump, neck, 0.2), 0.22)
    head = _ellipse(x - hx, y - hy, species.head * 1.08, species.head)
    tip = hx + species.head + species.beak, hy - 0.06 - 0.3 * species.beak_depth
    beak = _cone(x, y, (hx + species.head * 0.75, hy - 0.02), tip, species.beak_depth, 0.015)
    ends = -0.85 - species.tail * np.cos(pose.tail), 0.05 + species.tail * np.sin(pose.tail)
    tail = _cone(x, y, (-0.75, 0.05), ends, 0.11, 0.17)
    # the tail ends square, not round
    tail = np.maximum(tail, (ends[0] - x) * np.cos(pose.tail) + (y - ends[1]) * np.sin(pose.tail))
    parts = {"body": _melt(body, head, 0.12), "beak": beak, "tail": tail}
    if pose.raised:
        arm = _cone(x, y, (0.25, 0.12), (0.02, 1.15), 0.26, 0.20)
        hand = _cone(x, y, (0.0, 1.15), (-0.72, 1.60), 0.22, 0.03)
        vane = _cone(x, y, (-0.12, 0.35), (-0.42, 1.05), 0.28, 0.30)  # the secondaries, between arm and trailing edge
        parts["wing"] = _melt(_melt(arm, hand, 0.25), vane, 0.2)
    else:
        for name, foot in (("near leg", 0.06), ("far leg", 0.24)):
            knee = foot - 0.08, -girth - 0.12
            shin = _cone(x, y, knee, (foot + 0.04, -girth - 0.42), 0.026, 0.022)
            thigh = _cone(x, y, (foot - 0.02, -girth * 0.8), knee, 0.10, 0.03)
            toes = _cone(x, y, (foot - 0.08, -girth - 0.43), (foot + 0.20, -girth - 0.42), 0.020, 0.016)
            parts[name] = np.minimum(np.minimum(thigh, shin), toes)
    return parts


def _folded_wing(pose: _Pose, parts: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if pose.raised:
        return parts["wing"]
    u, v = x + 0.12, y - 0.10 + 0.10 * x
    shoulder, tips = _ellipse(u - 0.15, v, 0.48, 0.26), _cone(u, v, (0.1, 0.02), (-0.95, -0.02), 0.22, 0.04)
    return np.maximum(_melt(shoulder, tips, 0.1), parts["body"] - 0.12)


def _feathers(
    rng: np.random.Generator,
    canvas: Canvas,
    species: Species,
    pose: _Pose,
    parts: dict[str, np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
) -> np.ndarray:
    """Colours of the bird, ``[H, W, 3]`` float32, 0 to 1; valid inside its silhouette."""
    soft = np.float32(1.5 / pose.unit)
    hx, hy = pose.head
    wing_distance = _folded_wing(pose, parts, x, y)
    wing = np.clip(0.5 - wing_distance / soft, 0, 1)
    along = -pose.tilt * pose.flip if pose.flip > 0 else pose.tilt
    barb, _ = canvas.fibres(rng, along, width=1.6, length=9, wave=0.8, wavelength=25)
    streak, _ = canvas.fibres(rng, along, width=3.0, length=11, wave=0.8, wavelength=40)
    feathers = Feathers(
        u=x, v=y / species.girth * 0.5 + 0 * x,
        head=_ellipse(x - hx, y - hy, species.head * 1.08, species.head) / species.head,
        head_u=(x - hx) / species.head, head_v=(y - hy) / species.head,
        wing=wing, tail=np.clip(0.5 - parts["tail"] / soft, 0, 1) * (parts["body"] > -0.05), barb=barb, streak=streak,
    )  # fmt: skip
    colour = species.plumage(feathers) * (1 + 0.07 * barb[..., None])
    across = 45 * x + 8 * y if pose.raised else 60 * y + 8 * x  # the shafts of the flight feathers are dark
    shafts = np.clip(np.cos(across), 0, 1) ** 4 * (x < 0.25)
    colour *= (1 - 0.28 * wing * shafts)[..., None]
    colour *= (1 - 0.35 * np.exp(-((wing_distance / (1.6 * soft)) ** 2)) * (parts["body"] < 0))[..., None]
    inner = np.clip(-np.minimum(parts["body"], parts["tail"]) / 0.35, 0, 1)
    light = 0.62 + 0.30 * np.sqrt(inner) + 0.16 * np.clip(y / species.girth, -1, 1)  # round and lit from above
    colour *= light[..., None]
    for name, part in parts.items():
        if name == "beak" or "leg" in name:
            paint = np.array(species.beak_colour if name == "beak" else species.leg_colour, dtype=np.float32)
            alone = np.clip(0.5 - part / soft, 0, 1) * (parts["body"] > (-0.03 if name == "beak" else 0.0))
            shade = 1 + 0.5 * np.clip(-part / species.beak_depth, 0, 1) - 0.2
            colour = colour * (1 - alone[..., None]) + paint * (alone * shade)[..., None]
    return _eye(species, pose, colour, x, y, soft)


def _eye(
    species: Species, pose: _Pose, colour: np.ndarray, x: np.ndarray, y: np.ndarray, soft: np.float32
) -> np.ndarray:
    r = species.head * 0.19
    ex, ey = pose.head[0] + species.head * 0.36, pose.head[1] + species.head * 0.16
    discs = [
        (0.0, 0.0, r, (0.03, 0.025, 0.02)),
        (0.35 * r, 0.4 * r, 0.3 * r, (0.95, 0.95, 0.95)),
    ]  # the pupil, its glint
    if species.eye_ring:
        discs.insert(0, (0.0, 0.0, 1.45 * r, species.eye_ring))
    for dx, dy, radius, paint in discs:
        cover = np.clip(0.5 - (np.hypot(x - ex - dx, y - ey - dy) - radius) / soft, 0, 1)[..., None]
        colour = colour * (1 - cover) + np.array(paint, dtype=np.float32) * cover
    return colour


def _scene(rng: np.random.Generator, canvas: Canvas, pose: _Pose, *, perch: bool) -> np.ndarray:
    """Out-of-focus sky, foliage or leaf litter, some sharper leaves, and the branch below the feet."""
    kind = rng.choice(3, p=(0.35, 0.4, 0.25)) if perch else 0
    tops, bottoms = (
        ((0.55, 0.70, 0.88), (0.82, 0.88, 0.93)),
        ((0.30, 0.42, 0.20), (0.52, 0.60, 0.34)),
        ((0.42, 0.36, 0.27), (0.56, 0.47, 0.35)),
    )[kind]
    top, bottom = (np.array(c) * rng.uniform(0.8, 1.15) + rng.normal(0, 0.03, 3) for c in (tops, bottoms))
    height = np.linspace(0, 1, canvas.shape[0], dtype=np.float32)[:, None, None]
    picture = (top * (1 - height) + bottom * height + np.zeros((1, canvas.shape[1], 1))).astype(np.float32)
    blur = canvas.noise(rng, 60) + 0.6 * canvas.noise(rng, 25)
    picture += blur[..., None] * np.float32((0.04, 0.09, 0.10)[kind])
    if kind:
        picture += canvas.noise(rng, 8)[..., None] * np.array((0.035, 0.04, 0.02), dtype=np.float32)
    leaf = np.array(((0.25, 0.38, 0.14), (0.24, 0.40, 0.13), (0.50, 0.36, 0.19))[kind]) * rng.uniform(0.8, 1.2)
    for depth in (3.0, 1.4, 0.5):  # far leaves are blurred
        cover = ndimage.gaussian_filter(_leaves(rng, canvas, share=(0.10, 0.22, 0.45)[kind]), depth * canvas.scale)
        shade = leaf * (1.15 - 0.12 * depth) + rng.normal(0, 0.03, 3)
        shine = 1 + 0.18 * canvas.noise(rng, 10)[..., None]
        picture += (np.float32(shade) * shine - picture) * (cover * 0.8)[..., None]
    return _branch(rng, canvas, pose, picture) if perch else picture


def _leaves(rng: np.random.Generator, canvas: Canvas, share: float) -> np.ndarray:
    y, x = jittered_grid(rng, canvas.extent, 17, 0.5)
    clump = canvas.at(canvas.noise(rng, 70), y, x) + 0.5 * rng.standard_normal(len(y))
    kept = clump > np.quantile(clump, 1 - share)
    y, x = y[kept], x[kept]
    n = len(y)
    a = rng.uniform(6, 13, n)
    return Ellipses(y, x, a, a * rng.uniform(0.3, 0.55, n), rng.uniform(0, np.pi, n), rng.uniform(0.7, 1.0, n),
                    np.zeros(n), rng.uniform(0, 0.2, n)).draw(canvas)  # fmt: skip


def _branch(rng: np.random.Generator, canvas: Canvas, pose: _Pose, picture: np.ndarray) -> np.ndarray:
    """A branch under the feet, behind the bird."""
    row, col = pose.place(0.2, -0.46 - 0.42)
    slope = np.tan(rng.uniform(-0.25, 0.25))
    rows, cols = np.mgrid[0 : canvas.shape[0], 0 : canvas.shape[1]].astype(np.float32)
    thick = rng.uniform(4, 8) * canvas.scale
    bend = 3.0 * canvas.scale * canvas.noise(rng, 90)[canvas.shape[0] // 2][None, :]
    across = (
        rows - (row + thick * 0.8) - slope * (cols - col) - (bend - bend[0, int(np.clip(col, 0, canvas.shape[1] - 1))])
    ) / np.sqrt(1 + slope**2)
    cover = np.clip(thick - np.abs(across) + 0.5, 0, 1)
    bark, _ = canvas.fibres(rng, np.arctan(slope), width=1.5, length=14, wave=0.6, wavelength=18)
    colour = np.array((0.40, 0.32, 0.25)) * rng.uniform(0.7, 1.25) + rng.normal(0, 0.015, 3)
    light = 1 - 0.45 * np.clip(across / thick, -1, 1) + 0.14 * bark
    return picture + (np.float32(colour) * light[..., None] - picture) * cover[..., None]


def _votes(rng: np.random.Generator, canvas: Canvas, distance: np.ndarray) -> np.ndarray:
    """Five annotators: two drew a little outside, two a little inside, and the middle one exactly."""
    wobble = np.abs(canvas.noise(rng, 18)) * 0.5 + 0.6
    votes = np.asarray(sum((distance < offset * wobble).astype(np.uint8) for offset in (-1.8, -0.9, 0.0, 0.9, 1.8)))
    return (votes * 51).astype(np.uint8)
