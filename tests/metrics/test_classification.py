# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Image-level metrics through MONAI's evaluator, and the order in which models are preferred."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from glas_wsol.errors import ConfigError
from glas_wsol.metrics import BalancedError, ClassificationError, CrossEntropy, RocAuc, SelectionScore
from tests.metrics.conftest import evaluate


def item(probabilities: list[float], label: int | torch.Tensor) -> dict:
    return {"probabilities": torch.tensor(probabilities), "label": label}


# right, wrong, right, wrong, wrong of three classes
ITEMS = [
    item([0.5, 0.25, 0.25], 0),
    item([0.125, 0.75, 0.125], torch.tensor(2)),
    item([0.1, 0.1, 0.8], torch.tensor([2])),
    item([0.5, 0.4, 0.1], 1),
    item([1.0, 0.0, 0.0], 1),
]
BATCHINGS = [[ITEMS], [[one] for one in ITEMS], [ITEMS[:2], ITEMS[2:]]]


@pytest.mark.parametrize("batches", BATCHINGS)
def test_classification_error_any_batching_is_share_of_wrong(batches):
    state = evaluate({"error": ClassificationError()}, batches)
    assert state.metrics["error"] == pytest.approx(3 / 5)
    assert state.metric_details["error"].flatten().tolist() == [0, 1, 0, 1, 1]
    assert state.best_metric == state.metrics["error"]


@pytest.mark.parametrize("batches", BATCHINGS)
def test_cross_entropy_is_mean_over_images_and_always_finite(batches):
    state = evaluate({"loss": CrossEntropy()}, batches)
    expected = [math.log(2), math.log(8), -math.log(0.8), -math.log(0.4), 12 * math.log(10)]
    assert state.metric_details["loss"].flatten().tolist() == pytest.approx(expected, rel=1e-5)
    assert state.metrics["loss"] == pytest.approx(sum(expected) / 5, rel=1e-5)


def score(error_losses: list[tuple[bool, float]], ties: str = "loss") -> float:
    """Selection score of images of two classes, each wrong or right with a given loss."""
    items = []
    for wrong, loss in error_losses:
        p = math.exp(-loss)
        assert (p < 0.5) == wrong
        items.append(item([p, 1 - p], 0))
    return evaluate({"score": SelectionScore(ties)}, [items]).metrics["score"]


def test_the_selection_score_by_hand():
    # one error; losses log 4 and log 2 / 2 on average (2 log 2 + 0.5 log 2) / 2 = 1.25 log 2 = L; -(1 + L / (1 + L))
    loss = 1.25 * math.log(2)
    got = score([(True, 2 * math.log(2)), (False, 0.5 * math.log(2))])
    assert got == pytest.approx(-(1 + loss / (1 + loss)), rel=1e-6)
    assert score([(True, 2 * math.log(2)), (False, 0.5 * math.log(2))], ties="last") == -1


def test_selection_prefers_fewer_errors_then_lower_loss():
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(60):
        wrong = random.random(12) < random.uniform(0, 0.4)
        losses = np.where(wrong, random.choice([0.7, 2, 8, 27], 12), random.choice([0.0, 0.01, 0.3, 0.69], 12))
        drawn.append(
            (int(wrong.sum()), float(losses.mean()), score(list(zip(wrong.tolist(), losses.tolist(), strict=True))))
        )
    compared = {"errors": 0, "ties": 0, "errors against loss": 0}
    for errors, loss, value in drawn:
        for other_errors, other_loss, other_value in drawn:
            if errors < other_errors:
                assert value > other_value
                compared["errors"] += 1
                compared["errors against loss"] += loss > other_loss
            elif errors == other_errors and loss < other_loss - 1e-5:
                assert value > other_value
                compared["ties"] += 1
    assert min(compared.values()) > 20, f"every case must have been met: {compared}"


