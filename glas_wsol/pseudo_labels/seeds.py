# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Selects seeds, the pixels of which localizers are most certain, and defines the loss on seeds alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.engines.prepare_batch import TargetBatch, refuse_masks
from glas_wsol.errors import ConfigError
from glas_wsol.utils import distributed
from glas_wsol.utils.shares import SHARE_WORDS, is_share

__all__ = [
    "IGNORE",
    "SEEDS",
    "PartialCrossEntropy",
    "SeedBatch",
    "agreement",
    "pick_seeds",
    "ranks",
]

SEEDS = "seeds"
"""Key of the seeds in an item of a data set."""

IGNORE = 128
"""Value of a pixel that is no seed. Others are targets: 0 to 127 for R-, the most certain 0; 129 to 255 for R+, the
most certain 255."""

_STEPS = 1000  # of the table that turns values into ranks: finer than any share of pixels that could matter
_EVERY = 4  # pixels in each direction for that table


def ranks(
    maps: Sequence[np.ndarray], scope: str = "dataset", sources: Sequence[Hashable] | None = None
) -> list[np.ndarray]:
    """Scores as the share of pixels below them: maps of different methods become comparable.

    Args:
        maps: ``[H, W]`` each, of any range.
        scope: ``"dataset"``: among the pixels of all images; ``"source"``: among those of the same laboratory;
            ``"image"``: among those of the same image; ``"both"``: the mean of dataset and image.
        sources: the laboratory of each image; all are of one where not given.

    Returns:
        ``[H, W]`` float32 each, in [0, 1].

    Raises:
        ConfigError: if ``scope`` is none of these.
    """
    one_source = [None] * len(maps)
    among = {"dataset": one_source, "source": sources or one_source, "image": range(len(maps))}
    if scope not in (*among, "both"):
        raise ConfigError(f"seed_scope={scope!r}", "seeds", "choose source, dataset, image or both")
    shares = np.linspace(0, 1, _STEPS + 1)

    def within(one: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
        # Between both ends of a plateau: a constant map is 0.5 everywhere, neither sure nor unsure.
        low = np.searchsorted(quantiles, one, side="left")
        high = np.searchsorted(quantiles, one, side="right")
        return np.clip((low + high - 1) / (2 * _STEPS), 0, 1).astype(np.float32)

    found = []
    for one_scope in ("dataset", "image") if scope == "both" else (scope,):
        samples: dict[Hashable, list[np.ndarray]] = defaultdict(list)
        for key, one in zip(among[one_scope], maps, strict=True):
            samples[key].append(one[::_EVERY, ::_EVERY].ravel())
        tables = {key: np.quantile(np.concatenate(values), shares) for key, values in samples.items()}
        found.append([within(one, tables[key]) for key, one in zip(among[one_scope], maps, strict=True)])
    return [np.asarray(np.mean(values, axis=0, dtype=np.float32)) for values in zip(*found, strict=True)]


def pick_seeds(
    teachers: Mapping[str, Sequence[np.ndarray]],
    share: float | Sequence[float] = 0.3,
    scope: str = "dataset",
    weights: Mapping[str, float] | None = None,
    sources: Sequence[Hashable] | None = None,
) -> list[np.ndarray]:
    """The pixels of which several localizers are most certain and agree.

    Each localizer's map is brought to ranks, whose weighted mean is brought to ranks again. The ``share`` of all pixels
    with the highest are seeds of R+, as many with the lowest are seeds of R-. How sure a seed is falls linearly, from
    the highest and the lowest rank to the rank midway between both shares.

    Args:
        teachers: for each localizer its ``[H, W]`` scores of every image, higher where decidable.
        share: of pixels on each side, in (0, 0.5]; or two shares, of R+ and of R-, that are at most 1 together.
        scope: see :func:`ranks`.
        weights: of the localizers; equal where not given.
        sources: see :func:`ranks`.

    Returns:
        ``[H, W]`` uint8 of every image, see :data:`IGNORE`: the surer, the further from it.

    Raises:
        ConfigError: if the share is out of range, there is no localizer, or no weight is positive.
    """
    if not is_share(share):
        raise ConfigError(f"share={share}", "seeds", f"give {SHARE_WORDS}")
    high, low = (share, share) if isinstance(share, (int, float)) else share
    middle = (1 - high + low) / 2
    weights = dict.fromkeys(teachers, 1.0) | dict(weights or {})
    used = [name for name in teachers if weights[name] > 0]
    if not used:
        raise ConfigError("no teacher has a positive weight", "seeds", f"give one to any of {', '.join(teachers)}")
    ranked = {name: ranks(teachers[name], scope, sources) for name in used}
    total = sum(weights[name] for name in used)
    mean: list[Any] = [sum(weights[n] / total * ranked[n][i] for n in used) for i in range(len(ranked[used[0]]))]
    seeds = []
    for one in ranks(mean, scope, sources) if len(used) > 1 else mean:
        positive, negative = one >= 1 - high, one <= low
        sureness = np.where(one > middle, (one - middle) / (1 - middle), (middle - one) / middle)
        sureness = np.rint(127 * sureness).clip(1, 127).astype(np.uint8)
        side = np.where(positive, IGNORE + sureness, np.where(negative, IGNORE - sureness, IGNORE))
        seeds.append(side.astype(np.uint8))
    return seeds


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's kappa of two masks: 1 if they are the same, 0 if they agree as often as chance would, negative if less.

    Args:
        one: bool, any shape.
        other: bool, the same shape.

    Returns:
        At most 1; 0 where both are constant and equal, for then there is nothing to agree on.
    """
    observed = float((one == other).mean())
    p, q = float(one.mean()), float(other.mean())
    chance = p * q + (1 - p) * (1 - q)
    return 0.0 if chance >= 1 else (observed - chance) / (1 - chance)


class SeedBatch(TargetBatch):
    """Images with their seeds ``[B, 1, H, W]``, as in :func:`pick_seeds`; a batch with true masks is refused."""

    key = SEEDS

    def check(self, batchdata: Mapping[str, Tensor]) -> None:
        """Refuse a batch without seeds, and one with masks."""
        if SEEDS not in batchdata:
            raise ConfigError("the training images have no seeds", "training batch", "run the first stage first")
        refuse_masks(batchdata, but=(SEEDS,))


class PartialCrossEntropy(nn.Module):
    """Binary cross-entropy on seeds only (Tang et al., CVPR 2018); R+ and R- weigh the same in every mini-batch.

    Args:
        softness: 0 takes every seed for certain (target 0 or 1). At 1 a seed's target is 0.5 plus half its sureness, so
            that the scores of pixels keep the order their teachers gave them. Defaults to 1.

    Raises:
        ConfigError: if ``softness`` is not in [0, 1].
    """

    def __init__(self, softness: float = 1.0) -> None:
        super().__init__()
        if not 0 <= softness <= 1:
            raise ConfigError(f"softness={softness}", "seeds", "give a number from 0 to 1")
        self.softness = softness

    def forward(self, scores: Tensor, seeds: Tensor) -> Tensor:
        """The loss.

        Args:
            scores: ``[B, 1, H, W]`` logits.
            seeds: ``[B, 1, H, W]`` as in :func:`pick_seeds`.

        Returns:
            Mean of the mean over seeds of R+ and that over seeds of R-; of one of them where the other has none; 0
            (with a gradient of 0) where there is no seed at all.
        """
        signed = (seeds.to(scores.dtype) - IGNORE) / 127
        side = signed.sign()
        target = 0.5 + 0.5 * ((1 - self.softness) * side + self.softness * signed)
        losses = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
        terms, present = scores.new_zeros(()), scores.new_zeros(())
        for wanted in (1, -1):
            chosen = (side == wanted).to(scores.dtype)
            count = distributed.mean(chosen.sum())  # also where several processes share the mini-batch
            terms = terms + (losses * chosen).sum() / count.clamp(min=1 / distributed.world_size())
            present = present + (count > 0).to(scores.dtype)
        return terms / present.clamp(min=1)

    def settings(self) -> dict[str, Any]:
        """What must be the same for an interrupted run to be resumed."""
        return {"softness": self.softness}
