# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a result says of the model that made it, and of the run that trained that."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

import glas_wsol
from glas_wsol.errors import WeightsError
from glas_wsol.results.provenance import ALARM_SCOPE, NOT_RECORDED, Provenance, RunAlarm, alarm_of, provenance_of
from glas_wsol.results.verdict import Verdict

CARD = {"method": "minmax", "trunk": "resnet18", "recipe": {"epochs": 3}, "classes": ["a", "b"]}


def test_it_says_what_the_card_says_and_which_weights_and_views():
    made = provenance_of(
        {**CARD, "alarm": {"score": 0.25, "verdict": "doubtful: look", "signals": {}}}, ["12ab"], {"flips": True}
    )
    alarm = RunAlarm(0.25, Verdict.DOUBTFUL)
    expected = Provenance(("12ab",), "minmax", "resnet18", {"epochs": 3}, {"flips": True}, glas_wsol.__version__, alarm)
    assert made == expected
    entry = made.entry()
    assert entry["alarm"] == {"score": 0.25, "verdict": "doubtful", "scope": ALARM_SCOPE}
    assert "recipe" not in entry
    with pytest.raises(FrozenInstanceError):
        made.method = "x"


def test_provenance_older_model_has_no_alarm_nameless_no_method():
    assert provenance_of(CARD).alarm is None
    assert provenance_of(CARD).entry()["alarm"] is None
    assert provenance_of({}) == Provenance()


def test_of_an_ensemble_the_worst_alarm_counts():
    cards = [{**CARD, "alarm": {"score": score, "verdict": "doubtful"}} for score in (0.25, 0.75)]
    assert provenance_of({**CARD, "members": [CARD, *cards]}, ["1", "2", "3"]).alarm == RunAlarm(0.75, Verdict.DOUBTFUL)
    assert provenance_of({**CARD, "members": [CARD, CARD]}).alarm is None


@pytest.mark.parametrize(
    "alarm",
    [
        {"score": 1.5, "verdict": "ALARM"},
        {"score": float("nan"), "verdict": "ALARM"},
        {"score": 0.5},
        {"score": 0.5, "verdict": "x"},
        "loud",
        [1],
    ],
)
def test_an_alarm_that_is_none_is_refused_in_one_line(alarm):
    with pytest.raises(WeightsError, match="no score in") as caught:
        provenance_of({**CARD, "alarm": alarm})
    assert "\n" not in str(caught.value)


DRAWN = {"name": "phantom (synthetic tissue)", "synthetic": "tissue", "images": 85, "patients": None}
REAL = {"name": "GlaS", "synthetic": "", "images": 67, "patients": 15}


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"training_data": DRAWN}, "trained on synthetic tissue (phantom, 85 images)"),
        ({"training_data": DRAWN | {"synthetic": "birds"}}, "trained on synthetic birds (phantom, 85 images)"),
        ({"training_data": REAL}, "trained on GlaS (67 images of 15 patients)"),
        ({"training_data": {"name": "a\nb.csv"}}, "trained on a b.csv"),
        ({"training_data": {}}, "not trained"),
        ({"training_data": None}, NOT_RECORDED),
        ({}, NOT_RECORDED),
        ({"members": [{"training_data": REAL}, {"training_data": REAL}]}, "trained on GlaS (67 images of 15 patients)"),
        (
            {"members": [{"training_data": REAL}, {"training_data": DRAWN}]},
            "trained on synthetic tissue (phantom, 85 images) and on GlaS (67 images of 15 patients)",
        ),
        (
            {"members": [{}, {"training_data": DRAWN}]},
            "trained on synthetic tissue (phantom, 85 images) and on data not recorded",
        ),
        ({"members": [{}, {}]}, NOT_RECORDED),
    ],
)
def test_trained_on_names_the_training_data(card, words):
    made = provenance_of(card)
    assert made.trained_on == made.entry()["trained_on"] == words


@pytest.mark.parametrize("data", [["GlaS"], "GlaS", {"images": 3}, {"name": 3}])
def test_training_data_that_is_none_is_refused(data):
    with pytest.raises(WeightsError, match="training data without a name"):
        provenance_of({"training_data": data})


def test_the_alarm_says_what_it_judged():
    assert str(RunAlarm(0.04, Verdict.NO_ALARM)).endswith("this judges the training run, not this image")


def test_alarm_not_judged_is_recorded_and_said_with_its_reason():
    entry = {"score": None, "verdict": "not judged", "why": "these images show objects"}
    found = provenance_of({**CARD, "alarm": entry})
    assert found.alarm == RunAlarm(None, Verdict.NOT_JUDGED, entry["why"])
    assert str(found.alarm) == "training run: not judged: these images show objects"
    assert found.entry()["alarm"] == entry
    assert alarm_of(found.entry()) == found.alarm


def test_ensemble_with_a_member_not_judged_has_no_calm_verdict():
    def members(*scores):
        entries = [{"score": s, "verdict": Verdict.of(s).value, "why": "" if s else "objects"} for s in scores]
        return provenance_of({**CARD, "members": [{**CARD, "alarm": one} for one in entries]}).alarm.verdict

    assert members(0.1, None) is members(None, 0.05) is Verdict.NOT_JUDGED
    assert members(0.5, None) is Verdict.DOUBTFUL
    assert members(None, 0.9) is Verdict.ALARM