def test_one_error_less_wins_at_the_largest_loss_there_is():
    worst = [(True, 27.6)] * 3 + [(False, 0.69)] * 5
    best = [(True, 0.7)] * 4 + [(False, 0.0)] * 4
    assert score(worst) > score(best)


def test_ties_last_ignores_the_loss():
    assert score([(True, 0.7), (False, 0.1)], "last") == score([(True, 20.0), (False, 0.6)], "last") == -1
    assert score([(False, 0.1), (False, 0.1)], "last") == 0


def test_another_rule_is_refused():
    with pytest.raises(ConfigError, match="choose loss or last"):
        SelectionScore(ties="first")


@pytest.mark.parametrize("batches", BATCHINGS)
def test_the_balanced_error_is_the_mean_over_classes(batches):
    # class 0: right; class 1: two wrong; class 2: one wrong, one right
    state = evaluate({"error": BalancedError()}, batches)
    assert state.metrics["error"] == pytest.approx((0 + 1 + 1 / 2) / 3)
    assert state.metric_details["error"].tolist() == [[0, 0], [2, 1], [2, 0], [1, 1], [1, 1]]


@pytest.mark.parametrize("batches", BATCHINGS)
def test_the_rank_area_is_the_mean_against_the_rest(batches):
    # class 0: .5 against .125 .1 .5 1: 2.5 of 4; class 1: .4 and 0 against .25 .75 .1: 2 + 0 of 6;
    # class 2: .125 and .8 against .25 .1 0: 2 + 3 of 6
    assert evaluate({"area": RocAuc()}, batches).metrics["area"] == pytest.approx((2.5 / 4 + 2 / 6 + 5 / 6) / 3)


def test_the_rank_area_of_two_classes_is_that_of_class_one():
    items = [item([0.3, 0.7], 1), item([0.9, 0.1], 0), item([0.8, 0.2], 1), item([0.2, 0.8], 0)]
    assert evaluate({"area": RocAuc()}, [items]).metrics["area"] == 2 / 4


METRICS = [ClassificationError, BalancedError, RocAuc, CrossEntropy, SelectionScore]


@pytest.mark.parametrize("metric", METRICS)
def test_images_without_probabilities_are_left_out(metric):
    mixed = [{"label": 1}, *ITEMS[:3], {"label": torch.tensor(0)}]
    expected = evaluate({"m": metric()}, [ITEMS[:3]])
    for batches in ([mixed], [[one] for one in mixed]):
        state = evaluate({"m": metric()}, batches)
        assert state.metrics["m"] == expected.metrics["m"]
        assert state.metric_details["m"].tolist() == expected.metric_details["m"].tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_selection_without_probabilities_is_nan_and_ties(metric):
    state = evaluate({"m": metric()}, [[{"label": 1}], [{"label": 0}]])
    assert state.metrics["m"] == 0 if metric is SelectionScore else math.isnan(state.metrics["m"])
    assert state.metric_details == {}


def test_the_error_of_another_opinion_is_read_by_its_key():
    items = [one | {"others": one["probabilities"].flip(0)} for one in ITEMS]
    state = evaluate({"own": ClassificationError(), "other": ClassificationError("others")}, [items])
    # flipped, the five say 1 (of .25 and .25 the first), 1, 0, 2, 2
    assert state.metrics["own"] == pytest.approx(3 / 5)
    assert state.metric_details["other"].flatten().tolist() == [1, 1, 1, 1, 1]
    assert math.isnan(evaluate({"m": ClassificationError("missing")}, [items]).metrics["m"])


@pytest.mark.parametrize("metric", METRICS)
def test_a_second_validation_forgets_the_first(metric):
    one = metric()
    evaluate({"m": one}, [ITEMS[:1]])
    again = evaluate({"m": one}, [ITEMS[2:]]).metrics["m"]
    assert again == evaluate({"m": metric()}, [ITEMS[2:]]).metrics["m"]


