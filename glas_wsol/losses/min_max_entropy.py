# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Compute the min-max entropy loss: a sure class on the decidable region, none on the undecidable (paper, 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.losses.constraints import size_band, total_variation
from glas_wsol.utils import distributed

__all__ = [
    "ClassifierLoss",
    "LossKeys",
    "MaskLoss",
    "MinMaxEntropyLoss",
    "cross_entropy",
    "even_cross_entropy",
    "uniform_cross_entropy",
]


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """``-log p(y)`` per sample (paper, equations 3 and 8); binary per class where an image may have several.

    Args:
        logits: ``[B, c]`` class scores.
        label: ``[B]`` class indices; or ``[B, c]`` zeros and ones, any number of ones per image.

    Returns:
        ``[B]``, at least 0; or ``[B, c]``: ``-log p(k)`` where class k is present, ``-log(1 - p(k))`` elsewhere.
    """
    if label.ndim == 2:
        return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), reduction="none")
    return F.cross_entropy(logits, label, reduction="none")


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """``-mean_k log p(k)``, ``[B]``, of ``[B, c]`` scores: cross-entropy with the uniform distribution (equation 6)."""
    return -F.log_softmax(logits, dim=1).mean(dim=1)


def even_cross_entropy(logits: Tensor) -> Tensor:
    """``-(log p(k) + log(1 - p(k))) / 2`` per sample and class: binary cross-entropy with a target of 0.5.

    The :func:`uniform_cross_entropy` of two classes, "k" and "not k": equation 6 where an image may have several.

    Args:
        logits: ``[B, c]`` class scores.

    Returns:
        ``[B, c]``, at least ``log 2``, which it reaches where ``p(k)`` is 0.5.
    """
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, 0.5), reduction="none")


class LossKeys:
    """Keys of the weighted terms in the trainer's output; their sum is the optimised ``loss``."""

    RELEVANT = "loss_relevant"
    IRRELEVANT = "loss_irrelevant"
    LOCALIZER = "loss_localizer"
    SIZE = "loss_size"
    VARIATION = "loss_variation"


class ClassifierLoss(NamedTuple):
    """The classifier's two weighted terms, scalars: ``relevant`` is H+, ``irrelevant`` is H-."""

    relevant: Tensor
    irrelevant: Tensor


class MaskLoss(NamedTuple):
    """The weighted constraints on the mask, scalars: its ``size`` and its ``variation``; 0 where the weight is 0."""

    size: Tensor
    variation: Tensor


