# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Metrics as they run: attached to MONAI's evaluator, fed with lists of items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ignite.engine import State
from ignite.metrics import Metric
from monai.engines import SupervisedEvaluator
from torch import nn


def evaluate(
    metrics: dict[str, Metric], batches: Sequence[list[dict[str, Any]]], handlers: Sequence[Any] = ()
) -> State:
    """The state after one validation; the first metric decides, each batch is what postprocessing left of it."""
    first, *others = metrics
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=list(batches),
        network=nn.Identity(),
        iteration_update=lambda _, batch: batch,
        key_val_metric={first: metrics[first]},
        additional_metrics={name: metrics[name] for name in others},
        val_handlers=list(handlers),
    )
    evaluator.run()
    return evaluator.state
