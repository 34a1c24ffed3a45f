# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes masks, tiles and overlays as PNG."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from glas_wsol.utils.atomic_files import atomic_write

__all__ = ["draw_mask", "overlay", "text_font", "wrap_text", "write_png"]

_PAPER, _MARGIN, _INK, _FAINT = (255, 255, 255), (232, 232, 236), (20, 20, 30), (95, 95, 105)
_CONTOUR, _EDGE = (255, 222, 0), (20, 20, 30)  # H&E has neither yellow nor black
_WASHED = 225  # the grey that undecidable tissue fades towards
_STAIN = (196.0, 120.0, 180.0)  # of the key's samples
_NO_EVIDENCE = "no evidence: no region decided"
_MICROMETRES_PER_INCH = 25_400
_COMPRESSION = 1  # of 9: an overlay in a third of the time that zlib's default takes, 7 % larger


def write_png(path: str | PathLike[str], array: np.ndarray, mpp: tuple[float, float] | None = None) -> None:
    """Write an array as PNG, rows first, whole or not at all.

    Args:
        array: ``[H, W]`` or ``[H, W, 3]`` uint8, ``[H, W]`` uint16, or ``[H, W]`` bool, which becomes 0 and 255.
        mpp: width and height of a pixel in micrometres, kept as pixels per metre (``pHYs``); None where unknown.
    """
    array = np.asarray(array)
    if array.dtype == bool and array.ndim == 2:
        array = array.astype(np.uint8) * 255
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8)
    if array.dtype not in (np.uint8, np.uint16) or not is_picture or 0 in array.shape:
        what = "uint8 [H, W] or [H, W, 3], uint16 [H, W] or bool [H, W] is needed"
        raise ValueError(f"{what}, got {array.dtype} {array.shape}")
    picture = Image.fromarray(np.ascontiguousarray(array))
    options = {} if mpp is None else {"dpi": tuple(_MICROMETRES_PER_INCH / side for side in mpp)}
    with atomic_write(path) as file:
        picture.save(file, format="PNG", compress_level=_COMPRESSION, **options)


def overlay(
    image: np.ndarray,
    decidable: np.ndarray,
    mask: np.ndarray,
    title: str,
    caption: str = "",
    *,
    evidence: bool = True,
    threshold: float = 0.5,
    notes: Sequence[str] = (),
    guide: Sequence[str] = (),
    whole: str = "image",
) -> np.ndarray:
    """Draw what decided onto the tile, between a header and a colour key.

    The tile keeps its size, and the pixels of the mask keep their colours. A yellow line runs around the mask, outside
    it; everything else fades towards grey, the more the less decidable it is. A narrow tile is set on a wider sheet,
    so that the text stays readable. Without evidence the tile is shown as it is, with neither line nor fading.

    Args:
        image: ``[H, W, 3]`` uint8.
        decidable: ``[H, W]`` in 0..1, how much each pixel decided (``R+``).
        mask: ``[H, W]`` bool, the decidable region.
        title: the class and its probability, say.
        caption: anything to add; wrapped.
        evidence: False where no pixel of the tile is evidence for the class.
        threshold: of the map, for the mask; marked on the colour bar. Defaults to 0.5.
        notes: lines between title and caption, each wrapped.
        guide: lines below the key, each wrapped: how to read it.
        whole: what the image is called. Defaults to ``"image"``.

    Returns:
        ``[h, w, 3]`` uint8 with ``h > H`` and ``w >= W``.
    """
    image, decidable, mask = np.asarray(image), np.asarray(decidable, dtype=np.float32), np.asarray(mask)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"a uint8 image [H, W, 3] is needed, got {image.dtype} {image.shape}")
    if mask.dtype != bool or mask.shape != image.shape[:2] or decidable.shape != mask.shape:
        raise ValueError(f"a map and a bool mask {image.shape[:2]} are needed, got {decidable.shape}, {mask.shape}")
    if not (decidable.min() >= 0 and decidable.max() <= 1):
        raise ValueError(f"the map must lie in 0..1, got {decidable.min()}..{decidable.max()}")
    height, width = mask.shape
    size = max(12, round(max(height, width) / 45))
    sheet_width = max(width, 30 * size)
    tile = np.full((height, sheet_width, 3), _MARGIN, np.uint8)
    left = (sheet_width - width) // 2
    tile[:, left : left + width] = draw_mask(image, decidable, mask) if evidence else image
    parts = [_header(title, notes, caption, evidence, size, sheet_width), tile]
    if evidence:
        parts += [_key(100 * float(mask.mean()), whole, size, sheet_width), _colour_bar(threshold, size, sheet_width)]
    else:
        parts.append(_write_lines([], size, sheet_width))
    return np.concatenate([*parts, _guide(tuple(guide), size, sheet_width)] if guide else parts)


