# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Class scores: entropies by hand, and where those of the regions mean something."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from glas_wsol.results.class_scores import MISSED, UNKNOWN_MASK, ClassProbabilities, ClassScores

# ------------------------------------------------------------------ entropies


@pytest.mark.parametrize(
    ("scores", "nats", "normalised"),
    [
        (ClassProbabilities((0.5, 0.5)), math.log(2), 1),
        (ClassProbabilities((1.0, 0.0)), 0, 0),
        (ClassProbabilities((0.25, 0.25, 0.25, 0.25)), math.log(4), 1),
        (ClassProbabilities((0.25, 0.75, 0.0)), 0.5623351446188083, 0.5623351446188083 / math.log(3)),
        (ClassProbabilities((0.5, 1.0, 0.0), multi_label=True), math.log(2) / 3, 1 / 3),
        (ClassProbabilities((0.5, 0.5, 0.5), multi_label=True), math.log(2), 1),
    ],
)
def test_entropies_are_those_by_hand(scores, nats, normalised):
    assert scores.entropy == pytest.approx(nats, abs=1e-15)
    assert scores.normalised_entropy == pytest.approx(normalised, abs=1e-15)
    assert 0 <= scores.normalised_entropy <= 1


# ------------------------------------------------------------------ what they mean


CLASS, OTHER = (MISSED.format(what) for what in ("the class", "another class"))


@pytest.mark.parametrize(
    ("kept", "rest", "labels", "multi_label", "remark"),
    [
        ((0.81, 0.19), (0.82, 0.18), (0,), False, CLASS),
        ((0.81, 0.19), (0.806, 0.194), (0,), False, CLASS),  # 81 % both, as printed
        ((0.81, 0.19), (0.804, 0.196), (0,), False, ""),
        ((0.81, 0.19), (0.5, 0.5), (0,), False, ""),
        ((0.81, 0.19), (0.1, 0.9), (0,), False, OTHER),
        ((0.5, 0.5), (0.5, 0.5), (0,), False, CLASS),
        ((0.2, 0.3, 0.5), (0.55, 0.1, 0.35), (2,), False, OTHER),
        ((0.9, 0.8), (0.3, 0.85), (0, 1), True, CLASS),
        ((0.9, 0.2), (0.3, 0.95), (0,), True, ""),  # another class that an image may have besides
        ((0.2, 0.2), (0.9, 0.9), (), True, ""),
    ],
)
def test_remark_where_the_undecidable_region_is_as_sure(kept, rest, labels, multi_label, remark):
    scores = ClassScores(None, ClassProbabilities(kept, multi_label), ClassProbabilities(rest, multi_label))
    assert scores.remark(labels) == remark
    assert scores.regions == (scores.decidable, scores.undecidable)
    unknown = replace(scores, knows_mask=False)
    assert unknown.remark(labels) == UNKNOWN_MASK
    assert unknown.regions == (None, None)


def test_no_remark_without_scores_of_the_regions():
    assert ClassScores().remark((0,)) == ClassScores(knows_mask=False).remark((0,)) == ""
    assert ClassScores(ClassProbabilities((0.9, 0.1)), ClassProbabilities((0.9, 0.1))).remark((0,)) == ""
