# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Computes values, bootstrap intervals and paired differences of methods, on the same resamples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from glas_wsol.errors import ConfigError
from glas_wsol.experiments.tables.groups import Cell, MethodRuns
from glas_wsol.metrics.bootstrap import redraw, reflect, share_interval
from glas_wsol.metrics.measures import Measure

__all__ = ["RESAMPLES", "Comparison", "Difference", "Estimate", "holm"]

RESAMPLES = 4999
"""The smallest p is 1/5000: Holm's correction for the 78 pairs of 13 methods still leaves it below 0.05."""

_AT_ONCE = 500  # resamples in memory: a measure may unfold each of them to thousands of numbers
_ZERO = 1e-12  # a difference below this is rounding: the same errors, added up in another order


@dataclass(frozen=True)
class Estimate:
    """One measure of one method.

    Attributes:
        value: mean over seeds of the measure on the images of all folds of that seed.
        lo: lower bound of the interval; NaN where fewer than half of the resamples have a value.
        method: how the interval was made: ``"bootstrap"``, ``"reflected bootstrap"`` or ``"wilson"``.
        n: number of different images it was measured on.
        by_seed: the measure of each seed.
    """

    value: float
    lo: float
    hi: float
    method: str
    n: int
    by_seed: Mapping[int, float]


@dataclass(frozen=True)
class Difference:
    """One measure of one method minus that of another, on the seeds, folds and images that both have.

    Attributes:
        p: two-sided: twice the share of resamples that are zero or of the other sign, at least ``1 / (resamples + 1)``.
        n: number of different images compared.
    """

    value: float
    lo: float
    hi: float
    p: float
    n: int
    cells: tuple[Cell, ...]


