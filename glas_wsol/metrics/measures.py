# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Define the measures: from one row per image to one figure of a set, however often each image counts.

A *row* holds what one image adds to a figure, so that every figure of the set, and of any set redrawn from it, comes
from the rows alone. Weights of one give the plain figure; weights drawn from a multinomial are a bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from glas_wsol.metrics.bins import BINS, mass_bins

__all__ = ["MEASURES", "Measure"]

Aggregate = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Measure:
    """A figure of a set of images.

    Attributes:
        key: its name in files and settings.
        title: its name in tables.
        unit: ``"%"`` (values in [0, 1], shown times 100) or ``"px"``.
        higher_is_better: False for errors and distances.
        needs: ``"class"`` (class probabilities), ``"mask"`` (a truth mask) or ``"box"`` (an official box).
        oracle: True if a threshold is chosen on the evaluated images themselves: only shown in a table of its own.
        aggregate: of rows ``[N, k]`` and weights ``[R, N]``, at least 0 (how often each image counts), the values
            ``[R]``. A row with any entry that is not a number is left out; where nothing is left, or what is left
            does not define the figure (one class only, no foreground), the value is not a number.
        reflected: True where chance in the choice of images can only add to the figure, as it does to a sum of absolute
            differences: its intervals are reflected.
    """

    key: str
    title: str
    unit: str
    higher_is_better: bool
    needs: str
    oracle: bool
    aggregate: Aggregate
    reflected: bool = False


