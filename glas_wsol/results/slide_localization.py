# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Hold the result of a whole slide: mask and soft map on disk, its parts, class by windows; no slide-level class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import ndimage

from glas_wsol.results.localization import THRESHOLD
from glas_wsol.results.polygons import MaskPart, trace_polygons
from glas_wsol.results.provenance import NOT_RECORDED, Provenance

__all__ = ["SlideLocalization", "SlidePart"]

_TRACED_PIXELS = 64_000_000
_CONTACTS = np.ones((3, 3), bool)


@dataclass(frozen=True)
class SlidePart:
    """A connected part of a slide's mask; all positions are px of the mask.

    Attributes:
        row: of its first pixel, from top to bottom, then from left to right.
        column: of its first pixel.
        box: x, y, width and height.
        area: its pixels.
        centre: x and y of its centre of mass.
        mean: ``R+`` over its pixels.
        probabilities: of each class: the mean over its pixels, weighted by ``R+``, of what the windows say; empty where
            none is known.
    """

    row: int
    column: int
    box: tuple[int, int, int, int]
    area: int
    centre: tuple[float, float]
    mean: float
    probabilities: tuple[float, ...] = ()

    @property
    def label(self) -> int | None:
        """Index of its most probable class; None where none is known."""
        return int(np.argmax(self.probabilities)) if self.probabilities else None


@dataclass(frozen=True)
class SlideLocalization:
    """Which parts of a slide decided, and for which class. The mask is of the slide at the model's pixel size.

    Attributes:
        name: the slide's name, unique in its run.
        path: its file.
        classes: class names in label order.
        mask_file: ``[H, W]`` bool, ``.npy``: the mask, holes filled and specks removed.
        decidable_file: ``[H, W]`` uint8, ``.npy``: ``R+`` from 0 to 255, as the network gives it.
        size: height and width of both, px.
        step: px of the slide's level 0 per pixel of the mask, across and down.
        mpp: width and height of a pixel of the mask, micrometres.
        parts: of the mask, in the order of their first pixels.
        class_map: ``[rows, columns, c]``: class probabilities of windows, not a number where nothing is decidable;
            None where no class is named.
        window: side of a window, px of the mask; 0 without.
        class_areas: px of the mask in windows of which each class is the most probable.
        thumbnail: ``[h, w, 3]`` uint8 RGB of about 8 um per pixel.
        tissue: mm^2.
        cells: how many were read.
        all_cells: how many there are.
        level: that was read.
        slide_size: width and height of the slide at level 0, within its bounds.
        slide_mpp: of its pixels at level 0, micrometres.
        mpp_from: its source: ``"slide"`` or ``"given"``.
        corner: x and y of its bounds at level 0; all positions are relative to it, as QuPath's are.
        evidence: False if the slide shows nothing to decide on.
        reason: why not; empty if it does.
        threshold: of ``R+``, for the mask.
        provenance: what it was made with.
    """

    name: str
    path: str
    classes: tuple[str, ...]
    mask_file: Path
    decidable_file: Path
    size: tuple[int, int]
    step: tuple[float, float]
    mpp: tuple[float, float]
    parts: tuple[SlidePart, ...]
    class_map: np.ndarray | None = field(repr=False)
    window: int
    class_areas: tuple[int, ...]
    thumbnail: np.ndarray = field(repr=False)
    tissue: float
    cells: int
    all_cells: int
    level: int
    slide_size: tuple[int, int]
    slide_mpp: tuple[float, float]
    mpp_from: str
    corner: tuple[int, int] = (0, 0)
    evidence: bool = True
    reason: str = ""
    threshold: float = THRESHOLD
    provenance: Provenance | None = None

    @property
    def mask(self) -> np.ndarray:
        """``[H, W]`` bool, mapped from the disk."""
        return np.load(self.mask_file, mmap_mode="r")

    @property
    def decidable(self) -> np.ndarray:
        """``[H, W]`` uint8, ``R+`` from 0 to 255, mapped from the disk."""
        return np.load(self.decidable_file, mmap_mode="r")

    @cached_property
    def decidable_area(self) -> int:
        """Pixels of the mask."""
        return sum(part.area for part in self.parts)

    @property
    def decidable_fraction(self) -> float:
        """Share of the slide in the mask, in [0, 1]."""
        return self.decidable_area / (self.size[0] * self.size[1])

    def square_micrometres(self, pixels: float) -> float:
        """An area in square micrometres."""
        return pixels * self.mpp[0] * self.mpp[1]

    @property
    def class_shares(self) -> dict[str, float]:
        """Of the decidable area whose class is known the share of each class; empty where none is."""
        total = sum(self.class_areas)
        return {name: n / total for name, n in zip(self.classes, self.class_areas, strict=True)} if total else {}

    @property
    def class_name(self) -> str:
        """The class of most of the decidable area, or ``"no evidence"``; empty where no class is known."""
        if not self.evidence:
            return "no evidence"
        shares = self.class_shares
        return max(shares, key=lambda name: shares[name]) if shares else ""

    @property
    def trained_on(self) -> str:
        """What the model was trained on, in words."""
        return self.provenance.trained_on if self.provenance else NOT_RECORDED

    @property
    def small_mask(self) -> np.ndarray:
        """The mask at the thumbnail's size, bool."""
        height, width = self.thumbnail.shape[:2]
        rows, columns = (
            ((np.arange(n) + 0.5) * side / n).astype(np.int64)
            for n, side in zip((height, width), self.size, strict=True)
        )
        mask = self.mask
        return np.stack([np.asarray(mask[row])[columns] for row in rows])

    def outlines(self) -> Iterator[tuple[SlidePart, MaskPart]]:
        """Every part with its outlines along the edges of the mask's pixels; no more than one is kept in memory.

        A part that spans more than 64 million pixels is outlined in steps of several.
        """
        mask = self.mask
        for part in self.parts:
            x, y, width, height = part.box
            every = int(np.ceil(np.sqrt(max(1.0, width * height / _TRACED_PIXELS))))
            seen = np.asarray(mask[y : y + height : every, x : x + width : every])
            labels, _ = ndimage.label(seen, _CONTACTS)
            number = labels[0, (part.column - x) // every] or int(
                np.argmax(np.bincount(labels[labels > 0], minlength=2))
            )
            pixels = labels == number
            polygons = [
                [[(x + every * a, y + every * b) for a, b in ring] for ring in one] for one in trace_polygons(pixels)
            ]
            region = slice(y, y + height), slice(x, x + width)
            yield part, MaskPart(polygons, part.area, part.row, part.column, region, pixels)

    def __str__(self) -> str:
        """The result in a few lines."""
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in self.class_shares.items())
        area = self.square_micrometres(self.decidable_area) / 1e6
        lines = [
            f"{self.name}: {self.tissue:.3g} mm2 of tissue, {area:.3g} mm2 decidable{f' ({shares})' if shares else ''}",
            self.reason and f"no evidence: {self.reason}",
            self.trained_on,
        ]
        return "\n".join(filter(None, lines))
