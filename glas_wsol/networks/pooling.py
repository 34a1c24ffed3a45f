# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Pool one activation map per class to one score per class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.utils.sizes import fraction_of, larger, opaque, scaled, smaller

__all__ = ["AveragePooling", "LogSumExpPooling", "MaxPooling", "Pooling", "WildcatPooling", "build_pooling"]


class Pooling(nn.Module):
    """Class maps ``[B, c, h, w]`` to class scores ``[B, c]``.

    A pooling that drops activations in training draws its pattern separately from applying it, so that the same pattern
    can be used again: the trust test of recursive erasing compares losses, and fresh noise would decide it by chance.

    Attributes:
        options: names of the arguments that decide a score in evaluation; each is an attribute too.
    """

    options: tuple[str, ...] = ()

    def draw_dropout(self, maps: Tensor) -> Tensor | None:
        """The dropout pattern for these maps, or None where nothing is dropped. ``maps``: ``[B, c, h, w]``."""
        return None

    def forward(self, maps: Tensor, dropout: Tensor | None = None) -> Tensor:
        """Pool ``[B, c, h, w]`` to ``[B, c]``, dropping by a pattern from :meth:`draw_dropout`, or nothing by None."""
        raise NotImplementedError  # abstract: every pooling below defines it


class AveragePooling(Pooling):
    """Mean over positions (CAM: Zhou et al., CVPR 2016)."""

    def forward(self, maps: Tensor, dropout: Tensor | None = None) -> Tensor:  # noqa: D102 - documented in Pooling
        return maps.mean(dim=[2, 3])


class MaxPooling(Pooling):
    """Maximum over positions (Oquab et al., CVPR 2015)."""

    def forward(self, maps: Tensor, dropout: Tensor | None = None) -> Tensor:  # noqa: D102 - documented in Pooling
        return maps.amax(dim=[2, 3])


class LogSumExpPooling(Pooling):
    """Smooth maximum ``log(mean(exp(r a))) / r`` (Pinheiro and Collobert, CVPR 2015).

    Args:
        sharpness: ``r``; towards 0 it is the mean, towards infinity the maximum. Defaults to 10.

    Raises:
        ConfigError: if ``sharpness`` is not positive.
    """

    options = ("sharpness",)

    def __init__(self, sharpness: float = 10.0) -> None:
        super().__init__()
        if sharpness <= 0:
            raise ConfigError(f"sharpness is {sharpness}", "log-sum-exp pooling", "give a positive number")
        self.sharpness = float(sharpness)

    def forward(self, maps: Tensor, dropout: Tensor | None = None) -> Tensor:  # noqa: D102 - documented in Pooling
        flat = maps.flatten(2)
        positions = torch.ones_like(flat[0, 0]).sum()  # a number would be a constant in torch.export
        return (torch.logsumexp(self.sharpness * flat, dim=2) - positions.log()) / self.sharpness


class WildcatPooling(Pooling):
    """Mean of the highest activations plus ``alpha`` times the mean of the lowest (Durand et al., CVPR 2017).

    Args:
        kmax: how many of the highest; below 1 a fraction of the positions (rounded, never below one position),
            1 or more a count. Defaults to 0.09.
        kmin: how many of the lowest, likewise. Defaults to 0.09.
        alpha: weight of the lowest. Defaults to 0.
        dropout: probability of dropping a *sorted* activation before the selection, in training only.
    """

    options = ("kmax", "kmin", "alpha")

    def __init__(self, kmax: float = 0.09, kmin: float = 0.09, alpha: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__()
        if kmax <= 0 or kmin <= 0:
            raise ConfigError(f"kmax={kmax}, kmin={kmin}", "WILDCAT pooling", "give positive fractions or counts")
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout={dropout}", "WILDCAT pooling", "give a probability in [0, 1)")
        self.kmax, self.kmin, self.alpha, self.dropout = float(kmax), float(kmin), float(alpha), float(dropout)
        self.fractions = {k: fraction_of(k) for k in (self.kmax, self.kmin)}

    def draw_dropout(self, maps: Tensor) -> Tensor | None:
        """``[B, c, h * w]``, of the highest activation first: 0 or ``1 / (1 - dropout)``; None without dropout."""
        if not self.training or self.dropout == 0.0:
            return None
        return F.dropout(torch.ones_like(maps).flatten(2), self.dropout, training=True)

    def forward(self, maps: Tensor, dropout: Tensor | None = None) -> Tensor:  # noqa: D102 - documented in Pooling
        flat = maps.flatten(2)
        highest = flat.topk(self.count(self.kmax, flat.shape[2]), dim=2)[0]
        if dropout is not None:
            highest = highest * dropout[:, :, : highest.shape[2]]
        scores = highest.mean(dim=2)
        if self.alpha != 0.0:
            lowest = flat.topk(self.count(self.kmin, flat.shape[2]), dim=2, largest=False)[0]
            if dropout is not None:
                # the lowest come last in the sorted order; topk gives the very lowest first
                lowest = lowest * dropout[:, :, -lowest.shape[2] :].flip(2)
            scores = scores + self.alpha * lowest.mean(dim=2)
        return scores

    def count(self, k: float, positions: int) -> int:
        """How many of ``positions`` activations ``k`` means: a fraction below 1, else a count; at least 1."""
        if k >= 1.0:
            return smaller(int(round(k)), positions)  # noqa: RUF046 - TorchScript's round gives a float
        numerator, denominator = self.fractions[k]
        return opaque(smaller(larger(scaled(positions, numerator, denominator), 1), positions))


_POOLINGS: dict[str, type[Pooling]] = {
    "wildcat": WildcatPooling,
    "average": AveragePooling,
    "max": MaxPooling,
    "lse": LogSumExpPooling,
}


def build_pooling(name: str, **options: Any) -> Pooling:
    """A pooling: ``wildcat``, ``average``, ``max`` or ``lse``; a ConfigError if there is no such pooling or option."""
    if name not in _POOLINGS:
        raise ConfigError(f"no pooling named {name!r}", "pooling", f"choose one of {', '.join(_POOLINGS)}")
    try:
        return _POOLINGS[name](**options)
    except TypeError as error:
        raise ConfigError(f"{name} pooling: {error}", "pooling", "remove the option") from error
