# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Values, intervals and paired differences by hand, against theory, and where there is nothing to draw."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from glas_wsol.errors import ConfigError
from glas_wsol.experiments.tables.comparison import Comparison, holm
from glas_wsol.experiments.tables.groups import MethodRuns
from glas_wsol.experiments.tables.runs import EvaluatedRun
from glas_wsol.metrics.measures import MEASURES

F1, ERROR, PXAP = (MEASURES[key] for key in ("f1_foreground", "classification_error", "pixel_average_precision"))
NAN = math.nan


def row_of(
    runs: Mapping[tuple[int, str], object], key: str = "f1_foreground", supervision="image labels", **names
) -> MethodRuns:
    """A row from the values of its runs, one per image; images are named by fold, or as `names` says by fold."""
    made = {}
    for (seed, fold), values in runs.items():
        values = np.asarray(values, dtype=np.float64)
        values = values[:, None] if values.ndim == 1 else values
        images = np.array(names.get(fold) or [f"{fold}{i:03}" for i in range(len(values))])
        facts = {"supervision": supervision, "seed": seed, "fold": fold, "fold_seed": 0}
        made[seed, fold] = EvaluatedRun(Path(f"{seed}{fold}"), facts, images, {key: values})
    return MethodRuns("mine", None, "resnet18", True, made)


def test_the_value_is_the_mean_over_seeds_of_the_pooled_images():
    row = row_of({(0, "a"): [1, 0], (0, "b"): [1, 1, 1, 1], (1, "a"): [0, 0], (1, "b"): [0.5, 0.5, 0, 0]})
    found = Comparison(resamples=200).estimate(row, F1)
    assert found.by_seed == {0: pytest.approx(5 / 6), 1: pytest.approx(1 / 6)}
    assert found.value == pytest.approx(0.5)  # the mean of the folds' means would be 0.4375
    assert found.n == 6


def test_a_measure_of_pooled_pixels_is_computed_for_each_seed():
    # Histograms of two bins, foreground then background: precision 1/2 and 1/3 at recall 1.
    row = row_of({(0, "a"): [[0, 1, 0, 1], [0, 1, 0, 1]], (1, "a"): [[0, 1, 0, 1], [0, 1, 0, 3]]}, PXAP.key)
    found = Comparison(resamples=200).estimate(row, PXAP)
    assert found.by_seed == {0: 0.5, 1: pytest.approx(1 / 3)}
    assert found.value == pytest.approx(5 / 12)


def test_of_two_images_it_reaches_from_one_to_the_other():
    found = Comparison(resamples=2000).estimate(row_of({(0, "a"): [0.2, 0.8]}), F1)
    assert (found.lo, found.hi) == (0.2, 0.8)  # a quarter of the resamples holds one image only
    assert found.method == "bootstrap"


def test_seeds_are_drawn_too():
    seeds = row_of({(0, "a"): [0.2, 0.2, 0.2], (5, "a"): [0.8, 0.8, 0.8]})
    found = Comparison(resamples=2000).estimate(seeds, F1)
    assert (found.value, found.lo, found.hi) == pytest.approx((0.5, 0.2, 0.8))
    alone = Comparison(resamples=2000).estimate(row_of({(0, "a"): [0.2, 0.2, 0.2]}), F1)
    assert (alone.lo, alone.hi) == pytest.approx((0.2, 0.2))


def test_comparison_interval_of_many_images_is_near_normal():
    rng = np.random.default_rng(4)
    images, seeds = rng.normal(0, 0.1, 60), rng.normal(0, 0.05, 25)
    row = row_of({(s, "a"): 0.5 + images + shift for s, shift in enumerate(seeds)})
    found = Comparison(resamples=6000).estimate(row, F1)
    # Images and seeds add up, so the variances of both means do.
    half = 1.959964 * math.sqrt(images.var() / 60 + seeds.var() / 25)
    middle = 0.5 + images.mean() + seeds.mean()
    assert found.value == pytest.approx(middle)
    assert found.lo == pytest.approx(middle - half, abs=0.08 * half)
    assert found.hi == pytest.approx(middle + half, abs=0.08 * half)
    narrower = Comparison(level=0.5, resamples=6000).estimate(row, F1)
    assert narrower.hi - narrower.lo == pytest.approx(2 * half * 0.67449 / 1.959964, rel=0.08)