class Comparison:
    """Two-level percentile bootstrap (Efron, 1979), crossed as in Owen's pigeonhole bootstrap (2007).

    One resample draws as many images as there are, with replacement, and as many seeds as there are, with
    replacement; every seed drawn is measured on the same images drawn, and so is every method. An image that several
    folds or seeds evaluated counts equally often in all of them: two predictions of one image are not two images.

    Args:
        level: coverage wanted, above 0 and below 1. Defaults to 0.95.
    """

    def __init__(self, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> None:
        if not 0 < level < 1:
            raise ConfigError(f"{level} is no coverage of an interval", "level", "use a number such as 0.95")
        self.level, self.resamples, self.seed = level, resamples, seed
        self._image_draws = cache(lambda n: redraw(n, self.resamples, self.seed))
        self._seed_draws = cache(self._draw_seeds)
        self._kept: dict[tuple, tuple[float, np.ndarray]] = {}

    def estimate(self, method: MethodRuns, measure: Measure) -> Estimate | None:
        """The method's value with its interval; None where it has none.

        Where every image is classified right, or every one wrong, by every seed, no resample can hold anything else
        and the bootstrap's interval would have no width: there it is Wilson's, of one training's images.
        """
        data = _data(method, sorted(method.runs), measure.key)
        if data is None:
            return None
        by_seed, drawn = self._measured(data, measure)
        value, n = float(np.mean(list(by_seed.values()))), data.count()
        if math.isnan(value):
            return None
        if measure.key == "classification_error" and value in (0.0, 1.0):
            lo, hi = share_interval([value] * n, self.level)
            return Estimate(value, lo, hi, "wilson", n, by_seed)
        bounds = self._bounds(drawn)
        if measure.reflected and not math.isnan(bounds[0]):
            return Estimate(value, *reflect(value, *bounds), "reflected bootstrap", n, by_seed)
        return Estimate(value, *bounds, "bootstrap", n, by_seed)

    def difference(self, method: MethodRuns, other: MethodRuns, measure: Measure) -> Difference | None:
        """``method`` minus ``other``, each image, seed and fold of one against the same of the other.

        Only seeds and folds that both have are compared, and only images that were measured in both. A method that is
        not trained has no seed: its run of a fold is compared with that of any seed.

        Returns:
            None where there is nothing in common.
        """
        cells = tuple(sorted(c for c in method.runs.keys() | other.runs.keys() if method.at(c) and other.at(c)))
        found = [_data(one, cells, measure.key) for one in (method, other)] if cells else []
        both = [one for one in found if one is not None]
        if len(both) < 2:
            return None
        absent = both[0].absent() | both[1].absent()
        both = [one._replace(values=np.where(absent[:, None], np.nan, one.values)) for one in both]
        measured = [self._measured(one, measure) for one in both]
        value, against = (float(np.mean(list(by_seed.values()))) for by_seed, _ in measured)
        difference = value - against
        if math.isnan(difference):
            return None
        difference = 0.0 if abs(difference) < _ZERO else difference
        drawn = measured[0][1] - measured[1][1]
        drawn = np.where(np.abs(drawn) < _ZERO, 0.0, drawn)
        lo, hi = self._bounds(drawn)
        wrong = drawn[~np.isnan(drawn)] * np.sign(difference) <= 0  # all of them where the difference is 0
        p = math.nan if math.isnan(lo) else min(1.0, max(1 / (self.resamples + 1), 2 * float(wrong.mean())))
        return Difference(difference, lo, hi, p, both[0].count(), cells)

    def _measured(self, data: _Data, measure: Measure) -> tuple[dict[int, float], np.ndarray]:
        """The measure of each seed, and of each resample, ``[resamples]``."""
        names, places = np.unique(data.names, return_inverse=True)
        seeds = np.unique(data.seeds)
        by_seed, drawn = {}, np.empty((len(seeds), self.resamples))
        for i, seed in enumerate(seeds):
            values, columns = (part[data.seeds == seed] for part in (data.values, places))
            # A comparison is of many pairs, and most of them need the same values on the same draws.
            digest = hashlib.sha256(values.tobytes() + columns.tobytes()).digest()
            key = (measure, len(names), values.shape, digest)
            if key not in self._kept:
                self._kept[key] = self._of_one_seed(measure, values, self._image_draws(len(names))[:, columns])
            by_seed[int(seed)], drawn[i] = self._kept[key]
        return by_seed, drawn[self._seed_draws(len(seeds)), np.arange(self.resamples)].mean(axis=0)

    def _of_one_seed(self, measure: Measure, values: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        plain = float(measure.aggregate(values, np.ones((1, len(values))))[0])
        portions = np.split(weights, range(_AT_ONCE, self.resamples, _AT_ONCE))
        return plain, np.concatenate([measure.aggregate(values, portion) for portion in portions])

    def _draw_seeds(self, n: int) -> np.ndarray:
        """Which of n seeds are drawn, ``[n, resamples]``."""
        return np.random.default_rng([self.seed, 1]).integers(n, size=(n, self.resamples))

    def _bounds(self, drawn: np.ndarray) -> tuple[float, float]:
        known = drawn[~np.isnan(drawn)]
        if 2 * len(known) < len(drawn):
            return math.nan, math.nan
        tail = (1 - self.level) / 2
        lo, hi = np.quantile(known, [tail, 1 - tail])
        return float(lo), float(hi)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction for several comparisons (1979), in the same order, at most 1; NaN stays and is not counted."""
    known = sorted((p, i) for i, p in enumerate(ps) if not math.isnan(p))
    corrected, largest = list(ps), 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[i] = largest
    return corrected


class _Data(NamedTuple):
    """What some runs measured, one after the other: of each image the seed ``[N]``, name ``[N]`` and row ``[N, k]``."""

    seeds: np.ndarray
    names: np.ndarray
    values: np.ndarray

    def absent(self) -> np.ndarray:
        return np.asarray(np.isnan(self.values).any(axis=1))

    def count(self) -> int:
        return len(np.unique(self.names[~self.absent()]))


def _data(method: MethodRuns, cells: Sequence[Cell], key: str) -> _Data | None:
    """The values of each cell; a run that was not measured has NaN; None where no run was."""
    runs = [run for run in map(method.at, cells) if run is not None]  # the method has each of them
    width = max((run.rows[key].shape[1] for run in runs if key in run.rows), default=0)
    if not width:
        return None
    values = [run.rows.get(key, np.full((len(run.names), width), np.nan)) for run in runs]
    seeds = np.repeat([seed for seed, _ in cells], [len(run.names) for run in runs])
    return _Data(seeds, np.concatenate([run.names for run in runs]), np.concatenate(values))
