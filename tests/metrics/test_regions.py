# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""F1+ and F1- against counts written out, a direct Dice, and the floors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from glas_wsol.errors import ConfigError
from glas_wsol.localization import Localization
from glas_wsol.metrics import RegionF1
from tests.metrics.conftest import evaluate


def item(mask, truth=None, evidence: bool = True) -> dict:
    decidable = np.where(np.asarray(mask, bool), 0.75, 0.25).astype(np.float32)
    found = Localization("a", "", ("x", "y"), (0.5, 0.5), decidable, evidence)
    return {"localization": found} | ({} if truth is None else {"truth": torch.tensor(np.asarray(truth, bool)[None])})


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


@pytest.mark.parametrize("options", [{"region": "glands"}, {"floor": "zeros"}])
def test_another_word_is_refused(options):
    with pytest.raises(ConfigError, match="choose"):
        RegionF1(**options)
