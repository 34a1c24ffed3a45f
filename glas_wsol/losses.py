# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Min-max entropy: a sure classifier on the decidable region, an undecided one on the rest (paper, section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.errors import ConfigError

__all__ = ["ClassifierLoss", "MinMaxEntropyLoss", "cross_entropy", "uniform_cross_entropy"]


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """``-log p(y)`` per sample (paper, equations 3 and 8).

    Args:
        logits: ``[B, c]`` class scores.
        label: ``[B]`` class indices.

    Returns:
        ``[B]``, at least 0.
    """
    return F.cross_entropy(logits, label, reduction="none")


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """``-mean_k log p(k)`` per sample: cross-entropy with the uniform distribution (paper, equation 6).

    Args:
        logits: ``[B, c]`` class scores.

    Returns:
        ``[B]``, at least ``log c``, which it reaches when no class is preferred.
    """
    return -F.log_softmax(logits, dim=1).mean(dim=1)


class ClassifierLoss(NamedTuple):
    """The classifier's two weighted terms, scalars: ``relevant`` is H+, ``irrelevant`` is H-."""

    relevant: Tensor
    irrelevant: Tensor


class MinMaxEntropyLoss(nn.Module):
    """Weights of ``H+``, ``H-`` and ``Hs`` and their means over a mini-batch (paper, equation 9).

    Args:
        relevant: weight of ``H+ = -log p(y | X+)``. Defaults to 1.
        irrelevant: weight of ``H- = -mean_k log p(k | X-)``. Defaults to 1.
        localizer: weight of ``Hs = -log p(y | X)`` of M. Defaults to 1.

    Raises:
        ConfigError: if a weight is negative.
    """

    def __init__(self, relevant: float = 1.0, irrelevant: float = 1.0, localizer: float = 1.0) -> None:
        super().__init__()
        if min(relevant, irrelevant, localizer) < 0:
            raise ConfigError("a loss weight is negative", "MinMaxEntropyLoss", "give weights of at least 0")
        self.relevant, self.irrelevant, self.localizer = relevant, irrelevant, localizer

    def localizer_term(self, losses: Tensor, counted: Tensor, batch_size: int) -> Tensor:
        """``Hs`` of one erasing step: the weighted mean over the mini-batch, left-out samples counting as zero.

        Args:
            losses: ``[n]`` per-sample ``-log p(y)`` of M, for all samples or a part of them.
            counted: ``[n]`` bool, which of them count.
            batch_size: ``B``, size of the whole mini-batch.

        Returns:
            A scalar.
        """
        return self.localizer * torch.where(counted, losses, 0.0).sum() / batch_size

    def forward(self, positive: Tensor, negative: Tensor, label: Tensor, counted: Tensor) -> ClassifierLoss:
        """``H+`` and ``H-``: means over the counted samples.

        Args:
            positive: ``[B, c]`` scores of C on ``X+``.
            negative: ``[B, c]`` scores of C on ``X-``.
            label: ``[B]`` class indices.
            counted: ``[B]`` bool; a mini-batch in which no sample counts has loss 0.
        """
        return ClassifierLoss(self.relevant_term(positive, label, counted), self.irrelevant_term(negative, counted))

    def relevant_term(self, positive: Tensor, label: Tensor, counted: Tensor) -> Tensor:
        """Weighted ``H+``, a scalar; arguments as in :meth:`forward`."""
        return self.relevant * _mean(cross_entropy(positive, label), counted)

    def irrelevant_term(self, negative: Tensor, counted: Tensor) -> Tensor:
        """Weighted ``H-``, a scalar; arguments as in :meth:`forward`."""
        return self.irrelevant * _mean(uniform_cross_entropy(negative), counted)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp(min=1)
