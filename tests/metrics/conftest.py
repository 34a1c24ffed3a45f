# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Metrics as they run: attached to MONAI's evaluator, fed with lists of items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import State
from ignite.metrics import Metric
from monai.engines import SupervisedEvaluator
from scipy.ndimage import gaussian_filter
from torch import nn

from glas_wsol.results.localization import Localization


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


def item(
    soft: Any,
    truth: Any = None,
    objects: Any = None,
    *,
    evidence: bool = True,
    probabilities: Sequence[float] | None = None,
    label: int = 0,
) -> dict[str, Any]:
    """An evaluated item: a soft map, and where given a truth, the true objects' numbers and class probabilities."""
    decidable = np.asarray(soft, dtype=np.float32)
    found = Localization(
        name="a",
        path="",
        classes=("x", "y"),
        probabilities=() if probabilities is None else tuple(probabilities),
        decidable=decidable,
        evidence=evidence,
    )
    made: dict[str, Any] = {"localization": found, "label": label}
    if truth is not None:
        made["truth"] = torch.from_numpy(np.asarray(truth, dtype=bool)[None])
    if objects is not None:
        made["truth_objects"] = np.asarray(objects, dtype=np.int32)
    if probabilities is not None:
        made["probabilities"] = torch.tensor(probabilities)
    return made


def smooth_map(random: np.random.Generator, shape: tuple[int, int], scale: float = 1.0) -> np.ndarray:
    """Blobs on ``[H, W]``, float32 in [0, 1], about half of it above 0.5."""
    values = gaussian_filter(random.random(shape), scale)
    return ((values - np.median(values)) / np.ptp(values) + 0.5).clip(0, 1).astype(np.float32)
