# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Draws the comparison: one line per image with the truth and every method's mask, drawn alike."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from glas_wsol.errors import OutputError
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.writers.drawing import draw_mask

__all__ = ["Column", "Line", "check_suffix", "draw_figure", "save_png"]

# Lengths in inches, text in points. A sheet of 12 methods is 10 inches, at 300 dots an inch 3000 px wide.
_WIDTH, _LABELS = 10.0, 0.9
_CELL = (0.55, 1.6)  # narrowest and widest picture
_TALLEST = 1.25  # of a picture, in its width: an upright one becomes narrower instead
_DOTS = 600  # an inch, of the pictures as they are made: the sheet has half as many, which smooths the lines
_TITLE, _SMALL = 7.5, 6.5
_LETTER = 0.66 / 72  # inches a point: the width of a wide letter


@dataclass(frozen=True)
class Column:
    """One method.

    Attributes:
        title: above the column.
        note: below the title, smaller, such as the backbone; may be empty.
        group: what it learns from, below both, such as "pixel labels".
    """

    title: str
    note: str
    group: str


@dataclass(frozen=True)
class Line:
    """One image.

    Attributes:
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
    """The format by a file's name: ``png`` or ``pdf``; an OutputError on another one."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".pdf"):
        raise OutputError("the figure can be a PNG or a PDF", path, "give a name that ends in .png or .pdf")
    return suffix[1:]


def draw_figure(path: str | Path, lines: Sequence[Line], columns: Sequence[Column], caption: Sequence[str]) -> None:
    """Draw the figure; the file is written atomically.

    Inside a mask the image is unchanged, outside it is faded, and a yellow line runs around it: the truth's and every
    method's alike. The truth has no column where no image has one.

    Args:
        path: the file, ``.png`` or ``.pdf`` (text as text), 300 dots an inch.
        lines: from top to bottom, one at least.
        columns: from left to right, one at least.

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
        figure = _sheet(lines, columns, caption)
        if kind == "png":
            save_png(path, figure)
            return
        FigureCanvasAgg(figure)
        with atomic_write(path) as file:
            figure.savefig(file, format="pdf", metadata={"CreationDate": None})  # the same figure, the same file


def save_png(path: str | Path, figure: Figure) -> None:
    """Draw a figure and write it as PNG, atomically; an OutputError if it cannot be written."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    with atomic_write(path) as file:
        picture.save(file, format="PNG", dpi=(figure.dpi, figure.dpi))


def _sheet(lines: Sequence[Line], columns: Sequence[Column], caption: Sequence[str]) -> Figure:
    first = ["image"] if all(line.truth is None for line in lines) else ["image", "truth"]
    heads = [(name, "", "") for name in first] + [(one.title, one.note, one.group) for one in columns]
    cell = float(np.clip((_WIDTH - _LABELS) / len(heads), *_CELL))
    longest = max(len(word) for head in heads for part in head for word in _parts(part).split())
    size = float(np.clip(cell / (_LETTER * longest), 4.0, _TITLE))  # at which no word of a title has to be broken
    titles = [[row for part in head for row in _wrapped(part.replace(", ", ",\n"), size, cell)] for head in heads]
    heights = [cell * min(_TALLEST, line.image.shape[0] / line.image.shape[1]) for line in lines]
    said = [row for paragraph in caption for row in _wrapped(paragraph, _SMALL, _LABELS + cell * len(heads))]
    height = sum(heights) + (max(map(len, titles)) * size + len(said) * _SMALL + 10 * len(lines)) * 1.3 / 72
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure((_LABELS + cell * len(heads), height), _DOTS / 2, layout=layout)
    axes = figure.subplots(len(lines), len(heads), squeeze=False, height_ratios=heights)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title("\n".join(title), fontsize=size, pad=3, parse_math=False)
    for row, line in zip(axes, lines, strict=True):
        label = [*_wrapped(line.label, _SMALL, _LABELS), *_wrapped(line.name, _SMALL, _LABELS)]
        options = {"rotation": 0, "ha": "right", "va": "center", "fontsize": _SMALL, "parse_math": False}
        row[0].set_ylabel("\n".join(label), **options)
        regions = [None, *([line.truth] if len(first) == 2 else []), *line.masks]
        for place, (axis, region) in enumerate(zip(row, regions, strict=True)):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if place and region is None:
                axis.text(0.5, 0.5, "no mask", ha="center", fontsize=_SMALL, transform=axis.transAxes)
            else:
                axis.imshow(_panel(line.image, region, cell))
    figure.supxlabel("\n".join(said), x=0.01, ha="left", fontsize=_SMALL, color="#555560", parse_math=False)
    return figure


def _panel(image: np.ndarray, mask: np.ndarray | None, inches: float) -> np.ndarray:
    """The image at the sheet's resolution, with the mask drawn at that resolution: lines are as thick on any image."""
    scale = _DOTS * inches * min(1 / image.shape[1], _TALLEST / image.shape[0])
    width, height = (max(1, round(scale * side)) for side in image.shape[1::-1])
    picture = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    if mask is None:
        return picture
    shares = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    region = np.asarray(shares) >= 0.5
    return draw_mask(picture, np.zeros(region.shape, np.float32), region, line=max(3, width // 130))


def _parts(text: str) -> str:
    return text.replace("_", "_ ")  # where a name may be broken


def _wrapped(text: str, points: float, inches: float) -> list[str]:
    letters = max(4, int(inches / (_LETTER * points)))
    return [row.replace("_ ", "_") for part in text.split("\n") for row in textwrap.wrap(_parts(part), letters)]
