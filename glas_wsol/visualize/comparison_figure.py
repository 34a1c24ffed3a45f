# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The comparison as a picture: one line per image, the truth, and every method's mask beside it, all drawn alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from glas_wsol.errors import OutputError
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.writers.images import draw_mask, text_font, wrap_text

__all__ = ["Column", "Line", "check_suffix", "draw_figure"]

# Lengths in inches, text in points. A sheet of 12 methods is 10 inches, at 300 dots an inch 3000 px wide.
_WIDTH, _MARGIN, _LABELS, _GAP, _BETWEEN = 10.0, 0.05, 0.78, 0.04, 0.12
_CELL = (0.55, 1.6)  # narrowest and widest picture
_TALLEST = 1.25  # of a picture, in its width: an upright one becomes narrower instead
_DOTS = 600  # an inch, of the pictures as they are made: the sheet has half as many, which smooths the lines
_TITLE, _SMALL, _NAME = 7.5, 6.5, 5.5
_LEADING = 1.3 / 72
_GREY = "#555560"
_SCALE, _WIDER = 200, 1.04  # text is measured large, and drawn a little wider where it is hinted


@dataclass(frozen=True)
class Column:
    """One method.

    Attributes:
        title: above the column.
        note: below the title, smaller, such as the backbone; may be empty.
        group: what the column has in common with its neighbours, written over all of them, such as "pixel labels".
    """

    title: str
    note: str
    group: str


@dataclass(frozen=True)
class Line:
    """One image.

    Attributes:
        label: its class.
        name: its name.
        image: ``[H, W, 3]`` uint8.
        truth: ``[H, W]`` bool; None where there is no true mask.
        masks: one for each column, ``[H, W]`` bool.
    """

    label: str
    name: str
    image: np.ndarray
    truth: np.ndarray | None
    masks: tuple[np.ndarray, ...]