def draw_mask(image: np.ndarray, decidable: np.ndarray, mask: np.ndarray, line: int | None = None) -> np.ndarray:
    """Fade what is outside the mask and run a yellow line with dark edges around it, outside it.

    Args:
        image: ``[H, W, 3]`` uint8.
        decidable: ``[H, W]`` in 0..1: what is outside the mask fades the less, the more it decided.
        mask: ``[H, W]`` bool; its pixels keep their colours.
        line: width of the yellow line, px; 0 for none. Defaults to a 300th of the longer side, 2 at least.

    Returns:
        ``[H, W, 3]`` uint8.
    """
    planes = image.transpose(2, 0, 1).astype(np.float32, order="C")
    _fade(planes, np.where(mask, 0, 1 - 0.5 * np.asarray(decidable, np.float32)))
    if line is None:
        line = max(2, round(max(mask.shape) / 300))
    if line and mask.any() and not mask.all():
        squared, flat = _squared_distance(mask, line + 3).ravel(), planes.reshape(3, -1)
        near = np.flatnonzero((squared > 0) & (squared < (line + 3) ** 2))
        distance, pixels = np.sqrt(squared[near].astype(np.float32)), flat[:, near]
        # An edge of 1 px, the line, an edge again: visible on white lumen and on dark nuclei.
        pixels = _paint(pixels, _between(distance, 0, line + 2), _EDGE)
        flat[:, near] = _paint(pixels, _between(distance, 1, line + 1), _CONTOUR)
    return np.ascontiguousarray(np.rint(planes, out=planes).astype(np.uint8).transpose(1, 2, 0))


def _squared_distance(mask: np.ndarray, limit: int) -> np.ndarray:
    """``[H, W]``: of each pixel to the nearest one of the mask, px^2; at most ``limit ** 2``, which makes it quick."""
    found = np.where(mask, 0, limit**2).astype(np.uint16 if limit < 128 else np.uint32)
    for turned in (found, found.T):  # in each column, then of those along the row
        lines = turned.copy(order="K")
        for step in range(1, min(limit, len(lines))):
            further = lines + found.dtype.type(step**2)
            np.minimum(turned[step:], further[:-step], out=turned[step:])
            np.minimum(turned[:-step], further[step:], out=turned[:-step])
    return found


def _fade(planes: np.ndarray, fading: np.ndarray | float) -> None:
    """Fade ``[3, ...]`` red, green and blue towards grey, in place: not at all where ``fading`` is 0, most where 1."""
    grey = 0.299 * planes[0] + 0.587 * planes[1] + 0.114 * planes[2]
    planes *= 1 - (1 - 0.65 * 0.4) * fading
    planes += fading * (0.65 * 0.6 * grey + 0.35 * _WASHED)


