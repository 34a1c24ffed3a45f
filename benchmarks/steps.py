# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Training steps to be measured side by side: ours, naive ones of the same mathematics, and plain classification."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from glas_wsol.engines import MinMaxEntropyTrainer, erasing
from glas_wsol.networks import MinMaxEntropyNetwork

__all__ = ["DECAYING", "NaiveTrainer", "Step", "controlled_trust", "make_network", "plain_step", "training_step"]

DECAYING = (1.0, 0.75, 0.5, 0.25)
"""Shares of the mini-batch that stay trusted after each forward: 4, 4, 3, 2, 1 alive of a batch of 4."""


class NaiveTrainer(MinMaxEntropyTrainer):
    """The same gradient as one graph: every forward of M retained, C called twice, one backward, the full batch."""

    def _backward(self, loss: Tensor) -> Tensor:
        self._held.append(loss)
        return loss.detach()

    def _localize(self, x: Tensor, label: Tensor):  # noqa: ANN202 - as the method it replaces
        self._held: list[Tensor] = []
        return super()._localize(x, label)

    def _classify(self, x: Tensor, label: Tensor, kept: erasing.KeptRegion, held: Tensor):  # noqa: ANN202 - likewise
        positive = self.network.classify(x * kept.mask)
        relevant = self.loss_function.relevant_term(positive, label, kept.counted)
        negative = self.network.classify(x * (1 - kept.mask))
        irrelevant = self.loss_function.irrelevant_term(negative, kept.counted)
        (sum(self._held) + relevant + irrelevant).backward()
        return positive, relevant.detach(), irrelevant.detach()


@dataclass
class Step:
    """One variant of a training step.

    Attributes:
        name: in words.
        run: does one step.
        forwards: forwards of M per sample, as measured by the last call; None for plain classification.
        scale: of C's input; 0 without C.
        again: makes the same step of another network and mini-batch, every sample trusted and so every pass run.
        batch_norm: of the network.
    """

    name: str
    run: Callable[[], object]
    forwards: Callable[[], float]
    scale: float
    again: Callable[[MinMaxEntropyNetwork, dict[str, Tensor]], Step]
    batch_norm: str

    @property
    def model(self) -> float:
        """What it should cost, in plain classification steps: ``n + 2 s^2``."""
        return self.forwards() + 2 * self.scale**2


@contextmanager
def controlled_trust(shares: Sequence[float] | None) -> Iterator[None]:
    """Decide who is trusted instead of the network, so that variants do the same work.

    Args:
        shares: of the mini-batch that is still trusted after forward 0, 1, ...; None leaves it to the network.
    """
    if shares is None:
        yield
        return

    def trust(step: int, logits: Tensor, losses: Tensor, first_loss: Tensor, label: Tensor, alive: Tensor, sigma=10.0):  # noqa: ANN001, ANN202
        count = round(shares[min(step, len(shares) - 1)] * len(alive))
        chosen = torch.arange(len(alive), device=alive.device) < count
        return torch.where(chosen, 0.9**step * 0.9, 0.0).to(logits.dtype)

    with mock.patch.object(erasing, "trust", trust):
        yield


def make_network(trunk: str, device: str, batch_norm: str = "frozen", dtype: torch.dtype = torch.float32):  # noqa: ANN201
    """A network with random weights and no dropout.

    Args:
        trunk: its name.
        device: where it computes.
        batch_norm: ``"frozen"`` or ``"batch"``.
        dtype: of its weights.
    """
    network = MinMaxEntropyNetwork(
        trunk, 2, weights="none", pooling_options={"dropout": 0.0}, batch_norm=batch_norm, seed=0
    )
    if device == "cpu" and dtype == torch.float32:  # tensors without values cannot be moved
        return network
    return network.to(device=device, dtype=dtype)


def _optimizer(network: MinMaxEntropyNetwork, device: torch.device) -> torch.optim.SGD:
    # So small a learning rate does not move float32: the network's own trust is the same in every round.
    return torch.optim.SGD(network.parameters(), lr=1e-12, momentum=0.9, nesterov=True, fused=device.type == "cuda")


def training_step(
    name: str,
    network: MinMaxEntropyNetwork,
    batch: dict[str, Tensor],
    passes: int,
    shares: Sequence[float] | None,
    naive: bool = False,
    **options: object,
) -> Step:
    """One step of the trainer.

    Args:
        name: in words.
        network: to train.
        batch: ``image`` and ``label``.
        passes: largest number of forwards of M.
        shares: see :func:`controlled_trust`.
        naive: the naive variant.
        options: of the trainer.
    """
    kind = NaiveTrainer if naive else MinMaxEntropyTrainer
    device = batch["image"].device
    optimizer = _optimizer(network, device)
    trainer = kind(
        device, 1, [batch], network, optimizer, passes=passes, erase_from_epoch=0, decollate=False, **options
    )
    trainer.state.epoch = 1
    trainer.optim_set_to_none = False
    counted = [0.0]
    localize = network.localize

    def counting(x: Tensor, *args: object):  # noqa: ANN202
        counted[0] += len(x) / len(batch["image"])
        return localize(x, *args)

    def run() -> None:
        counted[0] = 0.0
        with controlled_trust(shares), mock.patch.object(network, "localize", counting):
            trainer._iteration(trainer, batch)

    def again(network: MinMaxEntropyNetwork, batch: dict[str, Tensor]) -> Step:
        return training_step(name, network, batch, passes, None, naive, **{**options, "alive_only": False})

    return Step(name, run, lambda: counted[0], network.classifier_scale, again, network.batch_norm)


def plain_step(name: str, network: MinMaxEntropyNetwork, batch: dict[str, Tensor], amp: bool = False) -> Step:
    """Plain classification by the same trunk and head: forward, cross-entropy, backward, optimiser.

    Args:
        name: in words.
        network: to train.
        batch: ``image`` and ``label``.
        amp: whether in bfloat16 autocast.
    """
    device = batch["image"].device
    optimizer = _optimizer(network, device)

    def run() -> None:
        network.train()
        optimizer.zero_grad(set_to_none=False)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
            maps = network.class_maps(network.normalise(batch["image"]))
            loss = F.cross_entropy(network.localizer.pooling(maps, None), batch["label"])
            loss.backward()
        optimizer.step()

    def again(network: MinMaxEntropyNetwork, batch: dict[str, Tensor]) -> Step:
        return plain_step(name, network, batch, amp)

    return Step(name, run, lambda: 1.0, 0.0, again, network.batch_norm)
