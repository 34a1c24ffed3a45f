# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Makes the report's table of images: its columns, and one row per image with its pictures, on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glas_wsol.errors import ImageFileError
from glas_wsol.report.cases import Case
from glas_wsol.report.pictures import Pictures, draw_pictures
from glas_wsol.report.summary import shown
from glas_wsol.results.how_to_read import UNLIKE
from glas_wsol.transforms import read_mask, read_rgb

__all__ = ["CaseRow", "Cell", "Column", "columns", "rows", "state_of"]

STATES = {
    "all": "all images",
    "evidence": "with evidence",
    "none": "no evidence",
    "wrong": "wrong class",
    "strange": UNLIKE,
    "failed": "failed",
}


@dataclass(frozen=True)
class Cell:
    """What a cell shows and by what it is sorted; ``numeric`` cells are set to the right."""

    text: str
    order: str
    numeric: bool = False
    minor: bool = False


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        key: for the script: what filters refer to.
        order: of an image, a number or a text; None sorts last.
        minor: whether a narrow screen goes without it.
        hint: what it means, in a sentence.
    """

    key: str
    title: str
    text: Callable[[Case], str]
    order: Callable[[Case], float | str | None]
    numeric: bool = True
    minor: bool = False
    hint: str = ""

    def cell(self, case: Case) -> Cell:
        """Its cell of an image."""
        order = self.order(case)
        return Cell(self.text(case), "" if order is None else str(order), self.numeric, self.minor)


@dataclass(frozen=True)
class CaseRow:
    """One image on the page.

    Attributes:
        number: from 1, in the order of the run.
        cells: of the columns after the image's name.
        state: ``"evidence"``, ``"none"`` or ``"failed"``.
        pictures: of the image; None where they cannot be drawn.
        note: why there are no pictures, or what lacks.
        redrawn: whether they are of the run's overlay, the image itself being gone.
    """

    number: int
    case: Case
    cells: tuple[Cell, ...]
    state: str
    pictures: Pictures | None
    note: str
    redrawn: bool = False


def state_of(case: Case) -> str:
    """Whether there is a result of an image, and whether it shows anything to decide on."""
    return "failed" if case.failed else "evidence" if case.evidence else "none"


def columns(cases: Sequence[Case]) -> tuple[Column, ...]:
    """The columns that some image has anything in, after that of its name."""
    found = []
    if any(case.truth for case in cases):
        found.append(Column("truth", "true class", lambda c: c.truth, lambda c: c.truth or None, numeric=False))
    found.append(Column("class", "class", _said, lambda c: _said(c) or None, numeric=False))
    if any(case.probability is not None for case in cases):
        hint = "probability of the class by the model"
        found.append(_share("probability", "probability", lambda c: c.probability, hint=hint))
    if any(case.decidable is not None for case in cases):
        hint = "share of the image in the mask"
        found.append(_share("decidable", "decidable", lambda c: c.decidable, hint=hint))
        regions = Column(
            "regions",
            "regions",
            lambda c: "" if c.regions is None else str(c.regions),
            lambda c: c.regions,
            minor=True,
            hint="connected parts of the mask, without specks",
        )
        found.append(regions)
    for part in ("decidable", "undecidable"):
        if any(_entropy(case, part) is not None for case in cases):
            hint = f"uncertainty of the classifier on the {part} region alone: 0 % certain, 100 % undecided"
            found.append(
                _share(f"entropy_{part}", f"entropy, {part}", lambda c, p=part: _entropy(c, p), minor=True, hint=hint)
            )
    if any(case.familiarity is not None for case in cases):
        hint = "share of images of the training's kind that are less like it; below 1 %: unlike the training images"
        found.append(_share("familiarity", "familiarity", lambda c: c.familiarity, minor=True, hint=hint))
    for key, title in (("f1_foreground", "F1+"), ("f1_background", "F1-")):
        if any(key in case.scores for case in cases):
            hint = f"agreement with the true {'outlines' if key == 'f1_foreground' else 'background'}"
            found.append(_share(key, title, lambda c, k=key: c.scores.get(k), minor=True, hint=hint))
    if any(_remark(case) for case in cases):
        found.append(Column("remark", "remark", _remark, lambda c: _remark(c) or None, numeric=False, minor=True))
    return tuple(found)


def _share(
    key: str, title: str, value: Callable[[Case], float | None], *, minor: bool = False, hint: str = ""
) -> Column:
    return Column(key, title, lambda c: "" if value(c) is None else f"{shown(value(c))} %", value, True, minor, hint)


def _said(case: Case) -> str:
    return "failed" if case.failed else case.said


def _entropy(case: Case, part: str) -> float | None:
    scores = case.class_scores.get(part)
    return None if scores is None else scores.share


def _remark(case: Case) -> str:
    if case.failed or not case.evidence:
        return ", ".join(filter(None, (case.reason, case.pixel_size)))
    missed = "undecidable region as sure" if case.note and not case.unknown_mask else ""
    return ", ".join(filter(None, ("wrong class" if case.wrong else "", missed, case.pixel_size)))


def rows(cases: Sequence[Case], titles: Sequence[Column], truth_above: float, limit: int) -> Iterator[CaseRow]:
    """One row after another; no more than one image is in memory.

    Args:
        truth_above: of true masks, foreground is above it.
        limit: bytes for the pictures of an image.
    """
    for place, case in enumerate(cases, start=1):
        pictures, note, redrawn = (None, case.fix, False) if case.failed else _drawn(case, truth_above, limit)
        cells = tuple(title.cell(case) for title in titles)
        yield CaseRow(place, case, cells, state_of(case), pictures, note, redrawn)


def _drawn(case: Case, truth_above: float, limit: int) -> tuple[Pictures | None, str, bool]:
    """The pictures of an image, and a word of what lacks; the run's overlay where the image itself is gone."""
    try:
        tile = read_rgb(case.image)
    except (ImageFileError, ValueError) as error:  # a name that no file can have
        overlay = _overlay(case, limit)
        return overlay, f"The image cannot be shown: {getattr(error, 'what', error)}.", overlay is not None
    shape = tile.shape[:2]
    mask, no_mask = _region(case.mask, 0, shape, "mask is")
    truth, no_truth = _region(case.outlines, truth_above, shape, "true outlines are")
    if case.mask is None:
        no_mask = "No mask is drawn: the run wrote none as PNG or TIFF (setting formats)."
    return draw_pictures(tile, mask, truth, limit), " ".join(filter(None, (no_mask, no_truth))), False


def _region(file: Path | None, above: float, shape: tuple[int, ...], what: str) -> tuple[np.ndarray | None, str]:
    """A mask, ``[H, W]`` bool, or why there is none to be drawn."""
    if file is None:
        return None, ""
    try:
        region = read_mask(file) > above
    except (ImageFileError, ValueError) as error:
        return None, f"No {what} drawn: {getattr(error, 'what', error)}."
    return (region, "") if region.shape == shape else (None, f"No {what} drawn: they are of another size.")


def _overlay(case: Case, limit: int) -> Pictures | None:
    """The overlay that the run drew; None where there is none."""
    if case.overlay is None:
        return None
    try:
        return draw_pictures(read_rgb(case.overlay), None, None, limit)
    except ImageFileError:
        return None
