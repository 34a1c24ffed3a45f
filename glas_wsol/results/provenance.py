# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a result was made with: weights, method, recipe, views, version; and whether the run that trained it rang."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glas_wsol.errors import WeightsError
from glas_wsol.version import __version__

__all__ = ["Provenance", "RunAlarm", "provenance_of"]


@dataclass(frozen=True)
class RunAlarm:
    """Whether the masks of a training run can be trusted at all, judged when it was trained, without any outline.

    Attributes:
        score: how probable it is that the run failed, in [0, 1].
        verdict: the same in words.
    """

    score: float
    verdict: str


@dataclass(frozen=True)
class Provenance:
    """What a result was made with.

    Attributes:
        models: SHA-256 of every model's weights; several of an ensemble.
        method: the row of the tables it was trained as; empty where the model does not say.
        trunk: name of its trunk.
        recipe: what it was trained with, as its ``model.json`` says; JSON values.
        views: over which views of the image the prediction is a mean: ``flips``, ``rotations``, ``scales``.
        version: of this package.
        alarm: of the run that trained it; of an ensemble that of the member most probably failed. None where no run
            was judged.
    """

    models: tuple[str, ...] = ()
    method: str = ""
    trunk: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict, repr=False)
    views: Mapping[str, Any] = field(default_factory=dict)
    version: str = __version__
    alarm: RunAlarm | None = None

    def entry(self) -> dict[str, Any]:
        """As JSON values; without the recipe, which is long, the same for every image, and in ``model.json``."""
        alarm = None if self.alarm is None else {"score": round(self.alarm.score, 6), "verdict": self.alarm.verdict}
        return {
            "models": list(self.models),
            "views": dict(self.views),
            "method": self.method,
            "trunk": self.trunk,
            "version": self.version,
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
        WeightsError: if the card has an alarm that is none.
    """
    alarms = [one for one in map(_alarm_of, card.get("members") or [card]) if one is not None]
    return Provenance(
        models=tuple(models),
        method=str(card.get("method") or ""),
        trunk=str(card.get("trunk") or ""),
        recipe=dict(card.get("recipe") or {}),
        views=dict(views or {}),
        alarm=max(alarms, key=lambda one: one.score, default=None),
    )


def _alarm_of(card: Mapping[str, Any]) -> RunAlarm | None:
    found = card.get("alarm")
    if found is None:
        return None
    try:
        alarm = RunAlarm(float(found["score"]), " ".join(str(found["verdict"]).split()))
    except (KeyError, TypeError, ValueError):
        alarm = None
    if alarm is None or not 0 <= alarm.score <= 1:
        what = f"an alarm that is no score in [0, 1] with a verdict: {found!r:.80}"
        raise WeightsError(what, "model.json", "delete its entry 'alarm', and train again")
    return alarm
