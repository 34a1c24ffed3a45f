# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""F1+, F1- and PxAP against counts written out, the floors, and the oracle against every threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from glas_wsol.errors import ConfigError
from glas_wsol.metrics import OracleRegionF1, PixelAveragePrecision, RegionF1
from tests.metrics import conftest
from tests.metrics.conftest import evaluate, smooth_map


def item(mask, truth=None, evidence: bool = True) -> dict:
    return conftest.item(np.where(np.asarray(mask, bool), 0.75, 0.25), truth, evidence=evidence)


def scores(batches: list[list[dict]]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Both regions and their floors: means, and values per image."""
    metrics = {
        f"{floor}{r}": RegionF1(r, floor or None) for r in ("foreground", "background") for floor in ("", "all_ones")
    }
    state = evaluate(metrics, batches)
    return state.metrics, {name: v.flatten().tolist() for name, v in state.metric_details.items()}


def direct(a: np.ndarray, b: np.ndarray) -> float:
    """F1 from true positives, false positives and false negatives."""
    tp, fp, fn = np.sum(a & b), np.sum(a & ~b), np.sum(~a & b)
    return 1.0 if tp + fp + fn == 0 else 2 * tp / (2 * tp + fp + fn)


def test_by_hand():
    mask = [[1, 1, 0], [1, 0, 0]]
    truth = [[1, 1, 1], [0, 1, 0]]
    # foreground: 2 true, 1 false, 2 missed: 4 / 7; background: 1 true, 2 false, 1 missed: 2 / 5
    # a mask of ones: 4 true, 2 false, 0 missed: 8 / 10; background: 0 true, 2 missed: 0
    means, _ = scores([[item(mask, truth)]])
    expected = {"foreground": 4 / 7, "background": 2 / 5, "all_onesforeground": 0.8, "all_onesbackground": 0.0}
    assert means == pytest.approx(expected, rel=1e-6)


def test_means_are_over_images_of_any_size_and_not_over_pixels():
    random = np.random.default_rng(0)
    pairs = [(random.random(size) < 0.4, random.random(size) < 0.6) for size in [(7, 13), (31, 5), (64, 33), (2, 3)]]
    items = [item(mask, truth) for mask, truth in pairs]
    fore = [direct(m, t) for m, t in pairs]
    back = [direct(~m, ~t) for m, t in pairs]
    floor = [2 * t.sum() / (t.sum() + t.size) for _, t in pairs]
    for batches in ([items], [items[:1], items[1:]], [[one] for one in items]):
        means, details = scores(batches)
        assert details["foreground"] == pytest.approx(fore, rel=1e-6)
        assert details["background"] == pytest.approx(back, rel=1e-6)
        assert details["all_onesforeground"] == pytest.approx(floor, rel=1e-6)
        assert means["foreground"] == pytest.approx(np.mean(fore), rel=1e-6)
        assert means["background"] == pytest.approx(np.mean(back), rel=1e-6)
        assert means["all_onesbackground"] == 0


@pytest.mark.parametrize(
    ("mask", "truth", "foreground", "background"),
    [
        ([[0, 0, 0]], [[0, 0, 0]], 1.0, 1.0),  # 0/0 of the foreground
        ([[1, 1, 1]], [[1, 1, 1]], 1.0, 1.0),  # 0/0 of the background
        ([[1, 0, 0]], [[0, 0, 0]], 0.0, 0.8),  # absent from the truth only
        ([[0, 0, 0]], [[0, 1, 0]], 0.0, 0.8),  # absent from the mask only
        ([[1, 1, 1]], [[0, 0, 0]], 0.0, 0.0),
        ([[0, 1, 1]], [[0, 1, 1]], 1.0, 1.0),
    ],
)
def test_empty_regions(mask, truth, foreground, background):
    means, _ = scores([[item(mask, truth)]])
    assert (means["foreground"], means["background"]) == pytest.approx((foreground, background))


def test_a_tile_without_evidence_is_measured_as_an_empty_mask():
    means, _ = scores([[item([[1, 1, 0]], [[1, 1, 0]], evidence=False)]])
    assert (means["foreground"], means["background"]) == pytest.approx((0, 0.5))


@pytest.mark.parametrize("alone", [False, True])
def test_images_without_truth_are_left_out(alone):
    with_truth = [item([[1, 0, 0]], [[1, 1, 0]]), item([[0, 1, 0]], [[0, 1, 0]])]
    without = item([[1, 1, 1]])
    items = [without, with_truth[0], without, with_truth[1]]
    means, details = scores([[one] for one in items] if alone else [items])
    assert details["foreground"] == pytest.approx([2 / 3, 1])
    assert means["foreground"] == pytest.approx(5 / 6)


def test_without_any_truth_the_value_is_not_a_number():
    means, details = scores([[item([[1, 0]])], [item([[0, 0]]), item([[1, 1]])]])
    assert all(math.isnan(value) for value in means.values())
    assert details == {}


def test_a_mask_of_ones_scores_the_dice_of_the_foregrounds_share():
    random = np.random.default_rng(4)
    truths = [random.random(size) < share for size, share in [((8, 15), 0.2), ((21, 6), 0.9), ((4, 4), 0.5)]]
    means, _ = scores([[item(np.ones_like(t), t) for t in truths]])
    shares = [t.mean() for t in truths]
    assert (
        means["foreground"] == means["all_onesforeground"] == pytest.approx(np.mean([2 * p / (1 + p) for p in shares]))
    )
    assert means["background"] == means["all_onesbackground"] == 0


def soft_items(seed: int, digits: int = 9) -> list[dict]:
    """Three images of different sizes and one without evidence."""
    random = np.random.default_rng(seed)
    items = []
    for shape, evidence in [((13, 22), True), ((31, 5), True), ((8, 8), False), ((17, 29), True)]:
        soft = smooth_map(random, shape, 1.5).round(digits)
        truth = soft + random.normal(0, 0.2, shape) > 0.6
        items.append(conftest.item(soft, truth, evidence=evidence))
    return items


def arrays(items: list[dict]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Soft map, 0 without evidence, and truth."""
    return [
        (one["localization"].decidable.astype(float) * one["localization"].evidence, one["truth"][0].numpy())
        for one in items
    ]


def direct_average_precision(scores: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> float:
    area, recall_before = 0.0, 0.0
    for t in np.sort(thresholds)[::-1]:
        mask = scores >= t
        if mask.any():
            recall = (mask & truth).sum() / truth.sum()
            area += (mask & truth).sum() / mask.sum() * (recall - recall_before)
            recall_before = recall
    return area


@pytest.mark.parametrize("seed", range(3))
def test_pixel_average_precision_is_sum_over_all_thresholds(seed):
    items = soft_items(seed)
    pooled = [np.concatenate([part.ravel() for part in parts]) for parts in zip(*arrays(items), strict=True)]
    expected = direct_average_precision(*pooled, np.arange(1001) / 1000)
    every_score = direct_average_precision(*pooled, np.unique(pooled[0]))
    of_images = np.mean([direct_average_precision(s, t, np.arange(1001) / 1000) for s, t in arrays(items)])
    for batches in ([items], [[one] for one in items]):
        got = evaluate({"m": PixelAveragePrecision()}, batches).metrics["m"]
        assert got == pytest.approx(expected, rel=1e-12)
    assert got == pytest.approx(every_score, abs=2e-3)  # a thousand thresholds are nearly all
    assert abs(got - of_images) > 5e-3, "pooling must have mattered"


def test_pixel_average_precision_on_grid_equals_sorting():
    items = soft_items(7, digits=3)  # three decimals: as float32 on either side of k / 1000
    pooled = [np.concatenate([part.ravel() for part in parts]) for parts in zip(*arrays(items), strict=True)]
    expected = direct_average_precision(*pooled, np.arange(1001) / 1000)
    assert evaluate({"m": PixelAveragePrecision()}, [items]).metrics["m"] == pytest.approx(expected, rel=1e-12)


def test_pixel_average_precision_by_hand():
    # from the top: right, wrong, two right at once, wrong: 1 * 1/3 + 0 + 3/4 * 2/3
    one = conftest.item([[0.9, 0.8, 0.3], [0.3, 0.0, 1.0]], [[0, 0, 1], [1, 0, 1]])
    rest = conftest.item([[0.8, 0.3], [0.3, 0.0]], [[0, 1], [1, 0]])
    top = conftest.item([[1.0]], [[1]])
    assert evaluate({"m": PixelAveragePrecision()}, [[rest, top]]).metrics["m"] == pytest.approx(1 / 3 + 0.75 * 2 / 3)
    # and with one more wrong in the second place: 1 * 1/3 + 3/5 * 2/3
    assert evaluate({"m": PixelAveragePrecision()}, [[one]]).metrics["m"] == pytest.approx(1 / 3 + 0.6 * 2 / 3)


def test_pixel_average_precision_constant_is_share_perfect_one():
    truth = np.random.default_rng(0).random((9, 14)) < 0.3
    for soft, expected in [(np.ones(truth.shape), truth.mean()), (truth * 0.4 + 0.1, 1.0), (1.0 - truth, truth.mean())]:
        state = evaluate({"m": PixelAveragePrecision()}, [[conftest.item(soft, truth)]])
        assert state.metrics["m"] == pytest.approx(expected)
        assert state.metric_details["m"].shape == (1, 2002)
    assert math.isnan(evaluate({"m": PixelAveragePrecision()}, [[conftest.item(truth, truth * 0)]]).metrics["m"])


@pytest.mark.parametrize("seed", range(3))
def test_the_oracle_is_the_threshold_with_the_best_mean_of_both(seed):
    items = soft_items(seed)
    curves = np.mean(
        [[(direct(s >= k / 100, t), direct(s < k / 100, ~t)) for k in range(101)] for s, t in arrays(items)], axis=0
    )
    best = curves[curves.mean(axis=1).argmax()]
    state = evaluate({"plus": OracleRegionF1("foreground"), "minus": OracleRegionF1("background")}, [items])
    assert (state.metrics["plus"], state.metrics["minus"]) == pytest.approx(tuple(best), rel=1e-12)
    assert state.metrics["plus"] + state.metrics["minus"] > curves[50].sum(), "better than the fixed threshold"
    assert state.metric_details["plus"].numpy() == pytest.approx(state.metric_details["minus"].numpy())
    assert state.metric_details["plus"].mean(dim=0).numpy() == pytest.approx(curves.ravel(), rel=1e-12)


@pytest.mark.parametrize("metric", [PixelAveragePrecision, OracleRegionF1])
def test_soft_maps_without_truth_are_left_out(metric):
    items = soft_items(1)
    without = conftest.item([[0.1, 0.9]])
    assert (
        evaluate({"m": metric()}, [[without, *items], [without]]).metrics == evaluate({"m": metric()}, [items]).metrics
    )
    assert math.isnan(evaluate({"m": metric()}, [[without]]).metrics["m"])


@pytest.mark.parametrize("options", [{"region": "glands"}, {"floor": "zeros"}])
def test_another_word_is_refused(options):
    with pytest.raises(ConfigError, match="choose"):
        RegionF1(**options)
    with pytest.raises(ConfigError, match="choose foreground"):
        OracleRegionF1("glands")
