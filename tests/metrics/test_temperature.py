# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The temperature: known ones are found, it is the best of many, and little data gives none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glas_wsol.metrics.temperature import LEAST_IMAGES, fit_temperature


def sampled(n: int, classes: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right at that temperature: labels are drawn from their softmax there."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (n, classes)) * temperature
    chances = np.exp(logits / temperature)
    chances /= chances.sum(axis=1, keepdims=True)
    return logits, np.array([random.choice(classes, p=p) for p in chances])


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Cross-entropy with Platt's targets, a class's images counted as in two classes, written down image by image."""
    images, classes = logits.shape
    target = np.full((images, classes), np.nan)
    for i, label in enumerate(labels):
        n = sum(labels == label) * classes / 2
        target[i] = 1 / (n + 2) / (classes - 1)
        target[i, label] = (n + 1) / (n + 2)
    assert np.allclose(target.sum(axis=1), 1)
    return float(torch.nn.functional.cross_entropy(torch.from_numpy(logits / temperature), torch.from_numpy(target)))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found(classes, temperature):
    assert fit_temperature(*sampled(6000, classes, temperature)) == pytest.approx(temperature, rel=0.06)


def test_temperature_two_classes_one_margin_has_closed_form():
    # Class 0 is said of all, with a margin of 4; 15 of 20 have it. A label of 15 images stands for 16/17, one of 5 for
    # 6/7, so that on average class 0 has p, and log(p / (1 - p)) = 4 / T.
    logits, labels = np.tile([4.0, 0.0], (20, 1)), np.repeat([0, 1], [15, 5])
    p = (15 * 16 / 17 + 5 * 1 / 7) / 20
    expected = 4 / np.log(p / (1 - p))
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-4)
    assert fit_temperature(logits + 7, labels) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("n", [5, 50])
def test_temperature_all_correct_is_limited_by_number_of_images(n):
    # n of each of two classes, each right by a margin of 3: sure to (n + 1) / (n + 2), so log(n + 1) = 3 / T.
    logits = np.repeat([[3.0, 0.0], [0.0, 3.0]], n, axis=0)
    assert fit_temperature(logits, np.repeat([0, 1], n)) == pytest.approx(3 / np.log(n + 1), rel=1e-4)


def test_temperature_of_five_small_classes_is_confident_when_right():
    # 6 of each of 5 classes, each right by a margin of 8: 6 * 5 / 2 = 15, so sure to 16/17, and e^(8 / T) = 64.
    logits = 8.0 * np.repeat(np.eye(5), 6, axis=0)
    assert fit_temperature(logits, np.repeat(range(5), 6)) == pytest.approx(8 / np.log(64), rel=1e-4)


def test_no_other_temperature_has_a_lower_loss():
    logits, labels = sampled(40, 3, 2.0, seed=5)
    best = fit_temperature(logits, labels)
    assert loss(logits, labels, best) <= min(loss(logits, labels, t) for t in np.geomspace(0.05, 20, 400)) + 1e-9
    assert loss(logits, labels, best) < loss(logits, labels, 1.0)


def test_temperature_accepts_log_probabilities_and_tensors():
    logits, labels = sampled(60, 3, 1.7)
    log_probabilities = torch.from_numpy(logits).log_softmax(dim=1)
    assert fit_temperature(log_probabilities, torch.from_numpy(labels)) == pytest.approx(
        fit_temperature(logits, labels), rel=1e-4
    )


def test_a_probability_of_zero_is_no_infinite_loss():
    logits, labels = np.log([[0.75, 0.25]] * 20), np.repeat([0, 1], [15, 5])
    logits[-1] = [0, -np.inf]
    assert 1 < fit_temperature(logits, labels) < 20


@pytest.mark.parametrize("n", [0, 1, LEAST_IMAGES - 1])
def test_of_few_images_there_is_none(n):
    logits, labels = sampled(LEAST_IMAGES, 2, 5.0, seed=2)
    assert fit_temperature(logits[:n], labels[:n]) == 1
    assert fit_temperature(logits, labels) != 1


def test_of_one_class_there_is_none():
    logits = sampled(30, 2, 5.0)[0]
    assert fit_temperature(logits, np.zeros(30, int)) == 1


def test_bounds_hold_where_the_answers_are_worse_than_chance():
    logits, labels = sampled(50, 2, 1.0)
    assert 19 < fit_temperature(-3 * logits, labels) <= 20


@pytest.mark.parametrize(
    ("logits", "labels", "says"),
    [
        (np.zeros(5), np.zeros(5, int), "are needed"),
        (np.zeros((5, 2)), np.zeros(4, int), "are needed"),
        (np.zeros((2, 2)), np.array([0, 2]), "below 2"),
        (np.full((2, 2), np.nan), np.array([0, 1]), "finite"),
        (np.full((2, 2), -np.inf), np.array([0, 1]), "finite"),
    ],
)
def test_what_does_not_fit_is_refused(logits, labels, says):
    with pytest.raises(ValueError, match=says):
        fit_temperature(logits, labels)
