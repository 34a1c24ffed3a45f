# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The diagram shows what the evaluator measured, and is there only after an evaluation that ended."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from glas_wsol.handlers import EvaluationReport, ReliabilityDiagram
from glas_wsol.metrics import CalibrationError, ClassificationError, MaskCalibrationError
from tests.handlers.conftest import broken_off, item, left
from tests.metrics.conftest import evaluate

BATCHES = [[item("a", 0.75, 1), item("b", 0.875, 1)], [item("c", 0.25, 1, truth=False)]]


@pytest.fixture
def drawn(monkeypatch) -> list[tuple]:
    """What is drawn."""
    from glas_wsol.handlers import draw_reliability as reliability

    seen: list[tuple] = []
    draw = reliability.draw_reliability
    monkeypatch.setattr(reliability, "draw_reliability", lambda *a: seen.append(a) or draw(*a))
    return seen


def metrics(*keys: str) -> dict:
    made = {"calibration_error": CalibrationError(), "mask_calibration_error": MaskCalibrationError()}
    return {"e": ClassificationError(), **{key: made[key] for key in keys}}


def test_it_shows_the_evaluators_own_figures(tmp_path, drawn):
    diagram = ReliabilityDiagram(tmp_path / "out", "minmax, GlaS, valid")
    state = evaluate(metrics("calibration_error", "mask_calibration_error"), BATCHES, [diagram])
    path, classes, mask, caption = drawn[0]
    assert (path, caption) == (tmp_path / "out" / "reliability.png", "minmax, GlaS, valid")
    # One bin of three images: .75, .875 and .75 sure, two right.
    assert classes.count.tolist() == [3]
    assert classes.error == pytest.approx(2.375 / 3 - 2 / 3) == state.metrics["calibration_error"]
    # The truth is the left half of each tile: all of the decidable quarter, a third of the rest.
    assert (mask.images, mask.error) == (2, state.metrics["mask_calibration_error"])
    assert mask.confidence == pytest.approx([0.125, 0.875])
    assert mask.share == pytest.approx([1 / 3, 1])
    assert mask.count.tolist() == [2 * 2100, 2 * 700]
    assert np.asarray(Image.open(path)).ndim == 3


def test_draw_reliability_without_values_writes_nothing(tmp_path, drawn):
    diagram = ReliabilityDiagram(tmp_path)
    evaluate(metrics("calibration_error", "mask_calibration_error"), BATCHES[1:], [diagram])
    assert [one is None for one in drawn[0][1:3]] == [False, True]
    evaluate(metrics(), BATCHES, [diagram])
    assert len(drawn) == 1
    assert left(tmp_path) == set(), "the earlier one is no diagram of this evaluation"


def test_after_an_evaluation_that_broke_off_there_is_none(tmp_path):
    evaluate(metrics("mask_calibration_error"), BATCHES, [ReliabilityDiagram(tmp_path)])
    assert left(tmp_path) == {"reliability.png"}
    broken_off(tmp_path, ReliabilityDiagram(tmp_path))
    assert left(tmp_path) == set()


def test_it_lies_beside_the_report(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    handlers = [ReliabilityDiagram(tmp_path), EvaluationReport(tmp_path, {}, tmp_path / "model.pt")]
    evaluate(metrics("calibration_error"), BATCHES, handlers)
    tables = {"evaluation_classes.csv", "evaluation_confusions.csv"}
    results = {f"evaluation.{kind}" for kind in ("json", "csv", "npz")}
    assert left(tmp_path) == {"model.pt", "reliability.png", *results, *tables}
