# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Record what a result was made with: weights, training data, method, recipe, views, version, alarm of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glas_wsol.errors import WeightsError, count
from glas_wsol.results.verdict import Verdict
from glas_wsol.version import __version__

__all__ = ["ALARM_SCOPE", "NOT_RECORDED", "Provenance", "RunAlarm", "alarm_of", "provenance_of", "trained_on"]

ALARM_SCOPE = "this judges the training run, not this image"
"""What the verdict of an alarm holds for, wherever it is shown."""

NOT_RECORDED = "training data not recorded"
"""Shown for a model whose ``model.json`` does not record its training data."""


@dataclass(frozen=True)
class RunAlarm:
    """Whether the masks of a training run can be trusted at all, estimated after training without any outline.

    Attributes:
        score: how probable it is that the run failed, in [0, 1]; None where it was not judged.
        verdict: on that score.
        why: why it was not judged; empty where it was.
    """

    score: float | None
    verdict: Verdict
    why: str = ""

    @property
    def words(self) -> str:
        """The verdict and what to do about it, or why there is none."""
        return f"{self.verdict.words}: {self.why}" if self.why else self.verdict.words

    def __str__(self) -> str:
        """Verdict, score, and what they hold for."""
        if self.score is None:
            return f"training run: {self.words}"
        return f"training run: {self.verdict.words} (estimated failure probability {self.score:.2f}); {ALARM_SCOPE}"


@dataclass(frozen=True)
class Provenance:
    """What a result was made with.

    Attributes:
        models: SHA-256 of every model's weights; several of an ensemble.
        method: the method it was trained with; empty where the model does not record it.
        trunk: name of its trunk.
        recipe: what it was trained with, as recorded in its ``model.json``; JSON values.
        views: over which views of the image the prediction is a mean: ``flips``, ``rotations``, ``scales``.
        version: of this package.
        alarm: of the run that trained it; for an ensemble of the member most likely to have failed, where one that was
            not judged comes before those without an alarm. None where nothing is recorded.
        training_data: what it was trained on, see :func:`~glas_wsol.data.training_data.training_data`; of an ensemble
            every member's, each once; an empty one where nothing is trained. Empty where ``model.json`` has none.
        network_mpp: micrometres of a pixel that the network works at; None where ``model.json`` has none.
    """

    models: tuple[str, ...] = ()
    method: str = ""
    trunk: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict, repr=False)
    views: Mapping[str, Any] = field(default_factory=dict)
    version: str = __version__
    alarm: RunAlarm | None = None
    training_data: tuple[Mapping[str, Any], ...] = ()
    network_mpp: float | None = None

    @property
    def trained_on(self) -> str:
        """What it was trained on, in words, see :func:`trained_on`."""
        return trained_on(self.training_data)

    def entry(self) -> dict[str, Any]:
        """As JSON values; without the recipe, which is long, the same for every image, and in ``model.json``."""
        alarm = None
        if self.alarm is not None:
            score = self.alarm.score
            alarm = {"score": None if score is None else round(score, 6), "verdict": self.alarm.verdict.value}
            alarm |= {"why": self.alarm.why} if self.alarm.why else {"scope": ALARM_SCOPE}
        return {
            "models": list(self.models),
            "views": dict(self.views),
            "method": self.method,
            "trunk": self.trunk,
            "version": self.version,
            "trained_on": self.trained_on,
            "training_data": [dict(one) for one in self.training_data],
            "network_mpp": self.network_mpp,
            "alarm": alarm,
        }


def provenance_of(
    card: Mapping[str, Any], models: Sequence[str] = (), views: Mapping[str, Any] | None = None
) -> Provenance:
    """What results of a trained model, or of an ensemble, are made with.

    Args:
        card: what it is, see :func:`~glas_wsol.networks.checkpoint.model_card`.
        models: SHA-256 of its weights, or of every member's.
        views: over which views predictions are averaged.

    Raises:
        WeightsError: if the card's alarm or training data are not valid.
    """
    cards = card.get("members") or [card]
    alarms = [one for one in map(alarm_of, cards) if one is not None]
    judged_last = Verdict.least_doubtful()
    data = [_data_of(one) for one in cards]
    if any(one is not None for one in data):
        data = [{"name": "data not recorded"} if one is None else one for one in data]
    return Provenance(
        models=tuple(models),
        method=str(card.get("method") or ""),
        trunk=str(card.get("trunk") or ""),
        recipe=dict(card.get("recipe") or {}),
        views=dict(views or {}),
        alarm=max(alarms, key=lambda one: judged_last if one.score is None else one.score, default=None),
        network_mpp=card.get("mpp"),
        training_data=tuple(one for n, one in enumerate(data) if one is not None and one not in data[:n]),
    )


def trained_on(data: Sequence[Mapping[str, Any]]) -> str:
    """What a model was trained on, in words: synthetic images first, since they prove nothing about real ones.

    Args:
        data: of one model or of several, see :func:`~glas_wsol.data.training_data.training_data`.

    Returns:
        Such as "trained on synthetic tissue (phantom, 85 images)", "trained on GlaS (67 images of 15 patients)";
        :data:`NOT_RECORDED` without any data.
    """
    if not data:
        return NOT_RECORDED
    said = [_data_in_words(one) for one in sorted(data, key=lambda one: not one.get("synthetic")) if one]
    return f"trained on {' and on '.join(dict.fromkeys(said))}" if said else "not trained"


def _data_in_words(data: Mapping[str, Any]) -> str:
    images, patients = data.get("images"), data.get("patients")
    facts = ["phantom"] if data.get("synthetic") else []
    if images:
        facts.append(count(images, "image") + (f" of {count(patients, 'patient')}" if patients else ""))
    if data.get("corrected"):
        facts.append(count(data["corrected"], "corrected tile"))
    name = " ".join((f"synthetic {data['synthetic']}" if data.get("synthetic") else data["name"]).split())
    return f"{name} ({', '.join(facts)})" if facts else name


def _data_of(card: Mapping[str, Any]) -> dict[str, Any] | None:
    """What ``model.json`` records; None where it does not."""
    found = card.get("training_data")
    if found is None:
        return None
    if not isinstance(found, Mapping) or (found and not isinstance(found.get("name"), str)):
        raise WeightsError(f"training data without a name: {found!r:.80}", "model.json", "train again")
    return dict(found)


def alarm_of(card: Mapping[str, Any]) -> RunAlarm | None:
    """The entry ``alarm`` of a ``model.json``, of an image's results or of an evaluation; None without one.

    Raises:
        WeightsError: if it is not valid.
    """
    found = card.get("alarm")
    if found is None:
        return None
    try:
        verdict = Verdict.read(found["verdict"])
        score = None if verdict is Verdict.NOT_JUDGED else float(found["score"])
        alarm = RunAlarm(score, verdict, str(found.get("why", "")))
    except (KeyError, TypeError, ValueError, AttributeError):
        alarm = None
    if alarm is None or not 0 <= (alarm.score or 0) <= 1:
        what = f"an alarm that is no score in [0, 1] with a verdict: {found!r:.80}"
        raise WeightsError(what, "model.json", "delete its entry 'alarm', and train again")
    return alarm