def _of_measured(aggregate: Aggregate) -> Aggregate:
    """Remove rows that are not numbers, and weightings that leave no image, before any measure."""

    def checked(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        rows, weights = np.asarray(rows, dtype=np.float64), np.asarray(weights, dtype=np.float64)
        values = np.full(len(weights), np.nan)
        if rows.size == 0:
            return values
        measured = ~np.isnan(rows).any(axis=1)
        rows, weights = rows[measured], weights[:, measured]
        drawn = weights.sum(axis=1) > 0
        if drawn.any():
            values[drawn] = aggregate(rows, weights[drawn])
        return values

    return checked


def _ratio(a: np.ndarray, b: np.ndarray, otherwise: float | np.ndarray) -> np.ndarray:
    """``a / b``, and another value where ``b`` is 0."""
    return np.where(b > 0, a / np.where(b > 0, b, 1), otherwise)


def _mean_row(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ rows / weights.sum(axis=1, keepdims=True)


def _mean(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rows ``[value]``, or several that count alike: the mean over the images."""
    return _mean_row(rows, weights).mean(axis=1)


MULTI_LABEL = -1.0
"""First entry of a row, in place of a label, where the image may have several classes."""


def _of_several(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows ``[MULTI_LABEL, y_1 .. y_c, v_1 .. v_c]``: where each class is present, and a value of each; else None."""
    if not (rows[:, 0] == MULTI_LABEL).all():
        return None
    present, values = np.split(rows[:, 1:], 2, axis=1)
    return present > 0, values


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """The mean over ``[c, R]`` without NaN; NaN where nothing else is left."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0), np.nan)


def _balanced_error(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rows ``[label, wrong]``: 1 - the mean recall of the classes that are present.

    Of several classes, rows ``[MULTI_LABEL, y_1 .. y_c, wrong_1 .. wrong_c]``: the same of "k" and "not k" for each
    class k, then the mean over the classes.
    """
    parts = _of_several(rows)
    if parts is not None:
        both = [np.stack([here, wrong], axis=1) for here, wrong in zip(parts[0].T, parts[1].T, strict=True)]
        return np.mean([_balanced_error(each, weights) for each in both], axis=0)
    of_class = rows[:, :1] == np.unique(rows[:, 0])
    images = weights @ of_class
    error = _ratio(weights @ (of_class * rows[:, 1:2]), images, 0.0)
    return error.sum(axis=1) / (images > 0).sum(axis=1)


def _roc_auc(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rows ``[label, p_1 .. p_c]``: how often a positive image scores above a negative one; ties count half.

    Two classes: class 1 is positive. More: each class against all others, and the mean over those that have both. Of
    several classes, rows ``[MULTI_LABEL, y_1 .. y_c, p_1 .. p_c]``: the mean over the classes that some images have and
    others have not.
    """
    parts = _of_several(rows)
    if parts is None:
        probabilities = rows[:, 1:]
        present = rows[:, :1] == np.arange(probabilities.shape[1])
        if probabilities.shape[1] == 2:
            present, probabilities = present[:, 1:], probabilities[:, 1:]
    else:
        present, probabilities = parts
    areas = []
    for positive, scores in zip(present.T, probabilities.T, strict=True):
        # Negatives below each positive, by one sort: of hundreds of classes the pairs would be too many.
        order = np.flatnonzero(~positive)[np.argsort(scores[~positive], kind="stable")]
        below = np.cumsum(np.pad(weights[:, order], ((0, 0), (1, 0))), axis=1)
        low, high = (np.searchsorted(scores[order], scores[positive], side=side) for side in ("left", "right"))
        won = (weights[:, positive] * (below[:, low] + below[:, high]) / 2).sum(axis=1)
        pairs = weights[:, positive].sum(axis=1) * weights[:, ~positive].sum(axis=1)
        areas.append(_ratio(won, pairs, np.nan))
    return _mean_of_defined(np.array(areas))


def _calibration_error(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rows ``[confidence, correct]``: mean over bins of equal mass of ``|mean confidence - share correct|``.

    Of several classes, rows ``[confidence_1 .. confidence_c, correct_1 .. correct_c]``: every class is a case.
    """
    confidence, correct = (part.ravel() for part in np.split(rows, 2, axis=1))
    weights = np.repeat(weights, rows.shape[1] // 2, axis=1)
    bins, gaps = mass_bins(confidence, weights), confidence - correct
    sums = [(weights * (bins == place)) @ gaps for place in range(BINS)]
    return np.abs(sums).sum(axis=0) / weights.sum(axis=1)


def _mask_calibration_error(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rows ``[3 * BINS]``, per bin of the score its pixels, their scores' sum and how many are true foreground, pooled.

    The mean over pixels of their bin's ``|mean score - share of foreground|``.
    """
    pixels, scores, foreground = (weights @ rows).reshape(len(weights), 3, BINS).transpose(1, 0, 2)
    return np.abs(scores - foreground).sum(axis=1) / pixels.sum(axis=1)


def _pixel_average_precision(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rows of two histograms, of the scores in the true foreground and in the background, lowest bin first.

    The pixels of all images are pooled. Each bin's lower edge is a threshold; from the highest to the lowest,
    ``sum_l Prec(t_l) (Rec(t_l) - Rec(t_(l-1)))``. Without any foreground, not a number.
    """
    bins = rows.shape[1] // 2
    highest_first = (weights @ rows).reshape(-1, 2, bins)[:, :, ::-1]
    foreground = highest_first[:, 0]
    true, false = np.cumsum(highest_first, axis=2).transpose(1, 0, 2)
    total = true[:, -1]
    return _ratio((_ratio(true, true + false, 0.0) * foreground).sum(axis=1), total, np.nan)


def _object_f1(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rows ``[true positives, false positives, false negatives]``, pooled; 1 if no object is true or found."""
    true, false, missed = (weights @ rows).T
    return _ratio(2 * true, 2 * true + false + missed, 1.0)


def _of_both_sides(nothing: float) -> Aggregate:
    """Rows ``[sum over true objects of area x value, their area, the same two over the found objects]``, pooled.

    Half of the mean over each side, weighted by area. A side without any object in the whole set leaves its half to
    the other side; where neither has one, the value is ``nothing``.
    """

    def aggregate(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        true, true_area, found, found_area = (weights @ rows).T
        of_true, of_found = _ratio(true, true_area, np.nan), _ratio(found, found_area, np.nan)
        of_true, of_found = (
            np.where(np.isnan(of_true), of_found, of_true),
            np.where(np.isnan(of_found), of_true, of_found),
        )
        return np.nan_to_num((of_true + of_found) / 2, nan=nothing)

    return aggregate


def _max_box_accuracy(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rows ``[T * 3]``, hit (1) or not (0) per threshold and IoU: the best threshold of each IoU, then their mean."""
    shares = _mean_row(rows, weights).reshape(len(weights), -1, 3)
    return shares.max(axis=1).mean(axis=1)


def _oracle_region(region: int) -> Aggregate:
    """Rows ``[T * 2]``, F1+ and F1- per threshold: one of them at the threshold of the best mean of both."""

    def aggregate(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        both = _mean_row(rows, weights).reshape(len(weights), -1, 2)
        # Rounded, so that equal means stay equal (the lowest threshold wins) whatever the order of summation.
        best = np.round(both.mean(axis=2), 12).argmax(axis=1)
        return both[np.arange(len(both)), best, region]

    return aggregate


def _measure(
    key: str, title: str, needs: str, aggregate: Aggregate, *, unit: str = "%", lower: bool = False
) -> tuple[str, Measure]:
    oracle = key.startswith(("max_", "oracle_"))
    reflected = key.endswith("calibration_error")
    return key, Measure(key, title, unit, not lower, needs, oracle, _of_measured(aggregate), reflected)


MEASURES: Mapping[str, Measure] = MappingProxyType(
    dict(
        (
            _measure("classification_error", "error", "class", _mean, lower=True),
            _measure("balanced_error", "balanced error", "class", _balanced_error, lower=True),
            _measure("roc_auc", "AUROC", "class", _roc_auc),
            _measure("calibration_error", "calibration error", "class", _calibration_error, lower=True),
            _measure("f1_foreground", "F1+", "mask", _mean),
            _measure("f1_background", "F1-", "mask", _mean),
            _measure("pixel_average_precision", "PxAP", "mask", _pixel_average_precision),
            _measure("object_f1", "object F1", "mask", _object_f1),
            _measure("object_dice", "object Dice", "mask", _of_both_sides(1.0)),
            _measure("object_hausdorff", "object Hausdorff", "mask", _of_both_sides(0.0), unit="px", lower=True),
            _measure("box_accuracy", "BoxAccV2", "mask", _mean),
            _measure("official_box_accuracy", "BoxAccV2, official boxes", "box", _mean),
            _measure("largest_box_accuracy", "box at IoU 0.5, official boxes", "box", _mean),
            _measure("inside_box", "mask inside the official box", "box", _mean),
            _measure("box_covered", "official box covered", "box", _mean),
            _measure("mask_calibration_error", "mask calibration error", "mask", _mask_calibration_error, lower=True),
            _measure("max_box_accuracy", "MaxBoxAccV2", "mask", _max_box_accuracy),
            _measure("max_official_box_accuracy", "MaxBoxAccV2, official boxes", "box", _max_box_accuracy),
            _measure("oracle_f1_foreground", "oracle F1+", "mask", _oracle_region(0)),
            _measure("oracle_f1_background", "oracle F1-", "mask", _oracle_region(1)),
        )
    )
)
"""Every measure by its key, as printed. Rows, besides those described at the functions above:
classification_error ``[wrong]``, f1_foreground and f1_background ``[Dice]``, box_accuracy and official_box_accuracy
``[hit at IoU .3, .5, .7]``, largest_box_accuracy ``[hit]``, inside_box and box_covered ``[share]``.
"""
