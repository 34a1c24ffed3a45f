# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Losses against values worked out by hand, and their gradients against finite differences."""

from __future__ import annotations

import json
import math

import pytest
import torch

from glas_wsol.errors import ConfigError
from glas_wsol.losses import MinMaxEntropyLoss, cross_entropy, even_cross_entropy, uniform_cross_entropy

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
def test_uniform_cross_entropy_without_preferred_class_is_log_c(classes):
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
def test_loss_excluded_sample_does_not_affect_value_or_gradient(bad):
    values = torch.tensor([0.25, bad], dtype=torch.float64, requires_grad=True)
    term = MinMaxEntropyLoss().localizer_term(values, torch.tensor([True, False]), 2)
    term.backward()
    assert float(term.detach()) == 0.125
    assert values.grad.tolist() == [0.5, 0.0]


def test_loss_without_counted_sample_is_zero_with_zero_gradient():
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


@pytest.mark.parametrize("weight", ["relevant", "irrelevant", "localizer", "size", "variation"])
def test_a_negative_weight_is_refused_and_zero_is_not(weight):
    MinMaxEntropyLoss(**{weight: 0})
    with pytest.raises(ConfigError, match="negative"):
        MinMaxEntropyLoss(**{weight: -0.1})


# Two masks of 2 x 3 px: areas 1/2 and 1/4.
MASKS = torch.tensor([[[[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]], [[[0.5, 0.0, 0.0], [1.0, 0.0, 0.0]]]], dtype=torch.float64)


def test_constraints_are_off_by_default():
    size, variation = MinMaxEntropyLoss().mask_terms(MASKS.clone().requires_grad_(), 3)
    assert (float(size), float(variation)) == (0, 0)
    assert MinMaxEntropyLoss(band=(0.2, 0.3), barrier_growth=2).constraints == ()
    assert MinMaxEntropyLoss(size=0.1).constraints == ("size",)
    assert MinMaxEntropyLoss(size=0.1, variation=0.1).constraints == ("size", "variation")
    assert not size.requires_grad
    assert not variation.requires_grad


def test_constraints_are_weighted_means_over_the_mini_batch():
    # Distances to both bounds: 1/2, 1/2 and 1/4, 3/4; -log(distance) / 5 each.
    barriers = [2 * math.log(2) / 5, (math.log(4) + math.log(4 / 3)) / 5]
    # Rows 0, columns 3 steps of 1 over 3 columns; rows 1/2 + 1 over 2 rows, columns 1/2 over 3 columns.
    variations = [1.0, 0.75 + 1 / 6]
    loss = MinMaxEntropyLoss(size=3, variation=0.5)
    size, variation = loss.mask_terms(MASKS, 0)
    assert float(size) == pytest.approx(3 * sum(barriers) / 2, rel=1e-14)
    assert float(variation) == pytest.approx(0.5 * sum(variations) / 2, rel=1e-14)


def test_the_barrier_hardens_with_the_epochs():
    loss = MinMaxEntropyLoss(size=1, band=(None, 0.3), barrier=4, barrier_growth=1.5)
    # t = 9 at epoch 2, edge at -1/81.
    # Area 1/2 is 0.2 too large: 9 * 0.2 + log(81) / 9 + 1 / 9. Area 1/4 has 0.05 left: -log(0.05) / 9.
    expected = (1.8 + math.log(81) / 9 + 1 / 9 - math.log(0.05) / 9) / 2
    assert float(loss.mask_terms(MASKS, 2).size) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    "options",
    [
        *(
            {"band": band}
            for band in [(0.5, 0.5), (0.6, 0.4), (-0.1, 0.5), (0.5, 1.1), (0.2,), (None, 0.0), (1.0, None)]
        ),
        {"band": (None, None), "size": 1.0},
        {"barrier": 0},
        {"barrier_growth": 0.9},
    ],
)
def test_constraints_out_of_range_are_refused_in_one_line(options):
    with pytest.raises(ConfigError) as caught:
        MinMaxEntropyLoss(**options)
    assert "\n" not in str(caught.value)


