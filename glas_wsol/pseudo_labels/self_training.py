# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs rounds of self-training: the network's most certain pixels are the seeds of its next round."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from torch import nn

from glas_wsol.data.seeded import SeededCacheDataset
from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.pseudo_labels.colour_evidence import correct_all_by_colour
from glas_wsol.pseudo_labels.feature_components import Transform
from glas_wsol.pseudo_labels.seed_files import (
    MADE_WITH,
    read_record,
    require_same,
    with_seeds,
    write_record,
    write_seeds,
)
from glas_wsol.pseudo_labels.seeds import IGNORE, SEEDS, agreement, pick_seeds
from glas_wsol.pseudo_labels.teachers import log_odds
from glas_wsol.transforms.reading import read_mask
from glas_wsol.utils import distributed
from glas_wsol.writers.drawing import write_png

__all__ = ["SelfTraining"]

logger = logging.getLogger(__name__)

_MASKS = "masks"


class SelfTraining:
    """Rounds of self-training: after each, the network's own most certain pixels are the seeds of the next.

    It ends when the rounds are done, or when the masks of the training images no longer change: no pixel label is
    needed to see that. Seeds and masks stay on disk, a folder per round, so that an interrupted run resumes with
    them. After a round its record has:

    * ``loss``: of the last epoch;
    * ``student_agrees``: kappa of the network's mask and the seeds it learnt from, over all seeds of all images;
    * ``same_as_before``: kappa of its mask and that after the round before, over all pixels; null after the first.

    Of several processes the first does all this between two rounds, and the others wait.

    Give it to :class:`~glas_wsol.handlers.RunCheckpoint` as ``early_stop``: a run that has ended stays ended.

    Args:
        network: the network in training.
        dataset: its training data, whose items are replaced.
        items: training items with ``image`` and ``name``, the seeds of the first round with them.
        transform: reads an item for prediction: ``image`` to ``[3, H, W]`` in [0, 1].
        inferer: brings it to the training resolution; its views of an image are averaged.
        directory: where seeds are written, a folder per round; that of the first is there.
        epochs: of a round.
        rounds: at most.
        share: see :func:`~glas_wsol.pseudo_labels.seeds.pick_seeds`.
        scope: see :func:`~glas_wsol.pseudo_labels.seeds.pick_seeds`.
        tolerance: it has converged when ``same_as_before`` is above 1 minus this. Defaults to 0.05.
        by_colour: whether seeds are corrected by the colours of an object and its background, see
            :func:`~glas_wsol.pseudo_labels.colour_evidence.correct_by_colour`. Defaults to False.

    Raises:
        ConfigError: if there is no round, or none of its epochs.
    """

    def __init__(
        self,
        network: nn.Module,
        dataset: SeededCacheDataset,
        items: Sequence[Mapping[str, Any]],
        transform: Transform,
        inferer: WholeTileInferer,
        directory: str | Path,
        epochs: int,
        rounds: int = 1,
        share: float | Sequence[float] = 0.3,
        scope: str = "dataset",
        tolerance: float = 0.05,
        by_colour: bool = False,
    ) -> None:
        if rounds < 1 or epochs < 1:
            raise ConfigError(f"{rounds} rounds of {epochs} epochs", "self-training", "give at least one of each")
        self.network, self.dataset, self.items = network, dataset, list(items)
        self.transform, self.inferer, self.directory = transform, inferer, Path(directory)
        self.epochs, self.rounds, self.share, self.scope = epochs, rounds, share, scope
        self.tolerance, self.by_colour = tolerance, by_colour
        self.reached = False
        self._round = 1

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handler that validates and before the one that saves."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._take_up)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.epochs), self._teach)

    def state_dict(self) -> dict[str, Any]:
        """Whether it has converged."""
        return {"reached": self.reached}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where :meth:`state_dict` stopped."""
        self.reached = bool(state["reached"])

    def _folder(self, number: int) -> Path:
        return self.directory / f"round_{number}"

    def _made_with(self, number: int) -> dict[str, Any]:
        """Settings that make a later round's seeds: those of the first round, with this network as teacher."""
        first = read_record(self._folder(1)) or {MADE_WITH: {}}
        own = {"teachers": {"student": 1.0}, "seed_share": self.share, "seed_scope": self.scope}
        own["refine_epochs"] = self.epochs
        return {**first[MADE_WITH], **own, "round": number}

    def _take_up(self, engine: Engine) -> None:
        number = (engine.state.epoch - 1) // self.epochs + 1
        if number == self._round:
            return
        folder = self._folder(number)
        record = read_record(folder)
        if record is None:
            fix = "restore them, or choose another output_dir"
            raise OutputError(f"the seeds of round {number} are not here", folder, fix)
        require_same(folder, record, self._made_with(number))
        self.dataset.set_data(with_seeds(self.items, folder))
        self._round = number

    def _teach(self, engine: Engine) -> None:
        self.reached = distributed.on_main(lambda: self._seeds_of_next(engine))
        if self.reached:
            engine.terminate()

    def _seeds_of_next(self, engine: Any) -> bool:
        """Look at the training images, and write what the next round learns; True where there is nothing more to."""
        done = engine.state.epoch // self.epochs
        device, loss = engine.state.device, float(engine.state.metrics.get("loss", math.nan))
        what = f"what round {done} sees"
        scores = log_odds(self.network, self.items, self.transform, self.inferer, device, what)
        masks = [one > 0 for one in scores]
        folder = self._folder(done)
        same = self._same(masks, self._folder(done - 1)) if done > 1 else None
        (folder / _MASKS).mkdir(exist_ok=True)
        for item, mask in zip(self.items, masks, strict=True):
            write_png(folder / _MASKS / f"{item['name']}.png", mask)
        found = {"loss": loss if math.isfinite(loss) else None, "same_as_before": same}
        found["student_agrees"] = self._agrees(masks, folder)
        write_record(folder, {**(read_record(folder) or {MADE_WITH: {}}), **found})
        if done == self.rounds:
            return False
        if same is not None and same > 1 - self.tolerance:
            logger.info("the masks of rounds %d and %d are nearly the same (kappa %.3f): done", done - 1, done, same)
            return True
        sources = [item.get("source") for item in self.items]
        seeds = pick_seeds({"student": scores}, self.share, self.scope, sources=sources)
        seeds = correct_all_by_colour(seeds, self.items, self.transform) if self.by_colour else seeds
        write_seeds(self._folder(done + 1), self.items, seeds, {MADE_WITH: self._made_with(done + 1)})
        return False

    def _same(self, masks: Sequence[np.ndarray], folder: Path) -> float:
        """Over the pixels of all images: for a single image with one value everywhere, kappa is undefined."""
        before = [read_mask(folder / _MASKS / f"{item['name']}.png") > 0 for item in self.items]
        return agreement(_pooled(masks), _pooled(before))

    def _agrees(self, masks: Sequence[np.ndarray], folder: Path) -> float | None:
        """On seeds only: other pixels have no pseudo-label."""
        seeds = [read_mask(item[SEEDS]) for item in with_seeds(self.items, folder)]
        on = [one != IGNORE for one in seeds]
        pairs = [(mask[here], one[here] > IGNORE) for mask, one, here in zip(masks, seeds, on, strict=True)]
        student, teacher = (_pooled(one) for one in zip(*pairs, strict=True))
        return agreement(student, teacher) if len(student) else None


def _pooled(masks: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([one.ravel() for one in masks])
