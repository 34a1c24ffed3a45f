# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The model to use is chosen by image labels and the alarm, and an alarming one never unasked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from glas_wsol.__main__ import main
from glas_wsol.errors import ConfigError, WeightsError
from glas_wsol.failure_detection.model_selection import candidates

GOOD, DOUBT, BAD = "no alarm", "doubtful: look at the masks first", "ALARM: these masks should not be trusted"


def model(folder: Path, error: Any, score: Any, verdict: str = "") -> Path:
    """A model of which nothing but its card is looked at."""
    folder.mkdir(parents=True)
    (folder / "model.pt").touch()
    card = {"validation": {"classification_error": error}}
    card |= {} if score is None else {"alarm": {"score": score, "verdict": verdict}}
    (folder / "model.json").write_text(json.dumps(card))
    return folder / "model.pt"


def test_selection_sorts_by_errors_then_score_alarming_last(tmp_path):
    expected = [
        model(tmp_path / "d", 0.0, 0.1, GOOD),
        model(tmp_path / "a", 0.0, 0.5, DOUBT),
        model(tmp_path / "c", 0.1, 0.05, GOOD),
        model(tmp_path / "e", None, 0.05, GOOD),
        model(tmp_path / "b", 0.0, 0.9, BAD),
        model(tmp_path / "f" / "models", 0.0, None),
    ]
    model(tmp_path / "f" / "stage_one", 0.0, 0.01, GOOD)  # a part of the model beside it
    found = candidates([tmp_path, expected[2]])
    assert [one.path for one in found] == expected
    assert [one.usable for one in found] == [True] * 4 + [False] * 2
    assert [one.path for one in candidates([tmp_path / "f" / "stage_one"])] == [
        tmp_path / "f" / "stage_one" / "model.pt"
    ]


def test_the_command_lists_them_and_prints_the_best_alone(tmp_path, capsys):
    best, other = model(tmp_path / "one", 0.05, 0.12, GOOD), model(tmp_path / "two", 0.0, 0.93, BAD)
    assert main(["choose", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["5.0", "%", "0.12", "no", "alarm", str(best)]
    assert lines[2].split() == ["0.0", "%", "0.93", "ALARM", str(other)]
    assert main(["choose", "--best", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{best}\n"
    assert main(["choose", "--best", str(tmp_path / "two")]) == 1
    said = capsys.readouterr()
    assert not said.out
    assert "none that was judged without an alarm (ALARM" in said.err
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("card", ["no JSON", json.dumps([1])])
def test_a_damaged_card_is_refused(tmp_path, card):
    model(tmp_path / "odd", 0.0, 0.1, GOOD).with_suffix(".json").write_text(card)
    with pytest.raises(WeightsError, match="cannot be read"):
        candidates([tmp_path])


@pytest.mark.parametrize(
    ("error", "score", "verdict"),
    [(0.0, math.nan, GOOD), (0.0, -1, GOOD), (0.0, "0.1", GOOD), (0.0, 0.1, ""), (0.0, 0.1, "fine"), (-1, None, GOOD)],
)
def test_a_card_that_says_nothing_of_worth_comes_last(tmp_path, error, score, verdict):
    model(tmp_path / "odd", error, score, verdict)
    good = model(tmp_path / "zero", 1.0, 0.19, GOOD)
    first, last = candidates([tmp_path])
    assert first.path == good
    assert not last.usable


def test_a_verdict_cannot_forge_a_line(tmp_path, capsys):
    model(tmp_path / "odd", 0.0, 0.1, "no alarm\x1b[2J\nfake")
    assert main(["choose", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 2
    assert "\x1b" not in said


def test_selection_other_folds_refused_duplicates_merged(tmp_path):
    one, other = (model(tmp_path / name, 0.0, 0.1, GOOD) for name in ("one", "other"))
    assert len(candidates([one, one.parent, tmp_path / "other" / ".." / "one"])) == 1
    card = json.loads(other.with_suffix(".json").read_text())
    other.with_suffix(".json").write_text(json.dumps({**card, "fold": "patient-1"}))
    with pytest.raises(ConfigError, match=r"fold is None in .* and 'patient-1' here"):
        candidates([one, other])


def test_without_a_model_it_says_so(tmp_path):
    with pytest.raises(WeightsError, match="no trained model here or below"):
        candidates([tmp_path])