# Three images of two of three classes or fewer; p of exactly 0.5 names a class.
MULTI_LABEL = [
    item([0.75, 0.5, 0.25], torch.tensor([1.0, 1.0, 0.0])),  # right
    item([0.9, 0.8, 0.2], torch.tensor([1.0, 0.0, 0.0])),  # class 1 is named and absent
    item([0.4, 0.3, 0.6], torch.tensor([1.0, 0.0, 1.0])),  # class 0 is present and not named
    item([0.1, 0.7, 0.0], torch.tensor([0.0, 1.0, 0.0])),  # right
]
SEVERAL_BATCHINGS = [[MULTI_LABEL], [[one] for one in MULTI_LABEL]]


@pytest.mark.parametrize("batches", SEVERAL_BATCHINGS)
def test_multi_label_image_is_wrong_unless_classes_match_exactly(batches):
    state = evaluate({"error": ClassificationError()}, batches)
    assert state.metric_details["error"].flatten().tolist() == [0, 1, 1, 0]
    assert state.metrics["error"] == 2 / 4


@pytest.mark.parametrize("batches", SEVERAL_BATCHINGS)
def test_multi_label_cross_entropy_is_mean_of_binary_ones(batches):
    state = evaluate({"loss": CrossEntropy(), "score": SelectionScore(), "last": SelectionScore("last")}, batches)
    of_label = [[0.75, 0.5, 0.75], [0.9, 0.2, 0.8], [0.4, 0.7, 0.6], [0.9, 0.7, 1.0]]
    expected = [-sum(map(math.log, p)) / 3 for p in of_label]
    assert state.metric_details["loss"].flatten().tolist() == pytest.approx(expected, rel=1e-6)
    loss = sum(expected) / 4
    assert state.metrics["loss"] == pytest.approx(loss, rel=1e-6)
    assert state.metrics["score"] == pytest.approx(-(2 + loss / (1 + loss)), rel=1e-6)
    assert state.metrics["last"] == -2


@pytest.mark.parametrize("batches", SEVERAL_BATCHINGS)
def test_multi_label_balanced_error_is_mean_of_both_recalls(batches):
    # class 0: 2 of 3 with, 1 of 1 without; class 1: 2 of 2 with, 1 of 2 without; class 2: all
    expected = 1 - ((2 / 3 + 1) / 2 + (1 + 1 / 2) / 2 + 1) / 3
    state = evaluate({"error": BalancedError()}, batches)
    assert state.metrics["error"] == pytest.approx(expected, rel=1e-12)
    assert state.metric_details["error"].tolist()[1] == [-1, 1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("batches", SEVERAL_BATCHINGS)
def test_the_rank_area_of_several_classes_is_the_mean_over_them(batches):
    # class 0: .75 .9 .4 against .1: all; class 1: .5 and .7 against .8 and .3: 2 of 4; class 2: .6 against all
    state = evaluate({"area": RocAuc()}, batches)
    assert state.metrics["area"] == pytest.approx((1 + 2 / 4 + 1) / 3, rel=1e-12)
    always = [item([0.2, 0.7], torch.tensor([1.0, 1.0])), item([0.4, 0.3], torch.tensor([1.0, 0.0]))]
    assert evaluate({"area": RocAuc()}, [always]).metrics["area"] == 1, "class 0 has no image without it"


def test_several_classes_are_not_taken_for_more_of_one():
    # the same numbers as a row of one class of three: [1, p, p, p] has as many entries as [y, y, p, p]
    two = [item([0.9, 0.2], torch.tensor([1.0, 0.0])), item([0.3, 0.6], torch.tensor([1.0, 1.0]))]
    state = evaluate({"area": RocAuc(), "error": BalancedError()}, [two])
    assert state.metrics["area"] == 1, "class 1 only: 0.6 against 0.2"
    assert state.metrics["error"] == pytest.approx((1 / 2 + 0) / 2), "class 0: one of two, no other; class 1: all"
