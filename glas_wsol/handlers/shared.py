# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Shares one training among several processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from glas_wsol.errors import ConfigError, NumericalError
from glas_wsol.utils import distributed

__all__ = ["SharedTraining"]


class SharedTraining:
    """Lets several processes, each with its part of every mini-batch, make the steps that one with all of it would.

    Not PyTorch's ``DistributedDataParallel``: erasing runs several backwards per step, a different number in every
    process, and networks are used by more methods than ``forward``. Instead all begin with the same network, and the
    gradients are averaged once per step, after its last backward. After every epoch it is made sure that the networks
    are the same, bit by bit. It does nothing where there is one process.

    Batch normalisation by the statistics of mini-batches is made PyTorch's ``SyncBatchNorm``, which needs CUDA.

    Args:
        network: the plain network, without any wrapper.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.network, self.optimizer = network, optimizer

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer, after the handler that resumes an interrupted run.

        Raises:
            ConfigError: if images of a mini-batch would have to meet, and cannot.
        """
        if distributed.world_size() == 1:
            return
        if getattr(self.network, "normalisation", None) == "batch":
            fix = "set network_def#normalisation=sample, or train in one process"
            raise ConfigError("normalisation=batch needs the whole mini-batch", "SharedTraining", fix)
        for parent, name, layer in list(_trained_by_statistics(self.network)):
            if cast("Any", engine.state).device.type != "cuda":
                what = "batch statistics of several processes need CUDA"
                raise ConfigError(what, "SharedTraining", "set batch_norm=frozen, or train in one process")
            setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(layer))
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._average)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._compare)

    def _begin(self, _: Engine) -> None:
        if not distributed.same_everywhere(self.network):
            raise NumericalError("the processes begin with different networks", "SharedTraining", "give them one seed")

    def _average(self, _: Engine) -> None:
        distributed.average_gradients(p for group in self.optimizer.param_groups for p in group["params"])

    def _compare(self, engine: Any) -> None:
        if engine.state.iteration % engine.state.epoch_length:
            return  # before the handlers of the epoch's end, which save the network
        if not distributed.same_everywhere(self.network):
            where = f"epoch {engine.state.epoch}"
            raise NumericalError("the processes' networks have grown apart", where, "train in one process")


def _trained_by_statistics(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Layers that would use statistics of the mini-batch in training, each with what holds it, and under which name."""
    modes = {module: module.training for module in network.modules()}
    network.train()  # a network may keep a part of itself in evaluation mode
    for parent in network.modules():
        for name, layer in parent.named_children():
            if isinstance(layer, _BatchNorm) and layer.training:
                yield parent, name, layer
    for module, mode in modes.items():
        module.training = mode
