# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Turn an evaluator's items into one row per image, gathered over ranks, and into one figure."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, cast

import ignite.distributed as idist
import numpy as np
import torch
from ignite.metrics.metric import reinit__is_reduced
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric
from monai.utils import evenly_divisible_all_gather
from torch import Tensor

from glas_wsol.errors import ConfigError
from glas_wsol.metrics.measures import MEASURES

__all__ = ["MeasureMetric", "RowMetric"]

RowOf = Callable[[MutableMapping[str, Any]], Sequence[float] | np.ndarray | None]


class _Rows(CumulativeIterationMetric):
    """One row per image, and a figure of them all; unlike in MONAI's own, a rank may have measured nothing."""

    def __init__(self, value_of: Callable[[np.ndarray], float]) -> None:
        super().__init__()
        self.value_of = value_of

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        return y_pred

    def _sync(self) -> None:
        if self._synced:
            return
        rows = torch.stack(self._buffers[0]) if self._buffers else None
        if idist.get_world_size() > 1:
            # Every rank takes part, or the others would wait for ever: one without rows gets their width first.
            width = int(idist.all_reduce(0 if rows is None else rows.shape[1], "MAX"))
            if width:
                rows = torch.empty((0, width), dtype=torch.float64) if rows is None else rows
                rows = evenly_divisible_all_gather(rows, concat=True).cpu()
        self._synced_tensors = None if rows is None else [rows]
        self._synced = True

    def aggregate(self) -> Tensor | None:
        rows = cast("Tensor | None", self.get_buffer())
        return None if rows is None else torch.tensor(self.value_of(rows.numpy()), dtype=torch.float64)


class RowMetric(IgniteMetricHandler):
    """A figure of one row per image; ``engine.state.metric_details[name]`` holds the rows ``[n, k]``, float64.

    Under distributed evaluation the rows of all ranks are gathered, in the order of the ranks: that of the data set,
    where each has a run of neighbours (:func:`~glas_wsol.utils.distributed.rank_slice`).

    Args:
        row_of: an item's row, all of one length, or None if it has nothing to measure by: it is left out. A row of NaN
            belongs to an item that has, and that the figure leaves out.
        value_of: the figure of the rows ``[n, k]``.
        empty: the figure where no item could be measured. Defaults to not a number.
    """

    def __init__(self, row_of: RowOf, value_of: Callable[[np.ndarray], float], empty: float = float("nan")) -> None:
        self.row_of, self.empty = row_of, empty
        super().__init__(metric_fn=_Rows(value_of), output_transform=self._rows)

    def _rows(self, output: Sequence[MutableMapping[str, Any]]) -> Tensor:
        rows = [row for row in map(self.row_of, output) if row is not None]
        return torch.from_numpy(np.asarray(rows, dtype=np.float64).reshape(len(rows), -1 if rows else 0))

    @reinit__is_reduced
    def update(self, output: Tensor) -> None:
        """Add rows. ``output``: ``[n, k]``; n may be 0."""
        if len(output):
            self.metric_fn(output)

    def compute(self) -> float:
        """The figure of all images of all ranks."""
        if self.metric_fn.get_buffer() is None:
            self._is_reduced = True
            return self.empty
        return float(super().compute())


class MeasureMetric(RowMetric):
    """A measure as an Ignite metric.

    Args:
        key: of `glas_wsol.metrics.MEASURES`.
        row_of: an item's row of that measure, or None if it cannot be measured.
    """

    def __init__(self, key: str, row_of: RowOf) -> None:
        if key not in MEASURES:
            raise ConfigError(f"measure {key!r}", type(self).__name__, f"choose one of {', '.join(MEASURES)}")
        self.measure = MEASURES[key]
        super().__init__(row_of, self._value)

    def _value(self, rows: np.ndarray) -> float:
        return float(self.measure.aggregate(rows, np.ones((1, len(rows))))[0])
