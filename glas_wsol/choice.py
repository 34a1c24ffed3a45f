# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Which of several trained models to use, from what each says of itself: no image is looked at, and no outline."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from glas_wsol.alarm import ALARM
from glas_wsol.bundle import model_card
from glas_wsol.errors import WeightsError

__all__ = ["Candidate", "candidates", "table_of"]

_STAGE_ONE = "stage_one"  # the folder of a first stage, which is a part of the model beside it


@dataclass(frozen=True)
class Candidate:
    """A trained model.

    Attributes:
        path: its ``model.pt``.
        error: share of the validation images that it named wrongly, in [0, 1]; None where it was not validated.
        score: how probable it is that its masks failed, in (0, 1), see :func:`~glas_wsol.alarm.judge_run`; None where
            it was not judged.
        verdict: the same in words.
    """

    path: Path
    error: float | None
    score: float | None
    verdict: str

    @property
    def rank(self) -> tuple[float, float]:
        """Small is good: fewest validation errors, then the lowest score of the alarm; what is not known is worst.

        The errors come first because they are counted, and the score tells models apart whose class is right. A model
        that is alarming, or was not judged, comes after all others, whatever its errors.
        """
        error = math.inf if self.error is None else self.error
        score = math.inf if self.score is None else self.score
        return (error + (math.inf if self.alarming else 0), score)

    @property
    def alarming(self) -> bool:
        """Whether its masks should not be trusted, or nobody has said that they may."""
        return self.score is None or self.verdict.startswith("ALARM")


def candidates(places: Iterable[str | Path]) -> list[Candidate]:
    """The trained models at and below some places, the best first.

    Args:
        places: models (``model.pt``), or folders that hold such at any depth. A second stage's first stage is not
            looked at where it lies in a folder ``stage_one``.

    Raises:
        WeightsError: if there is no model, or a ``model.json`` cannot be read.
    """
    files: dict[Path, None] = {}
    for place in map(Path, places):
        if place.is_file():
            found = [place]
        else:
            found = []
            for folder, below, names in os.walk(place):
                below[:] = sorted(name for name in below if name != _STAGE_ONE and not name.startswith("."))
                found += [Path(folder) / "model.pt"] if {"model.pt", "model.json"} <= set(names) else []
        if not found:
            raise WeightsError("no trained model here or below", place, "name folders that trainings wrote into")
        files |= dict.fromkeys(found)
    return sorted(map(_candidate, files), key=lambda one: one.rank)


def _candidate(path: Path) -> Candidate:
    card = model_card(str(path))
    judged, validation = (card[key] if isinstance(card.get(key), dict) else {} for key in (ALARM, "validation"))
    error, score = validation.get("classification_error"), judged.get("score")
    error, score = (one if isinstance(one, (int, float)) else None for one in (error, score))
    return Candidate(path, error, score, str(judged.get("verdict", "not judged")))


def table_of(found: Iterable[Candidate]) -> str:
    """Lines for a terminal, in the order given.

    Args:
        found: models.
    """
    head = ("validation error", "alarm", "verdict", "model")
    rows = [head]
    for one in found:
        error = "-" if one.error is None else f"{100 * one.error:.1f} %"
        rows.append((error, "-" if one.score is None else f"{one.score:.2f}", one.verdict.split(":")[0], str(one.path)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )
