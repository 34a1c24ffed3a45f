# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Judge whether the masks of a training run can be trusted, in one of four words."""

from __future__ import annotations

from enum import Enum

__all__ = ["Verdict"]

_SURE = 0.2  # below it no alarm, above 1 minus it an alarm


class Verdict(str, Enum):
    """Verdict of the alarm on a training run; its value is recorded in ``model.json``."""

    NO_ALARM = "no alarm"
    DOUBTFUL = "doubtful"
    ALARM = "ALARM"
    NOT_JUDGED = "not judged"

    @classmethod
    def of(cls, score: float | None) -> Verdict:
        """The verdict on an estimated failure probability. ``score``: in [0, 1]; None where the run was not judged."""
        if score is None:
            return cls.NOT_JUDGED
        if score < _SURE:
            return cls.NO_ALARM
        return cls.ALARM if score > 1 - _SURE else cls.DOUBTFUL

    @staticmethod
    def least_doubtful() -> float:
        """The score from which on a run is doubtful: whoever ranks runs puts one that was not judged just here."""
        return _SURE

    @classmethod
    def read(cls, value: object) -> Verdict:
        """A verdict as recorded in a file; earlier versions wrote the advice after a colon.

        Args:
            value: such as ``"no alarm"``, or ``"doubtful: look at the masks first"``.
        """
        return cls(str(value).partition(":")[0].strip())

    @property
    def usable(self) -> bool:
        """Whether the masks were judged, and not found alarming."""
        return self in (Verdict.NO_ALARM, Verdict.DOUBTFUL)

    @property
    def words(self) -> str:
        """The verdict and what to do about it."""
        advice = _ADVICE.get(self)
        return f"{self.value}: {advice}" if advice else self.value

    def __str__(self) -> str:
        return self.words


_ADVICE = {Verdict.DOUBTFUL: "look at the masks first", Verdict.ALARM: "these masks should not be trusted"}
