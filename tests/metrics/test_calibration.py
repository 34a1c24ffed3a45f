# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Calibration errors and reliability diagrams: by hand, against a second implementation, and of calibrated answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from glas_wsol.metrics import (
    MEASURES,
    CalibrationError,
    MaskCalibrationError,
    Temperature,
    bootstrap,
    class_reliability,
    mask_reliability,
)
from glas_wsol.metrics.bins import BINS, mass_bins, width_bins
from glas_wsol.metrics.temperature import fit_temperature
from tests.metrics.conftest import evaluate, item
from tests.metrics.test_temperature import sampled

# 27 images in three bins of nine: mean confidences .6, .8 and .95, and a third, all and two thirds of them right.
ROWS = np.array(
    [
        *([0.52, 0], [0.58, 1], [0.7, 0]),
        *([0.75, 1], [0.8, 1], [0.85, 1]),
        *([0.9, 0], [0.95, 1], [1.0, 1]),
    ]
).repeat(3, axis=0)
ERROR = (abs(1.8 - 1) + abs(2.4 - 3) + abs(2.85 - 2)) / 9


def figure(key: str, rows: np.ndarray) -> float:
    return float(MEASURES[key].aggregate(rows, np.ones((1, len(rows))))[0])


def named(p: float, label: int) -> dict:
    return item(np.zeros((2, 3)), probabilities=[1 - p, p], label=label)


def test_the_classes_error_by_hand():
    shuffled = ROWS[np.random.default_rng(0).permutation(27)]
    assert figure("calibration_error", shuffled) == pytest.approx(ERROR, abs=1e-12)
    answers = [named(p, int(right)) if i % 2 else named(1 - p, 1 - int(right)) for i, (p, right) in enumerate(shuffled)]
    answers = [answers[:4], [item(np.zeros((2, 3))), *answers[4:]]]
    answers[0][0]["probabilities"] = answers[0][0]["probabilities"].float()
    state = evaluate({"e": CalibrationError()}, answers)
    assert state.metrics["e"] == pytest.approx(ERROR, abs=1e-7)
    assert state.metric_details["e"].numpy() == pytest.approx(shuffled, abs=1e-7)
    assert math.isnan(evaluate({"e": CalibrationError()}, [[item(np.zeros((2, 3)))]]).metrics["e"])


def test_a_confident_class_that_is_always_right_or_always_wrong():
    assert figure("calibration_error", np.tile([1.0, 1.0], (30, 1))) == 0
    assert figure("calibration_error", np.tile([1.0, 0.0], (30, 1))) == 1
    assert figure("calibration_error", np.array([[0.7, 1.0]])) == pytest.approx(0.3)


def test_of_several_classes_each_is_a_case():
    multi_label = named(0.0, 0)
    multi_label["probabilities"], multi_label["label"] = torch.tensor([0.9, 0.2, 0.5]), torch.tensor([1.0, 1.0, 0.0])
    state = evaluate({"e": CalibrationError()}, [[multi_label]])
    assert state.metric_details["e"].numpy() == pytest.approx(np.array([[0.9, 0.8, 0.5, 1, 0, 0]]))
    # three cases, one bin
    assert state.metrics["e"] == pytest.approx(abs(0.9 + 0.8 + 0.5 - 1) / 3)
    assert class_reliability(state.metric_details["e"].numpy()).count.tolist() == [3]


def test_calibration_error_is_small_if_calibrated_large_if_not():
    random = np.random.default_rng(3)
    p = random.uniform(0.5, 1, 40000)
    right = random.random(len(p)) < p
    assert figure("calibration_error", np.column_stack([p, right])) < 0.01
    assert figure("calibration_error", np.column_stack([np.minimum(p + 0.2, 1), right])) == pytest.approx(
        (np.minimum(p + 0.2, 1) - p).mean(), abs=0.01
    )


def test_temperature_of_evaluated_images_equals_that_of_logits():
    logits, labels = sampled(50, 3, 2.5, seed=4)
    chances = torch.from_numpy(logits).softmax(dim=1)
    items = [{"probabilities": p, "label": torch.tensor([y])} for p, y in zip(chances, labels.tolist(), strict=True)]
    multi_label = {"probabilities": chances[0], "label": torch.tensor([1, 0, 1])}
    nothing = {"label": torch.tensor([0])}
    found = evaluate({"temperature": Temperature()}, [[*items, multi_label, nothing]]).metrics["temperature"]
    assert found == pytest.approx(fit_temperature(logits, labels), rel=1e-4)
    assert evaluate({"temperature": Temperature()}, [[multi_label, nothing]]).metrics["temperature"] == 1


def test_equal_mass_bins_are_even_and_ties_stay_together():
    values = np.random.default_rng(1).permutation(100) / 100
    bins = mass_bins(values, np.ones((1, 100)))[0]
    assert np.bincount(bins).tolist() == [25] * 4
    assert mass_bins(values[:27], np.ones((1, 27))).max() == 2
    assert (np.diff(bins[np.argsort(values)]) >= 0).all(), "by rising values"
    assert mass_bins(np.linspace(0, 1, 5000), np.ones((1, 5000))).max() == BINS - 1
    assert mass_bins(np.array([0.3, 0.1, 0.2]), np.ones((1, 3))).tolist() == [[0, 0, 0]]
    tied = np.repeat([0.9, 0.2], [5, 3])
    assert mass_bins(tied, np.ones((1, 8))).tolist() == [[1] * 5 + [0] * 3]
    twice = mass_bins(np.array([0.1, 0.4, 0.6, 0.9]), np.array([[2, 2, 2, 2], [6, 0, 0, 2], [0, 4, 4, 0]]))
    assert twice[:, [0, 3]].tolist()[:2] == [[0, 1], [0, 1]]
    assert twice[2, 1:3].tolist() == [0, 1]


