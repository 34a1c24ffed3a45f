# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Losses against values worked out by hand, and their gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from glas_wsol.errors import ConfigError
from glas_wsol.losses import MinMaxEntropyLoss, cross_entropy, uniform_cross_entropy

# Scores with known softmax: log 1, log 2, log 5 -> 1/8, 2/8, 5/8 and log 3, log 3, log 6 -> 1/4, 1/4, 1/2.
LOGITS = torch.tensor([[1.0, 2.0, 5.0], [3.0, 3.0, 6.0]], dtype=torch.float64).log()
LABEL = torch.tensor([2, 0])
CE = [math.log(8 / 5), math.log(4)]
UNIFORM = [(math.log(8) + math.log(4) + math.log(8 / 5)) / 3, (2 * math.log(4) + math.log(2)) / 3]
BOTH = torch.tensor([True, True])


def test_cross_entropy_by_hand():
    assert cross_entropy(LOGITS, LABEL).tolist() == pytest.approx(CE, rel=1e-14)


def test_uniform_cross_entropy_by_hand():
    assert uniform_cross_entropy(LOGITS).tolist() == pytest.approx(UNIFORM, rel=1e-14)


@pytest.mark.parametrize("classes", [2, 5])
def test_uniform_cross_entropy_is_least_and_log_c_when_no_class_is_preferred(classes):
    undecided = torch.full((1, classes), 7.0, dtype=torch.float64)
    assert float(uniform_cross_entropy(undecided)) == pytest.approx(math.log(classes), rel=1e-14)
    drawn = torch.randn(200, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (uniform_cross_entropy(drawn) > math.log(classes)).all()


def test_losses_of_sure_scores_are_finite_in_single_precision():
    sure = torch.tensor([[500.0, -500.0]])
    assert float(cross_entropy(sure, torch.tensor([1]))) == 1000
    assert float(uniform_cross_entropy(sure)) == 500


def test_both_terms_are_means_over_the_counted_samples():
    relevant, irrelevant = MinMaxEntropyLoss()(LOGITS, LOGITS.flip(0), LABEL, BOTH)
    assert float(relevant) == pytest.approx(sum(CE) / 2, rel=1e-14)
    assert float(irrelevant) == pytest.approx(sum(UNIFORM) / 2, rel=1e-14)
    relevant, irrelevant = MinMaxEntropyLoss()(LOGITS, LOGITS.flip(0), LABEL, torch.tensor([False, True]))
    assert float(relevant) == pytest.approx(CE[1], rel=1e-14)
    assert float(irrelevant) == pytest.approx(UNIFORM[0], rel=1e-14)


def test_each_weight_multiplies_its_own_term():
    loss = MinMaxEntropyLoss(relevant=2, irrelevant=0.5, localizer=3)
    relevant, irrelevant = loss(LOGITS, LOGITS, LABEL, BOTH)
    assert float(relevant) == pytest.approx(2 * sum(CE) / 2, rel=1e-14)
    assert float(irrelevant) == pytest.approx(0.5 * sum(UNIFORM) / 2, rel=1e-14)
    assert float(loss.localizer_term(cross_entropy(LOGITS, LABEL), BOTH, 2)) == pytest.approx(
        3 * sum(CE) / 2, rel=1e-14
    )


def test_the_localizer_term_divides_by_the_whole_mini_batch():
    # Two forwards of a mini-batch of 5, of which the second does not count: log(8/5) / 5
    term = MinMaxEntropyLoss().localizer_term(cross_entropy(LOGITS, LABEL), torch.tensor([True, False]), 5)
    assert float(term) == pytest.approx(math.log(8 / 5) / 5, rel=1e-14)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_sample_that_does_not_count_cannot_spoil_the_loss_or_its_gradient(bad):
    values = torch.tensor([0.25, bad], dtype=torch.float64, requires_grad=True)
    term = MinMaxEntropyLoss().localizer_term(values, torch.tensor([True, False]), 2)
    term.backward()
    assert float(term.detach()) == 0.125
    assert values.grad.tolist() == [0.5, 0.0]


def test_a_batch_without_a_counted_sample_has_loss_zero_and_gradient_zero():
    logits = LOGITS.clone().requires_grad_()
    none = torch.tensor([False, False])
    loss = MinMaxEntropyLoss()
    relevant, irrelevant = loss(logits, logits, LABEL, none)
    total = relevant + irrelevant + loss.localizer_term(cross_entropy(logits, LABEL), none, 2)
    total.backward()
    assert float(total.detach()) == 0
    assert float(logits.grad.abs().sum()) == 0


@pytest.mark.parametrize("counted", [[True, True, True], [True, False, True]])
def test_gradients_equal_finite_differences(counted):
    generator = torch.Generator().manual_seed(1)
    positive, negative = (torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in "ab")
    label, counted = torch.tensor([3, 0, 1]), torch.tensor(counted)
    loss = MinMaxEntropyLoss(1.5, 0.5, 2.0)
    assert torch.autograd.gradcheck(lambda p, n: tuple(loss(p, n, label, counted)), (positive, negative))
    assert torch.autograd.gradcheck(lambda m: loss.localizer_term(cross_entropy(m, label), counted, 3), positive)


@pytest.mark.parametrize("weight", ["relevant", "irrelevant", "localizer"])
def test_a_negative_weight_is_refused_and_zero_is_not(weight):
    MinMaxEntropyLoss(**{weight: 0})
    with pytest.raises(ConfigError, match="negative"):
        MinMaxEntropyLoss(**{weight: -0.1})
