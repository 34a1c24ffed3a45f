# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Detects what a folder of results holds: an inference, an evaluation, a training, or the last two together."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from glas_wsol.errors import OutputError
from glas_wsol.handlers.clock import read_clock
from glas_wsol.report.cases import AGAIN, Case, number, read_cases, read_failures, read_slides
from glas_wsol.results.provenance import RunAlarm, provenance_of
from glas_wsol.results.verdict import Verdict
from glas_wsol.utils.csv_files import read_table
from glas_wsol.utils.json_files import RECORD, RESULTS, read_json

__all__ = ["Contents", "Series", "read_folder"]

logger = logging.getLogger(__name__)

_TITLES = {
    "loss": "Training loss, all terms",
    "loss_relevant": "Loss of the classifier on the decidable region",
    "loss_irrelevant": "Loss of its certainty on the undecidable region",
    "loss_localizer": "Loss of the localizer",
    "classification_error": "Validation: classification error",
    "cross_entropy": "Validation: cross-entropy of the class, nats",
    "temperature": "Validation: temperature of the class, 1 as it is",
}
_HIDDEN = ("selection_score",)  # the two validation curves in one number


@dataclass(frozen=True)
class Series:
    """A figure over the epochs.

    Attributes:
        key: its name in the run's logs.
        points: epoch and value, in the order of the epochs.
    """

    key: str
    title: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Contents:
    """What was found.

    Attributes:
        place: where the tables and the files of the images are: ``folder``, or below it.
        kinds: ``"inference"``, ``"evaluation"``, ``"training"``: those found.
        card: ``model.json`` of a training; empty elsewhere.
        evaluation: ``evaluation.json``; empty elsewhere.
        made_with: settings in the record of an inference; empty elsewhere.
        entry: of the first image in ``predictions.json``; its provenance is that of all.
        cases: the images, those that failed last.
        history: curves of a training.
        rounds: of a second stage: figures by name.
        epochs: times of a training's epochs, see :func:`~glas_wsol.handlers.clock.read_clock`.
        diagram: reliability diagram of an evaluation, PNG; None where there is none.
        written: when the results were, UTC.
    """

    folder: Path
    place: Path
    kinds: tuple[str, ...]
    card: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    made_with: Mapping[str, Any]
    entry: Mapping[str, Any]
    cases: tuple[Case, ...]
    history: tuple[Series, ...]
    rounds: tuple[Mapping[str, float], ...]
    epochs: tuple[Mapping[str, Any], ...]
    diagram: Path | None
    written: datetime

    @property
    def trained_on(self) -> str:
        """What the model learnt from, in words."""
        for source in (self.entry, self.evaluation):
            if source.get("trained_on"):
                return str(source["trained_on"])
        return provenance_of({"training_data": self.card.get("training_data")}).trained_on

    @property
    def alarm(self) -> RunAlarm | None:
        """How far the run is to be trusted; None where nothing says so."""
        for source in (self.card, self.entry, self.evaluation):
            alarm = source.get("alarm")
            if isinstance(alarm, Mapping) and alarm:
                score = number(alarm.get("score"))
                try:
                    return RunAlarm(score, Verdict.read(alarm.get("verdict")), str(alarm.get("why", "")))
                except ValueError:  # no verdict, or none that this version knows
                    return RunAlarm(score, Verdict.of(score))
        return None