class MinMaxEntropyLoss(nn.Module):
    """Weights of ``H+``, ``H-`` and ``Hs`` and their means over a mini-batch (paper, equation 9), and two constraints.

    Where an image may have several classes, values and ``counted`` are ``[B, c]`` instead of ``[B]``, and the means are
    over samples and classes: the weights keep their meaning.

    The constraints act on ``R_0``, the localizer's mask of the whole image, not on the accumulated ``R+*``: it is the
    mask that inference returns, so that an area means the same there; it is neither dimmed by the trust nor blank for a
    sample that M classified wrongly, for which a constraint on ``R+*`` would have no gradient; and it is the same with
    and without erasing. They train only a differentiable mask.

    Args:
        relevant: weight of ``H+ = -log p(y | X+)``. Defaults to 1.
        irrelevant: weight of ``H- = -mean_k log p(k | X-)``, or of :func:`even_cross_entropy`. Defaults to 1.
        localizer: weight of ``Hs = -log p(y | X)`` of M. Defaults to 1.
        size: weight of the band of sizes, see :func:`~glas_wsol.losses.constraints.size_band`. Defaults to 0, none.
        band: least and largest area of the mask as fractions of the image; None for no such bound. Defaults to 0 and 1:
            neither the decidable nor the undecidable region may vanish.
        barrier: ``t`` of the barrier at epoch 0: the larger, the harder. Defaults to 5.
        barrier_growth: factor of ``t`` per epoch, at least 1. Defaults to 1, no growth.
        variation: weight of :func:`~glas_wsol.losses.constraints.total_variation`. Defaults to 0, none.

    Raises:
        ConfigError: if a weight is negative, or a constraint's argument out of range.
    """

    def __init__(
        self,
        relevant: float = 1.0,
        irrelevant: float = 1.0,
        localizer: float = 1.0,
        size: float = 0.0,
        band: Sequence[float | None] = (0.0, 1.0),
        barrier: float = 5.0,
        barrier_growth: float = 1.0,
        variation: float = 0.0,
    ) -> None:
        super().__init__()
        if min(relevant, irrelevant, localizer, size, variation) < 0:
            raise ConfigError("a loss weight is negative", "MinMaxEntropyLoss", "give weights of at least 0")
        if not _is_band(band) or (size > 0 and list(band) == [None, None]):
            fix = "give a least and a largest area with 0 <= least < largest <= 1; null leaves one of them out"
            raise ConfigError(f"band={band}", "MinMaxEntropyLoss", fix)
        if barrier <= 0 or barrier_growth < 1:
            what = f"barrier={barrier}, barrier_growth={barrier_growth}"
            raise ConfigError(what, "MinMaxEntropyLoss", "give a barrier above 0 and a growth of at least 1")
        self.relevant, self.irrelevant, self.localizer = relevant, irrelevant, localizer
        self.size, self.band, self.barrier, self.barrier_growth = size, tuple(band), barrier, barrier_growth
        self.variation = variation

    @property
    def constraints(self) -> tuple[str, ...]:
        """Names of the constraints whose weight is not 0, fields of :class:`MaskLoss`."""
        return tuple(name for name in MaskLoss._fields if getattr(self, name) > 0)

    def settings(self) -> dict[str, Any]:
        """What must be the same for an interrupted run to go on as it began, as JSON values."""
        return {
            "loss_weights": [self.relevant, self.irrelevant, self.localizer],
            "loss_size": self.size,
            "loss_band": list(self.band),
            "loss_barrier": self.barrier,
            "loss_barrier_growth": self.barrier_growth,
            "loss_variation": self.variation,
        }

    def mask_terms(self, mask: Tensor, epoch: int) -> MaskLoss:
        """The constraints, means over the mini-batch.

        Args:
            mask: ``[B, 1, H, W]`` mask ``R_0``, in [0, 1].
            epoch: epochs done before this one; the barrier's ``t`` is ``barrier * barrier_growth ** epoch``.
        """
        size = variation = mask.new_zeros(())
        if self.size > 0:
            size = (
                self.size
                * size_band(mask, self.band[0], self.band[1], self.barrier * self.barrier_growth**epoch).mean()
            )
        if self.variation > 0:
            variation = self.variation * total_variation(mask).mean()
        return MaskLoss(size, variation)

    def localizer_term(self, losses: Tensor, counted: Tensor, batch_size: int) -> Tensor:
        """``Hs`` of one erasing step: the weighted mean over the mini-batch, left-out samples counting as zero.

        Args:
            losses: ``[n]`` or ``[n, c]`` :func:`cross_entropy` of M, for all samples or a part of them.
            counted: bool of the same shape, which of them count.
            batch_size: ``B``, size of the whole mini-batch.
        """
        classes = losses.shape[1:].numel()  # 1 where a sample has one loss
        return self.localizer * torch.where(counted, losses, 0.0).sum() / (batch_size * classes)

    def forward(self, positive: Tensor, negative: Tensor, label: Tensor, counted: Tensor) -> ClassifierLoss:
        """``H+`` and ``H-``: means over what counts.

        Args:
            positive: ``[B, c]`` scores of C on ``X+``.
            negative: ``[B, c]`` scores of C on ``X-``.
            label: ``[B]`` class indices, or ``[B, c]`` zeros and ones.
            counted: ``[B]``, or then ``[B, c]``, bool; a mini-batch in which nothing counts has loss 0.
        """
        return ClassifierLoss(self.relevant_term(positive, label, counted), self.irrelevant_term(negative, counted))

    def relevant_term(self, positive: Tensor, label: Tensor, counted: Tensor) -> Tensor:
        """Weighted ``H+``, a scalar; arguments as in :meth:`forward`."""
        return self.relevant * _mean(cross_entropy(positive, label), counted)

    def irrelevant_term(self, negative: Tensor, counted: Tensor) -> Tensor:
        """Weighted ``H-``, a scalar; arguments as in :meth:`forward`."""
        undecided = even_cross_entropy if counted.ndim == 2 else uniform_cross_entropy
        return self.irrelevant * _mean(undecided(negative), counted)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    # Of several processes that share a mini-batch, the mean of this is the mean over the whole.
    number = distributed.mean(counted.sum()).clamp(min=1 / distributed.world_size())
    return torch.where(counted, values, 0.0).sum() / number


def _is_band(band: Sequence[float | None]) -> bool:
    if len(band) != 2:
        return False
    low, high = 0.0 if band[0] is None else band[0], 1.0 if band[1] is None else band[1]
    return 0 <= low < high <= 1