def _between(distance: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return how much of each pixel lies between two distances from the mask: a smooth line."""
    return np.minimum(distance - low, high - distance + 1).clip(0, 1)


def _paint(pixels: np.ndarray, cover: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return pixels + cover * (np.asarray(colour, np.float32)[:, None] - pixels)


@lru_cache(8)
def _guide(texts: tuple[str, ...], size: int, width: int) -> np.ndarray:
    plain = text_font(size)
    return _write_lines(
        [(one, plain, _FAINT) for text in texts for one in wrap_text(text, plain, width - size)], size, width
    )


def _header(title: str, notes: Sequence[str], caption: str, evidence: bool, size: int, width: int) -> np.ndarray:
    bold, plain = text_font(size + 2, bold=True), text_font(size)
    lines = [(line, bold, _INK) for line in wrap_text(title, bold, width - size)]
    if not evidence:
        lines += [(line, plain, _INK) for line in wrap_text(_NO_EVIDENCE, plain, width - size)]
    lines += [(line, plain, _INK) for note in notes for line in wrap_text(note, plain, width - size)]
    lines += [(line, plain, _FAINT) for line in wrap_text(caption, plain, width - size)]
    return _write_lines(lines, size, width)


def _write_lines(
    lines: Sequence[tuple[str, ImageFont.FreeTypeFont | ImageFont.ImageFont, tuple[int, int, int]]],
    size: int,
    width: int,
) -> np.ndarray:
    step = round(1.5 * size)
    sheet = Image.new("RGB", (width, step * len(lines) + size // 2), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, (text, font, colour) in enumerate(lines):
        draw.text((size // 2, row * step + step // 2 + size // 4), text, colour, font, anchor="lm")
    return np.asarray(sheet)


def _key(percent: float, whole: str, size: int, width: int) -> np.ndarray:
    """Draw the colour key below the tile: what the line and the fading mean, and how much of the tile decided."""
    font = text_font(size)
    entries = ((True, f"decidable: {percent:.0f} % of the {whole}"), (False, "undecidable"))
    widths = [2 * size + int(font.getlength(text)) + size for _, text in entries]
    rows = [0, 0] if sum(widths) + size <= width else [0, 1]
    step = round(1.6 * size)
    sheet = Image.new("RGB", (width, step * (rows[-1] + 1) + size // 2), _PAPER)
    draw = ImageDraw.Draw(sheet)
    stain = np.array(_STAIN, np.float32)
    washed = stain.copy()
    _fade(washed, 1)
    for index, (decided, text) in enumerate(entries):
        left = size // 2 + (widths[0] if index and rows[1] == 0 else 0)
        middle = size // 4 + rows[index] * step + step // 2
        colour = tuple(int(v) for v in (stain if decided else washed))
        box = (left, middle - size // 2, left + size, middle + size // 2)
        draw.rectangle(box, fill=colour, outline=_EDGE if decided else None)
        if decided:
            draw.rectangle((box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1), outline=_CONTOUR, width=max(2, size // 7))
        draw.text((left + round(1.6 * size), middle), text, _INK, font, anchor="lm")
    return np.asarray(sheet)


@lru_cache(8)
def _colour_bar(threshold: float, size: int, width: int) -> np.ndarray:
    """Draw what each value of the map looks like on tissue, from 0 to 1, and where the mask begins."""
    font = text_font(size)
    sheet = Image.new("RGB", (width, 3 * size + size // 2), _PAPER)
    draw = ImageDraw.Draw(sheet)
    name, low = "R+", "0"
    left = size + int(font.getlength(name + low)) + size // 2
    length = min(12 * size, width - left - 2 * size)
    values = np.linspace(0, 1, length, dtype=np.float32)[None]
    tissue = np.broadcast_to(np.asarray(_STAIN, np.float32), (size, length, 3)).round().astype(np.uint8)
    strip = draw_mask(tissue, values.repeat(size, 0), (values >= threshold).repeat(size, 0), line=0)
    sheet.paste(Image.fromarray(strip), (left, size // 4))
    draw.rectangle((left - 1, size // 4 - 1, left + length, size // 4 + size), outline=_EDGE)
    middle = size // 4 + size // 2
    draw.text((size // 2, middle), name, _INK, font, anchor="lm")
    draw.text((left - size // 3, middle), low, _INK, font, anchor="rm")
    draw.text((left + length + size // 3, middle), "1", _INK, font, anchor="lm")
    mark = left + round(min(max(threshold, 0.0), 1.0) * (length - 1))
    draw.line((mark, size // 4, mark, 2 * size - size // 2), fill=_EDGE, width=max(1, size // 10))
    draw.text((mark, 2 * size - size // 3), f"{threshold:g}: the mask begins", _INK, font, anchor="mt")
    return np.asarray(sheet)


def wrap_text(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """Break text into lines no wider than ``width`` px, between words or, where a word is longer, inside it."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        while font.getlength(word) > width and len(word) > 1:
            fits = max(n for n in range(1, len(word)) if n == 1 or font.getlength(word[:n]) <= width)
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    return [*lines, line] if line else lines


@lru_cache(16)
def text_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return matplotlib's DejaVu Sans, which knows Latin, Greek and Cyrillic; Pillow's own font without matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
        file = folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
        if file.is_file():
            # opened here: FreeType does not say why the system refuses a file
            return ImageFont.truetype(io.BytesIO(file.read_bytes()), size)
    return ImageFont.load_default(size)
