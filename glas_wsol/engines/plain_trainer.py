# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Train every method but min-max entropy: one forward, one loss, one step."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

import torch
from ignite.metrics import Average
from monai.engines import SupervisedTrainer

from glas_wsol.engines.prepare_batch import ImageLabels
from glas_wsol.errors import ConfigError

__all__ = ["PlainTrainer", "loss_means", "lower_is_better"]


class PlainTrainer(SupervisedTrainer):
    """MONAI's trainer with the settings of this package: mean losses are logged, and mixed precision is bfloat16.

    Args:
        passes: null, as the overlays of these methods set it: nothing is erased.
        amp_kwargs: of ``torch.autocast``.
        kwargs: further arguments of ``SupervisedTrainer``. ``prepare_batch`` defaults to images and image labels.

    Raises:
        ConfigError: if ``passes`` is given.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable,
        passes: None = None,
        amp_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if passes is not None:
            raise ConfigError(f"passes={passes}", "train#trainer", "leave it out: this method erases nothing")
        defaults = {"prepare_batch": ImageLabels(), "key_train_metric": loss_means(device)}
        defaults |= {"metric_cmp_fn": lower_is_better, "decollate": False, "optim_set_to_none": True}
        super().__init__(
            device, max_epochs, train_data_loader, amp_kwargs={"dtype": torch.bfloat16, **(amp_kwargs or {})},
            **{**defaults, **kwargs},
        )  # fmt: skip


def loss_means(device: str | torch.device, *terms: str) -> dict[str, Average]:
    """Metrics of a trainer: the means over an epoch of these keys of its output; without any, of its loss."""
    return {term: Average(itemgetter(term), device) for term in terms or ("loss",)}


def lower_is_better(current: float, best: float) -> bool:
    """How losses compare."""
    return current < best
