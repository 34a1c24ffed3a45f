# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Open a slide, know the size of its pixels, and read any part of it at any pixel size, laid on its background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glas_wsol.errors import ImageFileError
from glas_wsol.slides.resampling import AxisResampling, resample
from glas_wsol.transforms.pixel_size import check_mpp, doubt_of
from glas_wsol.transforms.reading.slide_formats import open_slide, require_openslide

__all__ = ["SlideFile", "SlideView"]

_STRIP_PIXELS = 8_000_000
"""Read at once, so that memory does not grow with the part that is read."""
_FIX = "see that the file is whole; open it in a viewer"


class SlideFile:
    """A slide on disk, cut to its bounds where it has any.

    Args:
        path: of a format that OpenSlide reads.
        mpp: micrometres per pixel of level 0: one number, or its width and height. None (default): as the slide says.

    Attributes:
        size: width and height at level 0, px.
        mpp: width and height of a pixel at level 0, micrometres.
        mpp_from: its source: ``"slide"`` or ``"given"``.
        corner: ``(x, y)`` of the bounds' upper left pixel at level 0. All other positions are relative to it, as
            QuPath's are.

    Raises:
        ConfigError: if OpenSlide is not installed, or ``mpp`` is not valid.
        ImageFileError: if the slide cannot be opened, or does not say the size of its pixels.
    """

    def __init__(self, path: str | Path, mpp: float | Sequence[float] | None = None) -> None:
        require_openslide()
        given = check_mpp(mpp)
        self.path = Path(path)
        try:
            self._slide = open_slide(self.path)
        except Exception as error:  # OpenSlide's own, and of Python's types what a damaged file leads to
            what = f"OpenSlide cannot open it ({str(error).removeprefix(f'Reading {self.path}: ') or 'no slide'})"
            raise ImageFileError(what, self.path, _FIX) from error
        properties: Any = self._slide.properties
        width, height = self._slide.dimensions
        left, top, across, down = (
            int(properties.get(f"openslide.bounds-{name}", usual))
            for name, usual in (("x", 0), ("y", 0), ("width", width), ("height", height))
        )
        self.corner = (min(max(left, 0), width - 1), min(max(top, 0), height - 1))
        self.size = (min(across, width - self.corner[0]), min(down, height - self.corner[1]))
        self.mpp, self.mpp_from = (given, "given") if given else (self._recorded(properties), "slide")
        colour = str(properties.get("openslide.background-color", "FFFFFF"))
        self.background = np.array([int(colour[at : at + 2], 16) for at in (0, 2, 4)], np.float32)
        #: Of each level how many px of level 0 a pixel spans, across and down, OpenSlide's ratio, and its size.
        self.levels = [
            ((_downsample(width, size[0]), _downsample(height, size[1])), float(ratio), size)
            for size, ratio in zip(self._slide.level_dimensions, self._slide.level_downsamples, strict=True)
        ]

    def _recorded(self, properties: Any) -> tuple[float, float]:
        fix = "give the micrometres of a pixel at level 0: --mpp 0.5"
        try:
            size = tuple(float(properties[f"openslide.mpp-{axis}"]) for axis in "xy")
        except (KeyError, ValueError):
            raise ImageFileError("the slide does not say the size of its pixels", self.path, fix) from None
        doubt = doubt_of(*size)
        if doubt:
            said = " x ".join(f"{side:.4g}" for side in size)
            raise ImageFileError(f"the slide says pixels of {said} um, which is not believed ({doubt})", self.path, fix)
        return size[0], size[1]

    def at_mpp(self, mpp: float) -> SlideView:
        """The slide as an image of pixels of another size, as nearly as whole pixels allow.

        Args:
            mpp: micrometres.
        """
        return SlideView(self, *(max(1, round(n * side / mpp)) for n, side in zip(self.size, self.mpp, strict=True)))

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """``[height, width, 3]`` uint8 of a level, laid on the background.

        Args:
            level: from 0.
            x: of level 0, of the whole slide.
            y: the same.
            width: px of the level.
            height: the same.

        Raises:
            ImageFileError: if it cannot be read.
        """
        try:
            pixels = np.asarray(self._slide.read_region((x, y), level, (width, height)))
        except Exception as error:
            raise ImageFileError(f"cannot be read at ({x}, {y}) of level {level} ({error})", self.path, _FIX) from error
        alpha = pixels[..., 3:]
        if (alpha == 255).all():
            return pixels[..., :3]
        share = alpha.astype(np.float32) / 255  # OpenSlide hands out colours that are not multiplied by alpha
        return (pixels[..., :3] * share + self.background * (1 - share)).round().astype(np.uint8)

    def close(self) -> None:
        """Close the file."""
        self._slide.close()


