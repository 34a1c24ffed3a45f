# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a result says of the model that made it, and of the run that trained that."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

import glas_wsol
from glas_wsol.errors import WeightsError
from glas_wsol.results.provenance import Provenance, RunAlarm, provenance_of

CARD = {"method": "minmax", "trunk": "resnet18", "recipe": {"epochs": 3}, "classes": ["a", "b"]}


def test_it_says_what_the_card_says_and_which_weights_and_views():
    made = provenance_of(
        {**CARD, "alarm": {"score": 0.25, "verdict": "a\nb", "signals": {}}}, ["12ab"], {"flips": True}
    )
    alarm = RunAlarm(0.25, "a b")
    expected = Provenance(("12ab",), "minmax", "resnet18", {"epochs": 3}, {"flips": True}, glas_wsol.__version__, alarm)
    assert made == expected
    entry = made.entry()
    assert entry["alarm"] == {"score": 0.25, "verdict": "a b"}
    assert "recipe" not in entry
    with pytest.raises(FrozenInstanceError):
        made.method = "x"


def test_an_older_model_has_no_alarm_and_a_nameless_one_no_method():
    assert provenance_of(CARD).alarm is None
    assert provenance_of(CARD).entry()["alarm"] is None
    assert provenance_of({}) == Provenance()


def test_of_an_ensemble_the_worst_alarm_counts():
    cards = [{**CARD, "alarm": {"score": score, "verdict": str(score)}} for score in (0.25, 0.75)]
    assert provenance_of({**CARD, "members": [CARD, *cards]}, ["1", "2", "3"]).alarm == RunAlarm(0.75, "0.75")
    assert provenance_of({**CARD, "members": [CARD, CARD]}).alarm is None


@pytest.mark.parametrize(
    "alarm", [{"score": 1.5, "verdict": ""}, {"score": float("nan"), "verdict": ""}, {"score": 0.5}, "loud", [1]]
)
def test_an_alarm_that_is_none_is_refused_in_one_line(alarm):
    with pytest.raises(WeightsError, match="no score in") as caught:
        provenance_of({**CARD, "alarm": alarm})
    assert "\n" not in str(caught.value)
