# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""From stitched scores to mask and parts of a whole slide, strip by strip: equal to the whole, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from glas_wsol.results.slide_localization import SlidePart

__all__ = ["clean_mask", "draw_mask_rows", "find_parts", "strips_of"]

_STRIP_PIXELS = 4_000_000
_EDGES, _CONTACTS = ndimage.generate_binary_structure(2, 1), np.ones((3, 3), bool)


def strips_of(height: int, width: int, pixels: int = _STRIP_PIXELS) -> Iterator[slice]:
    """Rows of an image, so many at a time that a strip has about so many pixels."""
    rows = max(1, pixels // max(width, 1))
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def draw_mask_rows(scores: np.ndarray, rows: slice, padded: tuple[int, int], width: int) -> np.ndarray:
    """``R+`` of some rows: scores enlarged as the network enlarges those of a whole image.

    Args:
        scores: ``[h, w]`` of the padded slide.
        rows: of the slide.
        padded: its height and width, padded.
        width: of the slide, without the padding.
    """
    down, high = _between(np.arange(rows.start, rows.stop), scores.shape[0], padded[0])
    across, left = _between(np.arange(width), scores.shape[1], padded[1])
    part = np.asarray(scores[high.min() : high.max() + 2])
    high = high - high.min()
    below = np.minimum(high + 1, len(part) - 1)
    values = part[high] * (1 - down)[:, None] + part[below] * down[:, None]
    right = np.minimum(left + 1, scores.shape[1] - 1)
    values = values[:, left] * (1 - across) + values[:, right] * across
    return 1 / (1 + np.exp(-values))


def _between(places: np.ndarray, source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    at = np.maximum((places + 0.5) * (source / target) - 0.5, 0)
    low = at.astype(np.int64)
    return (at - low).astype(np.float32), low


class _Labels:
    """Connected regions of an image that is looked at strip by strip.

    Args:
        strip: the pixels of some rows, bool.
        shape: of the image.
        contact: which neighbours belong together.
    """

    def __init__(self, strip: Callable[[slice], np.ndarray], shape: tuple[int, int], contact: np.ndarray) -> None:
        self._strip, self._contact = strip, contact
        self._strips = list(strips_of(*shape))
        self._starts, pairs, total, above = [], [np.zeros((2, 0), np.int64)], 0, None
        for rows in self._strips:
            labels, count = ndimage.label(strip(rows), contact)
            first = np.where(labels[0] > 0, labels[0] + total, 0)
            if above is not None:
                for shift in (-1, 0, 1) if contact is _CONTACTS else (0,):
                    one, other = above[max(-shift, 0) : len(above) - max(shift, 0)], first[max(shift, 0) :]
                    other = other[: len(one)]
                    touching = (one > 0) & (other > 0)
                    pairs.append(np.unique(np.stack([one[touching], other[touching]]), axis=1))
            above = np.where(labels[-1] > 0, labels[-1] + total, 0)
            self._starts.append(total)
            total += count
        one, other = np.concatenate(pairs, axis=1)
        links = coo_matrix((np.ones(len(one), bool), (one, other)), shape=(total + 1, total + 1))
        self.count, self.roots = connected_components(links, directed=False)

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Rows, the regions of that strip by numbers from 1, and the region of the whole that each belongs to."""
        for rows, start in zip(self._strips, self._starts, strict=True):
            labels, count = ndimage.label(self._strip(rows), self._contact)
            yield rows, labels, self.roots[np.r_[0, start + 1 : start + count + 1]]


def clean_mask(file: Path, hole_area: float, speck_area: float) -> None:
    """Fill holes, then remove specks, of a mask on disk: as :func:`~glas_wsol.transforms.clean_regions.clean_regions`.

    Args:
        file: ``[H, W]`` bool, ``.npy``; changed in place.
        hole_area: px; smaller holes are filled.
        speck_area: px; smaller parts are removed.
    """
    shape = np.load(file, mmap_mode="r").shape
    for value, least in ((False, hole_area), (True, speck_area)):
        if not least:
            continue

        def strip(rows: slice, value: bool = value) -> np.ndarray:
            return np.load(file, mmap_mode="r")[rows] == value

        regions = _Labels(strip, (shape[0], shape[1]), _EDGES)
        areas = np.zeros(regions.count)
        for _, labels, roots in regions:
            np.add.at(areas, roots[1:], np.bincount(labels.ravel(), minlength=len(roots))[1:])
        small = areas < least
        small[regions.roots[0]] = False  # number 0 is what is no region
        for rows, labels, roots in regions:
            changed = small[roots][labels]
            if changed.any():
                mask = np.load(file, mmap_mode="r+")
                mask[rows] = np.where(changed, not value, mask[rows])
                mask.flush()


def find_parts(mask_file: Path, decidable_file: Path, class_map: np.ndarray | None, side: int) -> list[SlidePart]:
    """The connected parts of a mask on disk, in the order of their first rows.

    Args:
        mask_file: ``[H, W]`` bool, ``.npy``.
        decidable_file: ``R+`` as ``[H, W]`` uint8 from 0 to 255.
        class_map: probabilities of windows, ``[rows, columns, c]``; None for no class.
        side: of a window, px.
    """
    shape = np.load(mask_file, mmap_mode="r").shape
    regions = _Labels(lambda rows: np.asarray(np.load(mask_file, mmap_mode="r")[rows]), (shape[0], shape[1]), _CONTACTS)
    classes = 0 if class_map is None else class_map.shape[2]
    sums = np.zeros((regions.count, 4 + classes + 1))  # pixels, x, y, R+; R+ p by class, R+ where p is known
    boxes = np.tile(np.array([shape[0], shape[1], 0, 0], np.int64), (regions.count, 1))
    seeds = np.full(regions.count, -1, np.int64)
    for rows, labels, roots in regions:
        at, across = np.nonzero(labels)
        if not len(at):
            continue
        number = labels[at, across]
        soft = np.load(decidable_file, mmap_mode="r")[rows][at, across] / 255.0
        terms = [np.ones(len(at)), across + 0.5, at + rows.start + 0.5, soft]
        if class_map is not None:
            said = class_map[(at + rows.start) // side, across // side]
            known = np.isfinite(said[:, 0])
            terms += [np.where(known, soft * said[:, k], 0) for k in range(classes)] + [soft * known]
        else:
            terms.append(np.zeros(len(at)))
        for place, term in enumerate(terms):
            np.add.at(sums[:, place], roots[1:], np.bincount(number, term, minlength=len(roots))[1:])
        for one, (down, over) in enumerate(ndimage.find_objects(labels), start=1):
            root, top = roots[one], down.start + rows.start
            if seeds[root] < 0:  # regions are numbered in the order of their first pixels
                seeds[root] = over.start + int(np.argmax(labels[down.start, over] == one))
                boxes[root, 0] = top
            boxes[root, 1] = min(boxes[root, 1], over.start)
            boxes[root, 2] = max(boxes[root, 2], down.stop + rows.start)
            boxes[root, 3] = max(boxes[root, 3], over.stop)
    parts = []
    for root in np.flatnonzero(seeds >= 0):
        area, x, y, soft, *rest = sums[root]
        top, left, bottom, right = boxes[root].tolist()
        parts.append(
            SlidePart(
                row=top,
                column=int(seeds[root]),
                box=(left, top, right - left, bottom - top),
                area=int(area),
                centre=(x / area, y / area),
                mean=soft / area,
                probabilities=tuple(p / rest[-1] for p in rest[:-1]) if rest[-1] > 0 else (),
            )
        )
    return sorted(parts, key=lambda part: (part.row, part.column))