def check_suffix(path: str | Path) -> str:
    """The format a file's name asks for: ``png`` or ``pdf``.

    Raises:
        OutputError: if it asks for another one.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".pdf"):
        raise OutputError("the figure can be a PNG or a PDF", path, "give a name that ends in .png or .pdf")
    return suffix[1:]


def draw_figure(path: str | Path, lines: Sequence[Line], columns: Sequence[Column], caption: Sequence[str]) -> None:
    """Draw the figure; the file appears whole or not at all.

    Inside a mask the image is kept, outside it is faded, and a yellow line runs around it: the truth's and every
    method's alike. The truth has no column where no image has one.

    Args:
        path: the file, ``.png`` or ``.pdf`` (text as text), 300 dots an inch.
        lines: from top to bottom, one at least.
        columns: from left to right, one at least.
        caption: paragraphs below.

    Raises:
        OutputError: if the file cannot be written, or is of another kind.
        ValueError: if a line has not one mask per column, of its image's size.
    """
    kind = check_suffix(path)
    for line in lines:
        regions = [*line.masks, *([] if line.truth is None else [line.truth])]
        if len(line.masks) != len(columns) or any(r.dtype != bool or r.shape != line.image.shape[:2] for r in regions):
            raise ValueError(f"one bool mask for each column, of the image's size, is needed for {line.name}")
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own style must not change what the text was measured with
        mpl.rcParams["pdf.fonttype"] = 42  # text that can be searched
        figure = _Sheet(lines, columns, caption).figure
        canvas = FigureCanvasAgg(figure)
        with atomic_write(path) as file:
            if kind == "pdf":
                figure.savefig(file, format="pdf", metadata={"CreationDate": None})  # the same figure, the same file
            else:
                canvas.draw()
                picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
                picture.save(file, format="PNG", dpi=(figure.dpi, figure.dpi))


class _Sheet:
    """Everything has its place in inches from the upper left corner, so that nothing can overlap."""

    def __init__(self, lines: Sequence[Line], columns: Sequence[Column], caption: Sequence[str]) -> None:
        groups = [(name, len(list(members))) for name, members in groupby(column.group for column in columns)]
        first = ["image"] if all(line.truth is None for line in lines) else ["image", "truth"]
        blocks = [len(first), *(count for _, count in groups)]
        count = sum(blocks)
        pieces = [(text, size) for line in lines for text, size in ((line.label, _SMALL), (line.name, _NAME))]
        self.room = min(_LABELS, max(_longest(text, size) for text, size in pieces)) + 0.08  # for the labels
        spent = 2 * _MARGIN + self.room + _GAP * (count - 1) + (_BETWEEN - _GAP) * (len(blocks) - 1)
        self.cell = float(np.clip((_WIDTH - spent) / count, *_CELL))
        self.width = spent + count * self.cell
        self.lefts = self._places(blocks)
        titles = [Column(name, "", "") for name in first] + list(columns)
        size = self._title_size([column.title for column in titles])
        heads = [self._head(column, size) for column in titles]
        labels = [self._label(line) for line in lines]
        sizes = [self._size(line.image) for line in lines]
        said = [text for paragraph in caption for text in _wrapped(paragraph, _SMALL, self.width - 2 * _MARGIN)]

        band = _MARGIN + 1.5 * _SMALL * _LEADING
        top = band + 0.04 + max(map(_height, heads)) + 0.05
        rows = [max(height, _height(label)) for (_, height), label in zip(sizes, labels, strict=True)]
        bottom = top + sum(rows) + _GAP * (len(rows) - 1) + 0.08
        self.height = bottom + len(said) * _SMALL * _LEADING + _MARGIN
        self.figure = Figure(figsize=(self.width, self.height), dpi=_DOTS / 2)

        self._bands(groups, len(first), band)
        for left, head in zip(self.lefts, heads, strict=True):
            self._write(head, left + self.cell / 2, top - 0.05 - _height(head), "center")
        for line, row, label, (width, height) in zip(lines, rows, labels, sizes, strict=True):
            self._write(label, _MARGIN, top + (row - _height(label)) / 2)
            regions = [None, *([line.truth] if len(first) == 2 else []), *line.masks]
            for place, (left, region) in enumerate(zip(self.lefts, regions, strict=True)):
                if place == 1 and len(first) == 2 and region is None:
                    text = [("no mask", _NAME, _GREY, False)]
                    self._write(text, left + self.cell / 2, top + row / 2 - _height(text) / 2, "center")
                    continue
                box = (left + (self.cell - width) / 2, top + (row - height) / 2, width, height)
                self._picture(_panel(line.image, region, (width, height)), box)
            top += row + _GAP
        self._write([(text, _SMALL, _GREY, False) for text in said], _MARGIN, bottom)

    def _places(self, blocks: Iterable[int]) -> list[float]:
        lefts, left = [], _MARGIN + self.room
        for block in blocks:
            lefts += [left + (self.cell + _GAP) * place for place in range(block)]
            left = lefts[-1] + self.cell + _BETWEEN
        return lefts

    def _title_size(self, titles: Iterable[str]) -> float:
        """The largest size at which no word of a title has to be broken."""
        return float(np.clip(self.cell / max(_longest(title, 1) for title in titles), 4.0, _TITLE))

    def _head(self, column: Column, size: float) -> list[tuple[str, float, str, bool]]:
        note = _wrapped(column.note, min(size, _NAME), self.cell)
        whole = _wrapped(column.title, size, self.cell)
        parts = [column.title] if len(whole) == 1 else column.title.replace(", ", ",\n").split("\n")  # no lone "4"
        lines = [(text, size, "black", False) for part in parts for text in _wrapped(part, size, self.cell)]
        return lines + [(text, min(size, _NAME), _GREY, False) for text in note]

    def _label(self, line: Line) -> list[tuple[str, float, str, bool]]:
        lines = [(text, _SMALL, "black", False) for text in _wrapped(line.label, _SMALL, self.room - 0.07)]
        return lines + [(text, _NAME, _GREY, False) for text in _wrapped(line.name, _NAME, self.room - 0.07)]

    def _size(self, image: np.ndarray) -> tuple[float, float]:
        height, width = image.shape[:2]
        scale = min(self.cell / width, _TALLEST * self.cell / height)
        return width * scale, height * scale

    def _bands(self, groups: Iterable[tuple[str, int]], start: int, bottom: float) -> None:
        """The groups' names, each over a rule as wide as its columns."""
        for name, count in groups:
            left, right = self.lefts[start], self.lefts[start + count - 1] + self.cell
            text = [(name, _SMALL, "black", True)]
            self._write(text, (left + right) / 2, bottom - 0.03 - _height(text), "center")
            y = 1 - bottom / self.height
            ends = [left / self.width, right / self.width]
            self.figure.add_artist(Line2D(ends, [y, y], color="black", linewidth=0.6))
            start += count

    def _write(self, lines: Iterable[tuple[str, float, str, bool]], x: float, top: float, align: str = "left") -> None:
        for text, size, colour, italic in lines:
            top += size * _LEADING
            self.figure.text(
                x / self.width,
                1 - (top - 0.3 * size / 72) / self.height,  # the baseline
                text,
                size=size,
                color=colour,
                ha=align,
                va="baseline",
                style="italic" if italic else "normal",
                parse_math=False,  # a name may hold a dollar sign
            )

    def _picture(self, picture: np.ndarray, box: tuple[float, float, float, float]) -> None:
        left, top, width, height = box
        place = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axis = self.figure.add_axes(place)
        axis.imshow(picture, aspect="auto")
        axis.set_axis_off()


def _panel(image: np.ndarray, mask: np.ndarray | None, size: tuple[float, float]) -> np.ndarray:
    """The image at the sheet's resolution, with the mask drawn at that resolution: lines are as thick on any image."""
    width, height = (max(1, round(_DOTS * length)) for length in size)
    picture = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    if mask is None:
        return picture
    shares = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    region = np.asarray(shares) >= 0.5
    return draw_mask(picture, np.zeros(region.shape, np.float32), region, line=max(3, width // 130))


def _wrapped(text: str, points: float, inches: float) -> list[str]:
    """Lines that fit, broken between words and after underscores."""
    lines = wrap_text(text.replace("_", "_ "), text_font(_SCALE), inches * _SCALE * 72 / (points * _WIDER))
    return [line.replace("_ ", "_") for line in lines]


def _longest(text: str, points: float) -> float:
    """Width in inches of the longest piece of a text that is not to be broken."""
    pieces = text.replace("_", "_ ").split()
    return _WIDER * points / 72 * max((text_font(_SCALE).getlength(piece) / _SCALE for piece in pieces), default=0.0)


def _height(lines: Iterable[tuple[str, float, str, bool]]) -> float:
    return sum(size * _LEADING for _, size, *_ in lines)