def test_comparison_one_image_in_several_folds_counts_once():
    values = np.random.default_rng(2).random(12)
    names = {fold: [f"image{i:02}" for i in range(12)] for fold in "abc"}
    one = Comparison(resamples=500).estimate(row_of({(0, "a"): values}, a=names["a"]), F1)
    three = Comparison(resamples=500).estimate(row_of({(0, fold): values for fold in "abc"}, **names), F1)
    assert (three.lo, three.hi, three.n) == (pytest.approx(one.lo), pytest.approx(one.hi), 12)
    more = Comparison(resamples=500).estimate(row_of({(0, fold): values for fold in "abc"}), F1)
    assert more.n == 36
    assert more.hi - more.lo < 0.75 * (one.hi - one.lo)


def test_it_is_the_same_each_time_and_another_with_another_seed():
    row = row_of({(0, "a"): np.random.default_rng(1).random(9), (1, "a"): np.random.default_rng(2).random(9)})
    assert Comparison(resamples=300).estimate(row, F1) == Comparison(resamples=300).estimate(row, F1)
    assert Comparison(resamples=300).estimate(row, F1) != Comparison(resamples=300, seed=1).estimate(row, F1)


@pytest.mark.parametrize(("wrong", "wanted"), [(0.0, (0, 0.161125)), (1.0, (0.838875, 1))])
def test_without_any_error_the_interval_is_wilsons(wrong, wanted):
    row = row_of({(s, "a"): [wrong] * 20 for s in (0, 1)}, ERROR.key)
    found = Comparison(resamples=200).estimate(row, ERROR)
    assert (found.lo, found.hi) == pytest.approx(wanted, abs=1e-5)  # z^2 / (n + z^2) and its mirror
    assert (found.method, found.n) == ("wilson", 20)


def test_one_error_by_one_seed_is_enough_for_the_bootstrap():
    row = row_of({(0, "a"): [0] * 20, (1, "a"): [1] + [0] * 19}, ERROR.key)
    assert Comparison(resamples=200).estimate(row, ERROR).method == "bootstrap"


def test_a_row_against_itself_differs_by_exactly_nothing():
    values = {(s, f): np.random.default_rng([s, ord(f)]).random(7) for s in (0, 1, 2) for f in "ab"}
    found = Comparison(resamples=500).difference(row_of(values), row_of(values), F1)
    assert (found.value, found.lo, found.hi, found.p) == (0, 0, 0, 1)
    assert (found.n, len(found.cells)) == (14, 6)


def test_a_constant_shift_has_no_width_though_each_row_has():
    values = {(s, "a"): np.random.default_rng(s).random(9) for s in (0, 1)}
    comparison = Comparison(resamples=999)
    row, shifted = row_of(values), row_of({cell: v + 0.125 for cell, v in values.items()})
    found = comparison.difference(shifted, row, F1)
    assert (found.value, found.lo, found.hi) == pytest.approx((0.125, 0.125, 0.125))
    assert found.p == 1 / 1000
    assert comparison.estimate(row, F1).hi - comparison.estimate(row, F1).lo > 0.1
    back = comparison.difference(row, shifted, F1)
    assert (back.value, back.lo, back.hi) == pytest.approx((-0.125, -0.125, -0.125))
    assert back.p == found.p


def test_p_is_twice_the_share_on_the_wrong_side():
    # Differences -0.25 and 0.75: a quarter of the resamples holds the first image alone.
    found = Comparison(resamples=4000).difference(row_of({(0, "a"): [0.25, 1]}), row_of({(0, "a"): [0.5, 0.25]}), F1)
    assert (found.value, found.lo, found.hi) == (0.25, -0.25, 0.75)
    assert found.p == pytest.approx(0.5, abs=0.04)
    # Here that image makes no difference: a difference of zero speaks against one, too.
    zero = Comparison(resamples=4000).difference(row_of({(0, "a"): [0.5, 1]}), row_of({(0, "a"): [0.5, 0.25]}), F1)
    assert zero.p == pytest.approx(0.5, abs=0.04)


def test_the_same_errors_by_other_seeds_make_no_difference():
    one = row_of({(0, "a"): [1, 0, 0], (1, "a"): [1, 1, 0], (2, "a"): [0, 0, 0]}, ERROR.key)
    other = row_of({(0, "a"): [1, 1, 0], (1, "a"): [0, 0, 0], (2, "a"): [1, 0, 0]}, ERROR.key)
    found = Comparison(resamples=300).difference(one, other, ERROR)
    assert (found.value, found.p) == (0.0, 1.0)
    assert found.lo < 0 < found.hi