def _downsample(whole: int, part: int) -> float:
    """How many px of level 0 a pixel of a level spans.

    Scanners shrink by a whole number and leave out the rest of the last row and column: 4443 / 2 is cut to 2221.
    """
    ratio = whole / part
    nearest = round(ratio)
    return float(nearest) if nearest >= 1 and abs(whole - nearest * part) < nearest else ratio


class SlideView:
    """A slide as one image of some size, of which parts are read; a part is what that part of the whole would be.

    It is read from the level that is nearest above, and then shrunk with antialiasing.

    Attributes:
        size: width and height, px.
        step: px of level 0 per pixel, across and down.
        level: that is read.
    """

    def __init__(self, slide: SlideFile, width: int, height: int) -> None:
        self.slide, self.size = slide, (width, height)
        self.step = slide.size[0] / width, slide.size[1] / height
        # a size that was rounded to whole pixels is the same size
        fits = [n for n, (spans, *_) in enumerate(slide.levels) if max(spans) <= max(self.step) * 1.001]
        self.level = fits[-1] if fits else 0

    @property
    def mpp(self) -> tuple[float, float]:
        """Width and height of a pixel, micrometres."""
        return self.slide.mpp[0] * self.step[0], self.slide.mpp[1] * self.step[1]

    def read(self, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """A part of the image; what lies outside the slide is background.

        Args:
            rows: first and behind the last; may reach beyond the image.
            columns: the same.

        Returns:
            ``[h, w, 3]`` float32, in [0, 1].

        Raises:
            ImageFileError: if it cannot be read.
        """
        out = np.empty((rows[1] - rows[0], columns[1] - columns[0], 3), np.float32)
        out[:] = self.slide.background
        (top, bottom), (left, right) = (
            (max(a, 0), min(b, n)) for (a, b), n in ((rows, self.size[1]), (columns, self.size[0]))
        )
        if top < bottom and left < right:
            inside = out[top - rows[0] : bottom - rows[0], left - columns[0] : right - columns[0]]
            self._read_inside(inside, top, left, right)
        return out / 255

    def _read_inside(self, out: np.ndarray, top: int, left: int, right: int) -> None:
        spans, openslides, sizes = self.slide.levels[self.level]
        across, down = (
            AxisResampling(max(1, min(int(np.ceil(n / span)), size - int(corner / span))), step / span)
            for n, span, step, size, corner in zip(
                self.slide.size, spans, self.step, sizes, self.slide.corner, strict=True
            )
        )
        low, high = across.needed(left, right)
        x, x_start = _place(low, self.slide.corner[0], spans[0], openslides)
        columns = across.matrix(left, right, x_start, high - low + 1)
        most = max(1, int(_STRIP_PIXELS / max(high - low, 1) / max(down.step, 1)))
        for start in range(0, len(out), most):
            stop = min(start + most, len(out))
            first, last = down.needed(top + start, top + stop)
            y, y_start = _place(first, self.slide.corner[1], spans[1], openslides)
            # one row and column more: what is read may begin between two
            pixels = self.slide.read(self.level, x, y, high - low + 1, last - first + 1)
            matrix = down.matrix(top + start, top + stop, y_start, last - first + 1)
            out[start:stop] = resample(pixels, matrix, columns)


def _place(sample: int, corner: int, span: float, openslides: float) -> tuple[int, float]:
    """Where to read from: a whole position of level 0, and at which sample of the level that is.

    OpenSlide divides by its own ratio, the mean of both axes, which is not whole where a level was cut.
    """
    position = round((sample + corner / span) * openslides)
    return position, position / openslides - corner / span
