# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Find the tissue of a slide on a thumbnail, by the colours of the stain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from glas_wsol.results.tissue_presence import stained
from glas_wsol.slides.slide_file import SlideFile

__all__ = ["Tissue", "find_tissue"]

_MPP = 8.0
_NEAR = 1  # px, 8 um
_LIGHT, _LEAST_LIGHT = 0.99, 0.3  # glass, lumens and stroma are light in every channel
_LEAST_AREA = 0.05  # mm^2; and no more than this share of the slide, which may be a small one


@dataclass(frozen=True)
class Tissue:
    """Where a slide has tissue.

    Attributes:
        thumbnail: ``[h, w, 3]`` uint8 RGB, of about 8 um per pixel.
        mask: ``[h, w]`` bool.
        area: mm^2.
        mpp: width and height of its pixels, micrometres.
    """

    thumbnail: np.ndarray
    mask: np.ndarray
    area: float
    mpp: tuple[float, float]

    @property
    def near(self) -> np.ndarray:
        """The tissue and 8 um around it, ``[h, w]`` bool."""
        return ndimage.binary_dilation(self.mask, iterations=_NEAR)

    def touches(self, rows: tuple[float, float], columns: tuple[float, float]) -> bool:
        """Whether a part of the slide has any; the part's sides as shares of the slide's, in [0, 1]."""
        (height, width) = self.mask.shape
        top, bottom = int(rows[0] * height), int(np.ceil(rows[1] * height))
        left, right = int(columns[0] * width), int(np.ceil(columns[1] * width))
        return bool(self.mask[top:bottom, left:right].any())


def find_tissue(slide: SlideFile, stain: str | None) -> Tissue:
    """Find it, with its holes, without specks below 0.05 mm^2.

    Args:
        slide: any.
        stain: one of :data:`~glas_wsol.results.tissue_presence.STAINS`; None or empty where the colours of tissue are
            not known: the whole slide is then taken for tissue.
    """
    view = slide.at_mpp(_MPP)
    width, height = view.size
    image = view.read((0, height), (0, width))
    mask = np.ones((height, width), bool)
    pixel = view.mpp[0] * view.mpp[1] / 1e6
    if stain:
        mask = stained(torch.from_numpy(image.transpose(2, 0, 1).copy())).numpy()
        if np.quantile(image.min(axis=2), _LIGHT) < _LEAST_LIGHT:  # fluorescence, whose colours may be any
            mask[:] = False
        mask = ndimage.binary_fill_holes(mask)
        labels, _ = ndimage.label(mask)
        areas = np.bincount(labels.ravel()) * pixel
        areas[0] = 0
        mask = (areas >= min(1.0, mask.size * pixel) * _LEAST_AREA)[labels]
    return Tissue((image * 255).round().astype(np.uint8), mask, float(mask.sum() * pixel), view.mpp)
