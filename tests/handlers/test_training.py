# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Seeds, early stopping, a finite loss and the lines of a training run."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from ignite.engine import Engine
from monai.data import DistributedSampler
from monai.transforms import Compose, RandGaussianNoised

from glas_wsol.data.seeded import SeededCacheDataset
from glas_wsol.errors import ConfigError, NumericalError
from glas_wsol.handlers import EarlyStop, EpochProgress, EpochSeed, EpochSummary, StopOnNonFiniteLoss


def draws(seed: int, first_epoch: int = 0, last_epoch: int = 3) -> dict[int, tuple]:
    """What is drawn in each epoch: by torch, in the order of the samples, and by the augmentation."""
    found = {}
    data = [{"image": torch.zeros(1, 3, 5)} for _ in range(7)]
    dataset = SeededCacheDataset(data, Compose([RandGaussianNoised("image", prob=1.0)]), seed)
    sampler = DistributedSampler(dataset, even_divisible=True, num_replicas=1, rank=0, shuffle=True, seed=seed)

    def step(engine: Engine, _: int) -> None:
        noise = torch.cat([torch.as_tensor(dataset[index]["image"]).flatten() for index in range(2)])
        found[engine.state.epoch] = (torch.rand(3).tolist(), list(sampler), noise.tolist())

    trainer = Engine(step)
    trainer.state.epoch = first_epoch
    trainer.state.max_epochs = last_epoch
    EpochSeed(seed, [dataset, sampler]).attach(trainer)
    trainer.run([0], max_epochs=last_epoch)
    return found


def test_the_same_seed_draws_the_same_whatever_was_drawn_before():
    first = draws(4)
    torch.rand(17)
    assert draws(4) == first
    assert len(first) == 3


def test_an_epoch_taken_up_later_draws_what_it_would_have_drawn():
    whole, resumed = draws(4), draws(4, first_epoch=2)
    assert list(resumed) == [3]
    assert resumed[3] == whole[3]


@pytest.mark.parametrize("part", [0, 1, 2])
def test_epochs_and_seeds_differ_in_every_part(part):
    first, other = draws(4), draws(40)
    values = [first[epoch][part] for epoch in (1, 2, 3)] + [other[1][part]]
    assert all(a != b for i, a in enumerate(values) for b in values[:i])


class Run:
    """A trainer whose evaluator's key metric follows a script."""

    def __init__(self, scores: list[float], patience: int, interval: int = 1, first_epoch: int = 0) -> None:
        self.scores, self.epochs = scores, 0
        self.evaluator = Engine(lambda *_: None)
        self.evaluator.state.key_metric_name = "score"
        self.trainer = Engine(self._step)
        self.stop = EarlyStop(patience, self.evaluator, interval)
        self.stop.attach(self.trainer)
        self.trainer.state.epoch = first_epoch
        self.trainer.state.max_epochs = len(scores)

    def _step(self, engine: Engine, _: int) -> None:
        self.epochs = engine.state.epoch
        self.evaluator.state.metrics = {"score": self.scores[engine.state.epoch - 1], "other": engine.state.epoch}

    def go(self, until: int | None = None) -> int:
        """The last epoch run."""
        self.trainer.run([0], max_epochs=until or len(self.scores))
        return self.epochs


@pytest.mark.parametrize(
    ("scores", "patience", "last"),
    [
        ([1, 2, 1, 1, 9, 9], 2, 4),  # two epochs without a rise over 2
        ([1, 2, 2, 2, 9, 9], 2, 4),  # staying equal is no rise
        ([1, 2, 1, 3, 2, 2], 2, 6),  # a rise starts the count anew
        ([5, 1, 1, 1, 1, 1], 1, 2),
        ([5, 1, 1, 1, 1, 1], 0, 6),  # 0 never stops
        ([-3.4, -3.2, -3.3, -2.9, -3, -3], 2, 6),
    ],
)
def test_training_without_improvement_stops_after_patience(scores, patience, last):
    assert Run(scores, patience).go() == last


def test_epochs_without_a_validation_do_not_count():
    assert Run([1, 2, 2, 2, 2, 2, 2, 2], patience=2, interval=2).go() == 6


def test_the_count_and_the_best_score_survive_saving_and_loading():
    scores = [1, 5, 4, 3, 3, 3, 3, 3]
    first = Run(scores, patience=3)
    first.go(until=3)
    saved = first.stop.state_dict()
    resumed = Run(scores, patience=3, first_epoch=3)
    resumed.stop.load_state_dict(saved)
    assert resumed.go() == Run(scores, patience=3).go() == 5
    forgetful = Run(scores, patience=3, first_epoch=3)
    assert forgetful.go() == 7


def test_without_patience_there_is_no_state():
    run = Run([1, 1], patience=0)
    run.go()
    assert run.stop.state_dict() == {}
    run.stop.load_state_dict({})
    run.stop.load_state_dict(Run([1], patience=2).stop.state_dict())


def test_negative_patience_is_refused():
    with pytest.raises(ConfigError, match="give 0"):
        EarlyStop(-1, Engine(lambda *_: None))


def losses(values: list[float], every: int = 1) -> int:
    """Iterations run."""
    trainer = Engine(lambda _, value: {"loss": torch.tensor(value)})
    StopOnNonFiniteLoss(every).attach(trainer)
    trainer.run(values, max_epochs=1)
    return trainer.state.iteration


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_in_one_line(bad):
    with pytest.raises(NumericalError) as caught:
        losses([0.5, 1e30, bad, 0.5])
    assert "\n" not in str(caught.value)
    assert "epoch 1, iteration 3" in str(caught.value)
    assert "learning rate" in caught.value.fix


def test_finite_losses_pass_and_looks_can_be_rarer():
    assert losses([0.5, 0.0, -1e30]) == 3
    assert losses([0.5, math.nan, 0.5], every=4) == 3
    with pytest.raises(NumericalError):
        losses([0.5, math.nan, 0.5, math.nan], every=2)


def test_the_summary_is_one_line_per_epoch(caplog):
    evaluator = Engine(lambda *_: None)
    evaluator.state.metrics, evaluator.state.best_metric_epoch = {"selection_score": -3.25}, 7
    trainer = Engine(lambda *_: None)
    EpochSummary(evaluator).attach(trainer)
    trainer.state.metrics = {"loss": 1.23456789}
    with caplog.at_level(logging.INFO, "glas_wsol"):
        trainer.run([0], max_epochs=2)
    assert [record.getMessage() for record in caplog.records] == [
        f"epoch {epoch} of 2: loss 1.235; validation: selection_score -3.25; best: epoch 7" for epoch in (1, 2)
    ]


def test_the_progress_bar_shows_every_epoch(capsys):
    trainer = Engine(lambda _, value: {"loss": value})
    EpochProgress("training, epoch").attach(trainer)
    trainer.run([0.25, 0.125], max_epochs=2)
    said = capsys.readouterr().err
    assert "training, epoch" in said
    assert "2/2" in said
