# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Object measures against the challenge's formulas, pair by pair, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from glas_wsol.metrics import ObjectDice, ObjectF1, ObjectHausdorff
from tests.metrics.conftest import evaluate, item, smooth_map
from tests.metrics.test_shapes import direct as direct_hausdorff


def measured(items: list[dict]) -> tuple[float, float, float]:
    state = evaluate({"f1": ObjectF1(), "dice": ObjectDice(), "hausdorff": ObjectHausdorff()}, [items])
    return tuple(state.metrics[k] for k in ("f1", "dice", "hausdorff"))


def masks_of(labels: np.ndarray) -> list[np.ndarray]:
    return [labels == k for k in np.unique(labels) if k]


def dice(a: np.ndarray, b: np.ndarray | None) -> float:
    return 0.0 if b is None else 2 * np.sum(a & b) / (a.sum() + b.sum())


def most_overlapping(a: np.ndarray, others: list[np.ndarray]) -> np.ndarray | None:
    shared = [np.sum(a & b) for b in others]
    return others[int(np.argmax(shared))] if others and max(shared) else None


def hausdorff(a: np.ndarray, others: list[np.ndarray]) -> float:
    partner = most_overlapping(a, others)
    if partner is not None:
        return direct_hausdorff(a, partner)
    return min((direct_hausdorff(a, b) for b in others), default=math.hypot(*a.shape))


def literal(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float, float]:
    """F1, object Dice and object Hausdorff distance as the challenge writes them: of label maps (truth, found)."""
    true_positives, objects = 0, {"G": [], "S": []}
    for truth, found in pairs:
        G, S = masks_of(truth), masks_of(found)
        detected = set()
        for s in S:
            g = most_overlapping(s, G)
            if g is not None and np.sum(s & g) >= 0.5 * g.sum():
                detected.add(next(i for i, other in enumerate(G) if other is g))
        true_positives += len(detected)
        objects["G"] += [(g.sum(), dice(g, most_overlapping(g, S)), hausdorff(g, S)) for g in G]
        objects["S"] += [(s.sum(), dice(s, most_overlapping(s, G)), hausdorff(s, G)) for s in S]
    false_positives, false_negatives = len(objects["S"]) - true_positives, len(objects["G"]) - true_positives
    precision = true_positives / (true_positives + false_positives)
    recall = true_positives / (true_positives + false_negatives)
    f1 = 2 * precision * recall / (precision + recall) if true_positives else 0.0
    gamma, sigma = ([area / sum(o[0] for o in objects[side]) for area, _, _ in objects[side]] for side in "GS")
    halves = [
        sum(w * o[of] for w, o in zip(gamma, objects["G"], strict=True))
        + sum(w * o[of] for w, o in zip(sigma, objects["S"], strict=True))
        for of in (1, 2)
    ]
    return f1, halves[0] / 2, halves[1] / 2