def test_only_seeds_and_folds_of_both_are_compared():
    row = row_of({(0, "a"): [0.5, 0.5], (1, "a"): [0.9, 0.9], (0, "b"): [0.1]})
    other = row_of({(0, "a"): [0.25, 0.25], (2, "a"): [0.0, 0.0], (1, "b"): [0.7]})
    found = Comparison(resamples=200).difference(row, other, F1)
    assert (found.value, found.cells, found.n) == (0.25, ((0, "a"),), 2)
    assert Comparison(resamples=200).difference(row, row_of({(3, "a"): [1, 1]}), F1) is None


def test_only_images_measured_in_both_are_compared():
    row, other = row_of({(0, "a"): [0.5, NAN, 0.75, 0.25]}), row_of({(0, "a"): [0.25, 0.9, NAN, 0.0]})
    comparison = Comparison(resamples=200)
    assert (comparison.estimate(row, F1).value, comparison.estimate(row, F1).n) == (0.5, 3)
    found = comparison.difference(row, other, F1)
    assert (found.value, found.lo, found.hi, found.n) == (0.25, 0.25, 0.25, 2)


def test_what_is_not_trained_stands_beside_every_seed():
    floor = row_of({(0, "a"): [0.25, 0.5], (0, "b"): [0.75]}, supervision="none")
    row = row_of({(s, f): v for s in (3, 4) for f, v in (("a", [0.5, 0.75]), ("b", [1.0]))})
    found = Comparison(resamples=200).difference(row, floor, F1)
    assert (found.value, found.lo, found.hi) == pytest.approx((0.25, 0.25, 0.25))
    assert len(found.cells) == 4


def test_a_row_without_the_measure_has_no_value():
    row = row_of({(0, "a"): [0.5, 0.25]})
    assert Comparison(resamples=50).estimate(row, PXAP) is None
    assert Comparison(resamples=50).difference(row, row, PXAP) is None
    nothing = row_of({(0, "a"): [NAN, NAN]})
    assert Comparison(resamples=50).estimate(nothing, F1) is None
    assert Comparison(resamples=50).difference(row, nothing, F1) is None


def test_resamples_without_a_value_are_left_out():
    # The area under the curve needs both classes; a third of the resamples holds no image of the single negative.
    auc = MEASURES["roc_auc"]
    rows = [[1, 1 - p, p] for p in (0.9, 0.8, 0.3, 0.7)] + [[0, 0.5, 0.5]]
    found = Comparison(resamples=600).estimate(row_of({(0, "a"): rows}, auc.key), auc)
    assert (found.value, found.hi) == (0.75, 1)
    assert 0 <= found.lo < 0.75


def test_comparison_same_name_in_two_groups_stays_apart():
    row = row_of({(0, "a"): [0.5, 0.25]})
    twin = dataclasses.replace(row, runs=row_of({(0, "a"): [0.75, 1.0]}).runs)
    comparison = Comparison(resamples=50)
    assert [comparison.estimate(one, F1).value for one in (row, twin)] == [0.375, 0.875]
    assert comparison.difference(twin, row, F1).value == 0.5


def test_comparison_too_few_valid_resamples_give_no_interval():
    def mostly_undefined(rows, weights):
        values = (weights @ rows)[:, 0] / weights.sum(axis=1)
        return np.where((weights == 1).all(axis=1), values, NAN)

    measure = dataclasses.replace(F1, aggregate=mostly_undefined)
    row, other = row_of({(0, "a"): [0.5, 0.25, 0.75]}), row_of({(0, "a"): [0.25, 0.25, 0.25]})
    found = Comparison(resamples=400).estimate(row, measure)
    assert found.value == 0.5
    assert math.isnan(found.lo)
    assert math.isnan(found.hi)
    assert math.isnan(Comparison(resamples=400).difference(row, other, measure).p)


def test_resamples_are_measured_in_portions_of_the_same_draws():
    row = row_of({(0, "a"): np.random.default_rng(3).random(5)})
    whole = Comparison(resamples=1203).estimate(row, F1)
    draws = np.random.default_rng(0).multinomial(5, np.full(5, 0.2), size=1203)
    means = draws @ row.runs[0, "a"].rows[F1.key][:, 0] / 5
    assert (whole.lo, whole.hi) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, NAN])
def test_a_level_that_is_none_is_refused(level):
    with pytest.raises(ConfigError, match="no coverage of an interval"):
        Comparison(level=level)


def test_holms_correction():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    corrected = holm([0.02, NAN, 0.03])
    assert corrected[0] == pytest.approx(0.04)
    assert math.isnan(corrected[1])