def read_folder(folder: str | Path) -> Contents:
    """Find out what a folder holds, and read it.

    Args:
        folder: the output folder of ``inference.json``, ``evaluate.json`` or ``train.json``.

    Raises:
        OutputError: if it holds none of their results, or they are damaged or unfinished.
    """
    root = Path(folder)
    if not root.is_dir():
        raise OutputError("no such folder", root, "name the output folder of a run")
    evaluation = _mapping(root / "evaluation.json")
    card = _mapping(root / "models" / "model.json")
    predictions = root / str(evaluation.get("split", "")) / "predictions.json" if evaluation else None
    if predictions is None and (root / "predictions.json").is_file():
        predictions = root / "predictions.json"
    history = _history(root / "tensorboard")
    trained = bool(card or history)
    slides = _list(root / "slides.json") if (root / "slides.json").is_file() else []
    if predictions is None and not trained and not slides:
        if (root / RECORD).is_file():
            raise OutputError("this run has not ended", root, f"{AGAIN}; it goes on where it stopped")
        fix = "name the output folder of a training, an evaluation or an inference"
        raise OutputError("there are no results here", root, fix)
    entries = _list(predictions) if predictions else []
    rows = read_table(root / "evaluation.csv", fix=AGAIN)[1] if evaluation else []
    place = predictions.parent if predictions else root
    cases = read_cases(entries, place, rows) + read_slides(slides, root) + read_failures(place / "failed.csv")
    names = "training" if trained else "", "evaluation" if evaluation else "inference" if predictions or slides else ""
    marks = [
        predictions,
        *(root / one for one in ("evaluation.json", "slides.json", "models/model.json", "tensorboard")),
    ]
    newest = max(mark.stat().st_mtime for mark in marks if mark is not None and mark.exists())
    diagram = root / "reliability.png"
    return Contents(
        folder=root,
        place=place,
        kinds=tuple(filter(None, names)),
        card=card,
        evaluation=evaluation,
        made_with=_made_with(place / RECORD),
        entry=next(iter([*entries, *slides]), {}),
        cases=cases,
        history=history,
        rounds=_rounds(root / "models" / "seeds"),
        epochs=tuple(read_clock(root / "models" / "clock.json")),
        diagram=diagram if evaluation and diagram.is_file() else None,
        written=datetime.fromtimestamp(newest, timezone.utc),
    )


def _json(path: Path) -> Any:
    try:
        return read_json(path, RESULTS)
    except (OSError, ValueError) as error:
        raise OutputError("this file is damaged", path, AGAIN) from error


def _mapping(path: Path) -> dict[str, Any]:
    """The content of a file; empty if there is none."""
    if not path.is_file():
        return {}
    content = _json(path)
    if not isinstance(content, dict):
        raise OutputError("this file is not one of a run", path, AGAIN)
    return content


def _list(path: Path) -> list[Any]:
    if not path.is_file():
        raise OutputError("the table of the images is not there", path, AGAIN)
    content = _json(path)
    if not isinstance(content, list):
        raise OutputError("this file is not one of a run", path, AGAIN)
    return content


def _made_with(path: Path) -> dict[str, Any]:
    """The first line of the record; nothing of a damaged one: the tables have all figures."""
    try:
        with path.open(encoding="utf-8") as file:
            return dict(json.loads(file.readline())["made_with"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def _history(folder: Path) -> tuple[Series, ...]:
    """The curves in TensorBoard's files; of an epoch that was run again, the later value."""
    if not folder.is_dir() or not any(folder.glob("events.out.tfevents.*")):
        return ()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of a file whose end was cut off by a kill
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    keys = [key for key in found.Tags()["scalars"] if key not in _HIDDEN]
    order = list(_TITLES)
    keys.sort(key=lambda key: (order.index(key) if key in order else len(order), key))
    series = []
    for key in keys:
        values: dict[int, float] = {}
        for event in sorted(found.Scalars(key), key=lambda event: event.wall_time):
            value = number(event.value)
            if value is not None:
                values[int(event.step)] = value
        if values:
            series.append(Series(key, _TITLES.get(key) or key, tuple(sorted(values.items()))))
    return tuple(series)


def _rounds(folder: Path) -> tuple[dict[str, float], ...]:
    """What each round of a second stage left beside its seeds; those that can be read."""
    found = []
    for path in sorted(folder.glob("round_*/seeds.json"), key=lambda path: (len(path.parent.name), path.parent.name)):
        try:
            record = dict(read_json(path))
        except (OSError, ValueError, TypeError):
            logger.warning("%s cannot be read: left out", path)
            continue
        orientation = record.get("orientation")
        margin = orientation.get("margin") if isinstance(orientation, Mapping) else None
        values = {"margin": margin, **{k: record.get(k) for k in ("loss", *_AGREEMENTS)}}
        found.append({key: value for key, one in values.items() if (value := number(one)) is not None})
    return tuple(found)


_AGREEMENTS = ("teachers_agree", "student_agrees", "same_as_before")
