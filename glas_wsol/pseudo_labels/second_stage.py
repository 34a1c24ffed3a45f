# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Trains the second stage: a light decoder on the frozen first stage, in rounds of self-training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.handlers import LrScheduleHandler, ValidationHandler
from monai.inferers import Inferer
from monai.transforms import Compose, LoadImaged
from torch import Tensor
from tqdm import tqdm

from glas_wsol.data.seeded import SeededCacheDataset, training_loader
from glas_wsol.engines.fault_tolerant_evaluator import TileEvaluator
from glas_wsol.engines.plain_trainer import PlainTrainer
from glas_wsol.engines.prepare_batch import ImageLabels
from glas_wsol.errors import ConfigError
from glas_wsol.handlers import (
    EpochProgress,
    EpochSeed,
    EpochSummary,
    RunCheckpoint,
    SharedTraining,
    StopOnNonFiniteLoss,
    TrainingClock,
)
from glas_wsol.inferers import TrainingInferer, WholeTileInferer
from glas_wsol.metrics import ClassificationError, CrossEntropy, Temperature
from glas_wsol.networks.base import choose
from glas_wsol.networks.component_network import FeatureComponentNetwork
from glas_wsol.networks.frozen_norm import freeze, measure_statistics
from glas_wsol.networks.refined import RefinedNetwork
from glas_wsol.pseudo_labels.feature_components import Transform, read_image
from glas_wsol.pseudo_labels.seeds import SEEDS, PartialCrossEntropy, SeedBatch
from glas_wsol.pseudo_labels.self_training import SelfTraining
from glas_wsol.pseudo_labels.teachers import check_teachers, first_seeds
from glas_wsol.utils import distributed
from glas_wsol.utils.json_files import read_json
from glas_wsol.utils.subjects import OBJECTS

__all__ = ["SecondStage"]