def test_bins_of_equal_width():
    assert width_bins(np.array([[0.0, 0.0666], [0.0667, 1.0]])).tolist() == [[0, 0], [1, 14]]
    assert width_bins((np.arange(3000) + 0.5) / 3000).tolist() == sorted([*range(BINS)] * (3000 // BINS))


def test_the_masks_error_by_hand():
    # One bin of score .25 (4 px, 1 of them true) and one of .9 (2 px, none true); the other image, all in the .9 bin.
    one = item([[0.25, 0.25, 0.9], [0.25, 0.25, 0.9]], [[1, 0, 0], [0, 0, 0]])
    other = item([[0.9], [0.9]], [[1], [1]])
    state = evaluate({"e": MaskCalibrationError()}, [[one], [item([[0.5]]), other]])
    assert state.metrics["e"] == pytest.approx((0 + 4 * abs(0.9 - 0.5)) / 8, abs=1e-6)
    rows = state.metric_details["e"].numpy()
    assert rows.shape == (2, 3 * BINS)
    pixels, scores, foreground = rows[0].reshape(3, BINS)
    assert [pixels[3], pixels[13], pixels.sum()] == [4, 2, 6]
    assert [scores[3], scores[13]] == pytest.approx([1, 1.8], abs=1e-6)
    assert [foreground[3], foreground[13]] == [1, 0]
    assert math.isnan(evaluate({"e": MaskCalibrationError()}, [[item([[0.5]])]]).metrics["e"])


def test_mask_without_tissue_is_sure_of_background():
    state = evaluate({"e": MaskCalibrationError()}, [[item(np.full((3, 4), 0.9), np.ones((3, 4)), evidence=False)]])
    assert state.metrics["e"] == 1


def test_soft_map_is_calibrated_and_sharpened_map_is_not():
    random = np.random.default_rng(2)
    soft = random.random((150, 211)).astype(np.float32)
    truth = random.random(soft.shape) < soft
    sharp = (soft > 0.5).astype(np.float32)
    found = evaluate({"e": MaskCalibrationError()}, [[item(soft, truth)]]).metrics["e"]
    assert 0 < found < 0.02
    assert evaluate({"e": MaskCalibrationError()}, [[item(sharp, truth)]]).metrics["e"] == pytest.approx(0.25, abs=0.01)


def test_the_classes_diagram():
    got = class_reliability(ROWS)
    assert got.confidence == pytest.approx([0.6, 0.8, 0.95])
    assert got.share == pytest.approx([1 / 3, 1, 2 / 3])
    assert got.count.tolist() == [9, 9, 9]
    assert (got.images, got.error) == (27, pytest.approx(ERROR))
    assert got.interval == bootstrap(MEASURES["calibration_error"], ROWS)
    assert got.interval[0] < got.error < got.interval[1]
    # Wilson's of 9 of 9: to 1, from 1 / (1 + z^2 / 9)
    assert got.high[1] == pytest.approx(1)
    assert got.low[1] == pytest.approx(1 / (1 + 1.959964**2 / 9), abs=1e-6)
    assert (got.low < got.share + 1e-12).all()
    assert np.abs(got.confidence - got.share) @ got.count / 27 == pytest.approx(got.error)


def test_the_masks_diagram():
    random = np.random.default_rng(4)
    answers = []
    for shift in (-0.2, 0.0, 0.2):
        soft = random.uniform(0, 0.6, (40, 53)).astype(np.float32)
        answers.append(item(soft, random.random(soft.shape) < soft + shift))
    state = evaluate({"e": MaskCalibrationError()}, [answers])
    rows = state.metric_details["e"].numpy()
    got = mask_reliability(rows, resamples=300)
    assert len(got.count) == 9, "the bins up to 0.6"
    assert (got.images, got.count.sum()) == (3, 3 * 40 * 53)
    assert np.abs(got.confidence - got.share) @ got.count / got.count.sum() == pytest.approx(got.error)
    assert got.error == state.metrics["e"]
    # Of three images drawn again, all three may be the worst or the best one.
    alone = [mask_reliability(row[None]) for row in rows]
    assert got.low == pytest.approx(np.min([one.share for one in alone], axis=0), abs=0.03)
    assert got.high == pytest.approx(np.max([one.share for one in alone], axis=0), abs=0.03)
    assert (alone[0].low == alone[0].share).all(), "one image drawn again is itself"


def test_interval_of_calibrated_answers_reaches_nearly_zero():
    # Their true error is 0 and the figure is not: percentiles of redrawn sets lie further above still.
    measure, found = MEASURES["calibration_error"], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        p = random.uniform(0.55, 1, 85)
        rows = np.column_stack([p, random.random(85) < p])
        found.append((figure("calibration_error", rows), *bootstrap(measure, rows, resamples=200)))
    value, low, high = np.array(found).T
    assert ((low <= value) & (value <= high) & (low >= 0)).all()
    assert value.mean() > 0.04
    assert low.mean() < 0.02
    assert high.mean() < 2 * value.mean(), "the figure's distance from the truth is not counted twice"