@pytest.mark.parametrize("seed", range(8))
def test_they_are_the_challenges_formulas(seed):
    random = np.random.default_rng(seed)
    pairs, items = [], []
    for shape in [(31, 47), (52, 20), (17, 90)]:
        soft = smooth_map(random, shape, random.choice([1, 2]))
        # Truth: another map, or a like one; its parts numbered out of order, and neighbours melted into one.
        like = smooth_map(random, shape, 2) if random.random() < 0.5 else np.roll(soft, 2, axis=1)
        parts = ndimage.label(like > 0.55, structure=np.ones((3, 3)))[0]
        numbers = np.concatenate([[0], random.permutation(parts.max()) // 2 * 7 + 3])
        truth = numbers[parts]
        found = ndimage.label(soft >= 0.5, structure=np.ones((3, 3)))[0]
        pairs.append((truth, found))
        items.append(item(soft, truth > 0, truth))
    assert measured(items) == pytest.approx(literal(pairs), rel=1e-10)


def test_a_perfect_mask():
    truth = np.zeros((20, 33), dtype=int)
    truth[2:6, 3:9], truth[10:15, 20:31], truth[12:18, 2:5] = 4, 2, 9
    assert measured([item(truth > 0, truth > 0, truth)]) == (1, 1, 0)


def test_objects_that_leave_no_background():
    truth = np.full((7, 12), 5)
    truth[:, 9:] = 2
    # One found object of 84: it is the true one of 63 detected; that of 21 is missed.
    f1, overlap, distance = measured([item(truth > 0, truth > 0, truth)])
    assert f1 == pytest.approx(2 / 3)
    assert overlap == pytest.approx(((63 * 126 / 147 + 21 * 42 / 105) / 84 + 126 / 147) / 2)
    assert distance == pytest.approx(((63 * 3 + 21 * 9) / 84 + 3) / 2)


def test_touching_glands_found_as_one():
    truth = np.zeros((12, 30), dtype=int)
    truth[2:6, 3:9], truth[2:6, 9:11] = 1, 2  # 24 and 8 pixels, side by side
    f1, overlap, distance = measured([item(truth > 0, truth > 0, truth)])
    # One found object of 32: it is object 1 detected; object 2 is missed.
    assert f1 == pytest.approx(2 / 3)
    of_true = (24 * (2 * 24 / 56) + 8 * (2 * 8 / 40)) / 32
    assert overlap == pytest.approx((of_true + 2 * 24 / 56) / 2)
    assert distance == pytest.approx(((24 * 2 + 8 * 6) / 32 + 2) / 2)
    # Without numbers the truth is one part, too.
    assert measured([item(truth > 0, truth > 0)]) == (1, 1, 0)


def test_all_missing_and_all_invented():
    truth = np.zeros((30, 40), dtype=int)
    truth[2:6, 3:9], truth[20:24, 9:11] = 1, 2
    assert measured([item(truth * 0, truth > 0, truth)]) == (0, 0, 50)
    assert measured([item(truth > 0, truth * 0, truth * 0)]) == (0, 0, 50)
    assert measured([item(truth * 0, truth * 0, truth * 0)]) == (1, 1, 0)
    assert measured([item(truth > 0, truth > 0, truth, evidence=False)]) == (0, 0, 50)


def test_one_gland_split_in_two():
    truth = np.zeros((10, 25), dtype=int)
    truth[3:5, 2:22] = 1  # 2 x 20
    mask = truth > 0
    mask[:, 14] = False  # found: 2 x 12 and 2 x 7
    f1, overlap, distance = measured([item(mask, truth > 0, truth)])
    assert f1 == pytest.approx(2 / 3)  # one right, one false, none missed
    dices = [2 * 24 / 64, 2 * 14 / 54]
    assert overlap == pytest.approx((dices[0] + (24 * dices[0] + 14 * dices[1]) / 38) / 2)
    # the gland's far end is 8 columns from the larger part (13 to 21), 13 from the smaller (2 to 15)
    assert distance == pytest.approx((8 + (24 * 8 + 14 * 13) / 38) / 2)


def test_half_of_the_gland_is_enough_and_once_only():
    truth = np.zeros((6, 30), dtype=int)
    truth[1:3, 4:14] = 1
    half = (truth > 0) & (np.arange(30) < 9)
    assert measured([item(half, truth > 0, truth)])[0] == 1
    less = (truth > 0) & (np.arange(30) < 8)
    assert measured([item(less, truth > 0, truth)])[0] == 0
    # Two halves of one object, apart: its number is one, its parts are two.
    apart = np.zeros((6, 30), dtype=int)
    apart[1:3, 4:9] = apart[1:3, 15:20] = 1
    assert measured([item(apart > 0, apart > 0, apart)])[0] == pytest.approx(2 / 3)  # one right, one false


def test_objects_are_pooled_over_images():
    large, small = np.zeros((10, 40), dtype=int), np.zeros((10, 14), dtype=int)
    large[1:9, 2:32] = 1  # 240, found
    small[2:4, 3:8] = 1  # 10, not found: the diagonal is sqrt(296)
    items = [item(large > 0, large > 0, large), item(small * 0, small > 0, small)]
    f1, overlap, distance = measured(items)
    assert f1 == pytest.approx(2 / 3)
    assert overlap == pytest.approx((240 / 250 + 1) / 2)
    assert distance == pytest.approx((10 * math.sqrt(296) / 250 + 0) / 2)


@pytest.mark.parametrize("metric", [ObjectF1, ObjectDice, ObjectHausdorff])
def test_images_without_truth_are_left_out(metric):
    truth = np.zeros((9, 12), dtype=int)
    truth[2:5, 3:9] = 1
    with_truth, without = item(truth[::-1], truth > 0, truth), item(truth)
    assert evaluate({"m": metric()}, [[without], [with_truth]]).metrics["m"] == metric_of(metric, with_truth)
    assert math.isnan(evaluate({"m": metric()}, [[without]]).metrics["m"])


def metric_of(metric: type, one: dict) -> float:
    return evaluate({"m": metric()}, [[one]]).metrics["m"]