@dataclass(kw_only=True)
class SecondStage:
    """Trains a refined network; its network refuses unsupported settings when it is made, before any stage is trained.

    Args:
        network: the network to refine, on its device.
        first_stage: folder with the first stage's ``model.pt``; it must be there when :meth:`run` is called.
        directory: receives the checkpoints and, in ``seeds``, the pseudo-labels of every round.
        data: training items: images and image labels, no mask.
        reading: reads an image for training; bytes, so that they fit in memory.
        augmentation: what follows in training, for ``image`` and ``seeds``.
        transform: reads an image for prediction, ``[3, H, W]`` in [0, 1].
        inferer: brings it to the training resolution, for the teachers.
        components: the teacher of evidence-oriented features.
        component_inferer: its own inferer, of several views.
        validation_loader: the first stage's.
        validation_inferer: the first stage's.
        postprocessing: the first stage's.
        card: entries of ``model.json``, JSON values.
        recipe: what must be the same for it to be resumed, JSON values; the digest of the first stage is added.
        teachers: whose pixels are pseudo-labels, and with what weight.
        share: of all pixels on each side, see :func:`~glas_wsol.pseudo_labels.seeds.pick_seeds`.
        scope: see :func:`~glas_wsol.pseudo_labels.seeds.pick_seeds`.
        softness: see :class:`~glas_wsol.pseudo_labels.seeds.PartialCrossEntropy`.
        epochs: of a round.
        rounds: most rounds.
        tolerance: see :class:`~glas_wsol.pseudo_labels.self_training.SelfTraining`.
        batch_size: images per step, of all processes.
        lr: first learning rate of the decoder; a cosine to 0 in every round.
        weight_decay: of the decoder.
        decoder_norm: ``"frozen"`` (default): after the first epoch the statistics of the decoder's group normalisation
            are frozen to their means over the training images, and the rest of the training learns with them; the
            mask is then local. ``"tile"``: they are those of each tile.
        seed: of order and augmentation.
        device: where to compute.
        data_device: where the training images are stored and augmented.
        num_workers: processes that read images.
        amp: mixed precision in training.
        amp_kwargs: of ``torch.autocast``.
        fused: whether the optimiser's step is one operation.
        copy_cache: see MONAI's ``CacheDataset``.
        resume: see :class:`~glas_wsol.handlers.RunCheckpoint`.
        handlers: further handlers of the trainer.
    """

    network: RefinedNetwork
    first_stage: str | Path
    directory: str | Path
    data: Sequence[Mapping[str, Any]]
    reading: Transform
    augmentation: Compose
    transform: Transform
    inferer: WholeTileInferer
    components: FeatureComponentNetwork
    component_inferer: WholeTileInferer
    validation_loader: Iterable
    validation_inferer: Inferer
    postprocessing: Transform
    card: Mapping[str, Any]
    recipe: Mapping[str, Any]
    teachers: Mapping[str, float]
    share: float | Sequence[float]
    scope: str
    softness: float
    epochs: int
    rounds: int
    batch_size: int
    lr: float
    tolerance: float = 0.05
    weight_decay: float = 1e-4
    decoder_norm: str = "frozen"
    seed: int = 0
    device: str | torch.device = "cpu"
    data_device: str | torch.device = "cpu"
    num_workers: int = 0
    amp: bool = False
    amp_kwargs: Mapping[str, Any] = field(default_factory=dict)
    fused: bool = False
    copy_cache: bool = False
    resume: bool = True
    handlers: Sequence[Any] = ()

    def __post_init__(self) -> None:
        check_teachers(self.teachers)
        for name, least in (("tolerance", -math.inf), ("weight_decay", 0)):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= least):
                fix = "give a number" if least else "give a number from 0"
                raise ConfigError(f"{name}={value!r} is not valid", "second_stage", fix)
        choose("decoder_norm", self.decoder_norm, ("frozen", "tile"))

    def run(self) -> None:
        """Generate pseudo-labels with the teachers, then train; called again, resume where it stopped."""
        self.trainer.run()

    @cached_property
    def trainer(self) -> PlainTrainer:
        """The trainer, made when the first stage is there: the pseudo-labels of the first round are made with it."""
        first, own = Path(self.first_stage), Path(self.directory)
        items = first_seeds(
            self.network, first / "model.pt", self.components, self.data, self.transform, self.inferer, own / "seeds",
            self.teachers, self.share, self.scope, self.component_inferer, self.device,
        )  # fmt: skip
        read_seeds = LoadImaged(
            SEEDS, reader="glas_wsol.transforms.TileReader", mode="mask", ensure_channel_first=True, dtype=np.uint8
        )
        augmented = Compose([self.reading, read_seeds, self.augmentation])
        dataset = SeededCacheDataset(items, augmented, self.seed, self.data_device, copy_cache=self.copy_cache)
        loader = training_loader(dataset, self.batch_size, self.seed, self.num_workers, "refine_batch_size")
        groups = self.network.parameter_groups(0.0, self.lr)
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay, fused=self.fused)
        steps = self.epochs * len(loader)
        schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=steps)
        evaluator = self._evaluator()
        rounds = SelfTraining(
            self.network, dataset, items, self.transform, self.inferer, own / "seeds", self.epochs, self.rounds,
            tolerance=self.tolerance, share=self.share, scope=self.scope, by_colour=self.components.subject == OBJECTS,
        )  # fmt: skip
        recipe = {**self.recipe, "first_stage": read_json(first / "model.json").get("sha256")}
        made_with = {
            "read": self.reading,
            "augmentation": self.augmentation,
            "second_stage": {"tolerance": self.tolerance, "seed": self.seed},
        }
        handlers = [
            EpochSeed(self.seed, [loader]),
            TrainingClock(own / "clock.json", after=first / "clock.json"),
            EpochProgress("refining, epoch"),
            StopOnNonFiniteLoss(),
            LrScheduleHandler(cast("Any", schedule), print_lr=False, epoch_level=False),
            *([_Freezing(self)] if self.decoder_norm == "frozen" else []),
            ValidationHandler(self.epochs, evaluator),
            EpochSummary(evaluator),
            RunCheckpoint(
                own, self.network, optimizer, schedule, evaluator, rounds, self.card, recipe, self.resume, made_with
            ),
            SharedTraining(self.network, optimizer),
            *self.handlers,
        ]
        return PlainTrainer(
            self.device, self.rounds * self.epochs, loader, network=self.network, optimizer=optimizer,
            loss_function=PartialCrossEntropy(self.softness), inferer=TrainingInferer("mask_logits"),
            prepare_batch=SeedBatch(), train_handlers=handlers, amp=self.amp, amp_kwargs=dict(self.amp_kwargs),
            non_blocking=True,
        )  # fmt: skip

    def _evaluator(self) -> TileEvaluator:
        """Measures only; the saved model is that of the last round."""
        return TileEvaluator(
            torch.device(self.device), self.validation_loader, self.network, prepare_batch=ImageLabels(metadata=True),
            inferer=self.validation_inferer, postprocessing=cast("Any", self.postprocessing),
            key_val_metric={"classification_error": ClassificationError()},
            additional_metrics={"cross_entropy": CrossEntropy(), "temperature": Temperature()},
            metric_cmp_fn=lambda current, best: True, amp=False,
        )  # fmt: skip


class _Freezing:
    """Freezes the decoder's statistics after the first epoch; of several processes the first measures them."""

    def __init__(self, stage: SecondStage) -> None:
        self.stage = stage

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(once=1), self)

    def __call__(self, _: Engine) -> None:
        stage = self.stage

        def measure() -> dict[str, Tensor]:
            data = tqdm(stage.data, "statistics of the decoder")
            images = (stage.inferer.prepare(read_image(item, stage.transform, stage.device))[0] for item in data)
            return measure_statistics(stage.network, images)

        freeze(stage.network, distributed.on_main(measure))
