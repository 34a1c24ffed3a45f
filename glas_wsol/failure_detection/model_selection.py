# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Recommends one of several trained models from their ``model.json`` files; no image or outline is read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glas_wsol.errors import ConfigError, WeightsError, readable
from glas_wsol.failure_detection.alarm import ALARM
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.results.verdict import Verdict

__all__ = ["Candidate", "candidates", "table_of"]

_STAGE_ONE = "stage_one"  # the folder of a first stage, which is a part of the model beside it


@dataclass(frozen=True)
class Candidate:
    """A trained model.

    Attributes:
        error: share of the validation images that it named wrongly, in [0, 1]; None where it was not validated.
        score: how probable it is that its masks failed, in (0, 1), see
            :func:`~glas_wsol.failure_detection.alarm.judge_run`; None where it was not judged.
    """

    path: Path
    error: float | None
    score: float | None
    verdict: Verdict

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Small is good: one that may be used, fewest validation errors, the lowest score of the alarm.

        What is not known is worst. The errors come before the score because they are counted, and the score tells
        models apart whose class is right.
        """
        error, score = (math.inf if one is None else one for one in (self.error, self.score))
        return not self.usable, error, score

    @property
    def usable(self) -> bool:
        """Whether its masks were judged, and not found alarming."""
        return self.score is not None and self.verdict.usable


def candidates(places: Iterable[str | Path]) -> list[Candidate]:
    """The trained models at and below some places, the best first.

    Args:
        places: models (``model.pt``), or folders that hold such at any depth. A second stage's first stage is not
            used where it is in a folder ``stage_one``.

    Raises:
        ConfigError: if they are of different classes or folds: their errors are not comparable.
        WeightsError: if there is no model, or a ``model.json`` cannot be read.
    """
    files: dict[Path, Path] = {}
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
        files |= {path.resolve(): path for path in found}
    cards = {path: model_card(str(path)) for path in files.values()}
    _require_alike(cards)
    return sorted((_candidate(path, card) for path, card in cards.items()), key=lambda one: one.rank)


def _require_alike(cards: Mapping[Path, Mapping[str, Any]]) -> None:
    (first, card), *others = cards.items()
    for path, other in others:
        for name in ("classes", "fold"):
            if other.get(name) != card.get(name):
                what = f"{name} is {card.get(name)!r} in {first} and {other.get(name)!r} here"
                raise ConfigError(what, path, "choose among models of one data set and fold")


def _candidate(path: Path, card: Mapping[str, Any]) -> Candidate:
    judged, validation = (card[key] if isinstance(card.get(key), dict) else {} for key in (ALARM, "validation"))
    error, score = validation.get("classification_error"), judged.get("score")
    error, score = (one if isinstance(one, (int, float)) and 0 <= one <= 1 else None for one in (error, score))
    try:
        verdict = Verdict.read(judged.get("verdict"))
    except ValueError:  # nobody judged it, or what is written is no verdict
        verdict = Verdict.NOT_JUDGED
    return Candidate(path, error, score, verdict)


def table_of(found: Iterable[Candidate]) -> str:
    """Lines for a terminal, in the order given."""
    head = ("validation error", "alarm", "verdict", "model")
    rows: list[tuple[str, ...]] = [head]
    for one in found:
        error = "-" if one.error is None else f"{100 * one.error:.1f} %"
        rows.append(
            (error, "-" if one.score is None else f"{one.score:.2f}", one.verdict.value, readable(str(one.path)))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )
