# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Handlers for training: seeds, early stopping, check of a finite loss, progress bar."""

from __future__ import annotations

import logging
import math
from typing import Any, Protocol, cast

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping, ProgressBar
from monai.handlers import TensorBoardStatsHandler
from monai.utils.enums import CommonKeys as Keys

from glas_wsol.data.seeded import mix_seeds
from glas_wsol.errors import ConfigError, NumericalError
from glas_wsol.utils import distributed

__all__ = ["EarlyStop", "EpochProgress", "EpochSeed", "EpochSummary", "StopOnNonFiniteLoss", "TensorBoardCurves"]

logger = logging.getLogger(__name__)


class _Seeded(Protocol):
    def set_epoch(self, epoch: int) -> None: ...


class EpochSeed:
    """Makes epochs of what has ``set_epoch`` a function of (seed, epoch): a resumed run draws what another would."""

    def __init__(self, seed: int, seeded: list[_Seeded]) -> None:
        self.seed, self.seeded = seed, seeded

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed torch (dropout) and the datasets and samplers (augmentation, order) for the epoch that begins."""
        epoch = engine.state.epoch - 1
        torch.manual_seed(mix_seeds(self.seed, epoch, distributed.rank()))  # the first draws as one alone would
        for one in self.seeded:
            one.set_epoch(epoch)


class EarlyStop:
    """Stops training when the evaluator's key metric has not risen for a number of validations (Ignite's rule).

    Unlike MONAI's ``EarlyStopHandler`` it is attached to the trainer it stops, so that a config needs no circle of
    references, and its state is saved with the run.

    Args:
        patience: validations without a rise before stopping; 0 never stops.
        evaluator: the engine whose ``state.metrics[state.key_metric_name]`` is read.
        interval: epochs between two validations. Defaults to 1.

    Raises:
        ConfigError: if ``patience`` is negative.
    """

    def __init__(self, patience: int, evaluator: Engine, interval: int = 1) -> None:
        if patience < 0:
            raise ConfigError(f"patience={patience}", "EarlyStop", "give 0 to never stop early")
        self.patience, self.interval = patience, interval
        self.evaluator: Any = evaluator  # MONAI adds to Ignite's state
        self.handler: EarlyStopping | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handler that validates."""
        if self.patience:
            self.handler = EarlyStopping(self.patience, self._score, engine)
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self.handler)

    def _score(self, _: Engine) -> float:
        state = self.evaluator.state
        return state.metrics[state.key_metric_name]

    @property
    def reached(self) -> bool:
        """Whether training has been stopped, in this process or before it was resumed."""
        return self.handler is not None and self.handler.counter >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Validations without a rise so far, and the best score."""
        return dict(self.handler.state_dict()) if self.handler else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where :meth:`state_dict` stopped."""
        if self.handler and state:
            self.handler.load_state_dict(state)


class EpochSummary:
    """One log line per epoch: the means of the loss and its terms, the validation, and which epoch is best so far."""

    def __init__(self, evaluator: Engine) -> None:
        self.evaluator: Any = evaluator  # MONAI adds to Ignite's state

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handler that validates."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Log the line."""
        state, validation = engine.state, self.evaluator.state
        logger.info(
            "epoch %d of %d: %s; validation: %s; best: epoch %d",
            state.epoch,
            state.max_epochs,
            _line(state.metrics),
            _line(validation.metrics) or "none yet",
            max(validation.best_metric_epoch, 0),
        )


def _line(metrics: dict[str, float]) -> str:
    return ", ".join(f"{k} {float(v):.4g}" for k, v in metrics.items() if math.isfinite(v) or k == "loss")


class StopOnNonFiniteLoss:
    """Raises when the loss is not finite, before any checkpoint of that epoch is written.

    Once a loss is not finite, neither are the weights, so checking the last loss of an epoch is enough. Several
    processes stop together.

    Args:
        every: look after every so many iterations too; each look waits for the device. Defaults to 0, never.
    """

    def __init__(self, every: int = 0) -> None:
        self.every = every

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, before the handler that validates."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        if self.every:
            engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.every), self)

    def __call__(self, engine: Engine) -> None:
        """Look at the loss; a NumericalError if it is not a finite number."""
        loss = float(distributed.mean(cast("Any", engine.state.output)[Keys.LOSS].detach()))
        if not math.isfinite(loss):
            raise NumericalError(
                f"the loss is {loss}",
                f"epoch {engine.state.epoch}, iteration {engine.state.iteration}",
                "lower the learning rate or switch amp off; the checkpoints of earlier epochs are unchanged",
            )


class EpochProgress:
    """A progress bar per epoch, with an estimate of the time left; of several processes the first shows its own."""

    def __init__(self, description: str = "epoch") -> None:
        layout = "{desc} {percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
        self.bar = ProgressBar(persist=True, bar_format=layout, desc=description)

    def attach(self, engine: Engine) -> None:
        """Attach to any engine."""
        if distributed.is_main():
            self.bar.attach(engine)


class TensorBoardCurves:
    """Writes the metrics of every epoch for TensorBoard; of several processes the first does."""

    def __init__(self, log_dir: str) -> None:
        self.log_dir = log_dir

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer or an evaluator."""
        if distributed.is_main():
            TensorBoardStatsHandler(log_dir=self.log_dir, iteration_log=False).attach(engine)