def test_settings_are_json_and_tell_every_argument_apart():
    changed = [
        *({name: 0.5} for name in ("relevant", "irrelevant", "localizer", "size", "variation", "barrier")),
        {"band": (0.1, None)},
        {"barrier_growth": 1.1},
    ]
    written = [json.dumps(MinMaxEntropyLoss(**options).settings()) for options in [{}, *changed]]
    assert len(set(written)) == len(written)
    assert MinMaxEntropyLoss(**changed[-2]).settings()["loss_band"] == [0.1, None]


# Of several classes: p = 1/4, 1/2, 4/5 and 3/4, 2/3, 1/2.
MULTI_LABEL = torch.logit(torch.tensor([[0.25, 0.5, 0.8], [0.75, 2 / 3, 0.5]], dtype=torch.float64))
MULTI_HOT = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
BINARY = [[math.log(4), math.log(2), math.log(5 / 4)], [math.log(4), math.log(3 / 2), math.log(2)]]
EVEN = [  # -(log p + log(1 - p)) / 2
    [(math.log(4) + math.log(4 / 3)) / 2, math.log(2), (math.log(5 / 4) + math.log(5)) / 2],
    [(math.log(4) + math.log(4 / 3)) / 2, (math.log(3 / 2) + math.log(3)) / 2, math.log(2)],
]


def test_cross_entropy_of_several_classes_is_binary_for_each():
    for got, expected in zip(cross_entropy(MULTI_LABEL, MULTI_HOT), BINARY, strict=True):
        assert got.tolist() == pytest.approx(expected, rel=1e-12)
    assert torch.equal(cross_entropy(MULTI_LABEL, MULTI_HOT.long()), cross_entropy(MULTI_LABEL, MULTI_HOT))


def test_the_undecided_target_of_several_classes_by_hand():
    for got, expected in zip(even_cross_entropy(MULTI_LABEL), EVEN, strict=True):
        assert got.tolist() == pytest.approx(expected, rel=1e-12)


def test_multi_label_undecided_target_is_reached_only_at_half():
    logits = torch.linspace(-9, 9, 4001, dtype=torch.float64).view(1, -1).requires_grad_()
    values = even_cross_entropy(logits)
    values.sum().backward()
    p = logits.detach().sigmoid()
    torch.testing.assert_close(logits.grad, p - 0.5)  # the derivative: its only zero is p = 0.5, a rise on both sides
    assert float(p[0, values.argmin()]) == pytest.approx(0.5, rel=1e-14)
    assert float(values.min()) == pytest.approx(math.log(2), rel=1e-14)
    assert int((values <= math.log(2) + 1e-12).sum()) == 1
    # convex: the minimum of a mean over classes is where each class has its own
    curvature = torch.diff(values.detach(), n=2)
    assert (curvature > 0).all()
    # two classes that exclude each other say the same of the odds
    two = torch.stack([logits.detach()[0], torch.zeros(4001, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(uniform_cross_entropy(two), values.detach()[0])


def test_multi_label_terms_are_means_over_counted_samples():
    counted = torch.tensor([[True, False, True], [False, True, True]])
    relevant, irrelevant = MinMaxEntropyLoss(relevant=2, irrelevant=3)(MULTI_LABEL, MULTI_LABEL, MULTI_HOT, counted)
    chosen = [(0, 0), (0, 2), (1, 1), (1, 2)]
    assert float(relevant) == pytest.approx(2 * sum(BINARY[i][k] for i, k in chosen) / 4, rel=1e-12)
    assert float(irrelevant) == pytest.approx(3 * sum(EVEN[i][k] for i, k in chosen) / 4, rel=1e-12)
    nothing = MinMaxEntropyLoss()(MULTI_LABEL, MULTI_LABEL, MULTI_HOT, torch.zeros(2, 3, dtype=torch.bool))
    assert [float(term) for term in nothing] == [0, 0]


def test_multi_label_localizer_term_divides_by_all_samples():
    counted = torch.tensor([[True, False, False], [True, True, False]])
    term = MinMaxEntropyLoss(localizer=0.5).localizer_term(cross_entropy(MULTI_LABEL, MULTI_HOT), counted, 5)
    assert float(term) == pytest.approx(0.5 * (BINARY[0][0] + BINARY[1][0] + BINARY[1][1]) / 15, rel=1e-12)
