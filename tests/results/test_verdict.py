# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from glas_wsol.results.verdict import Verdict


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (0.0, "no alarm"),
        (0.19, "no alarm"),
        (0.2, "doubtful"),
        (0.8, "doubtful"),
        (0.81, "ALARM"),
        (None, "not judged"),
    ],
)
def test_verdict_of_a_score(score, verdict):
    assert Verdict.of(score).value == verdict
    assert json.loads(json.dumps(Verdict.of(score))) == verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        *((one.value, one) for one in Verdict),
        *((one.words, one) for one in Verdict),
        ("ALARM: these masks ...", Verdict.ALARM),
        ("doubtful: look at the masks first", Verdict.DOUBTFUL),
    ],
)
def test_verdict_is_read_as_earlier_versions_wrote_it(text, verdict):
    assert Verdict.read(text) is verdict


@pytest.mark.parametrize("text", ["", None, "fine", "no alarms", "no alarm\x1b[2J", 0.5])
def test_verdict_of_another_word_is_refused(text):
    with pytest.raises(ValueError, match="Verdict"):
        Verdict.read(text)


def test_verdict_usable_is_what_was_judged_without_an_alarm():
    assert [one for one in Verdict if one.usable] == [Verdict.NO_ALARM, Verdict.DOUBTFUL]
