# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Classify by deep multiple-instance learning: a tile is a bag of positions, weighted by gated attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glas_wsol.errors import ConfigError
from glas_wsol.networks.base import TileNetwork, seeded
from glas_wsol.networks.hypercolumn import attended, project, widen
from glas_wsol.networks.maps import at_least_float32, distribution, score_map
from glas_wsol.networks.trunks import Trunk

__all__ = ["AttentionNetwork"]


class AttentionNetwork(TileNetwork):
    """Deep MIL with gated attention over positions, for several classes (Ilse et al., ICML 2018, equations 7 and 9).

    ``a_i = softmax_i(w^T (tanh(V h_i) * sigmoid(U h_i)))`` over the positions ``i`` of the trunk's features ``h``;
    a linear classifier takes ``z = sum_i a_i h_i``. Trained by the cross-entropy of :meth:`logits`. Its mask is the
    attention, min-max normalised per image, at 0.5: one map for all classes.

    All other arguments are those of :class:`~glas_wsol.networks.base.TileNetwork`.

    Args:
        hidden: rows of ``V`` and ``U``. Defaults to 128.
        map_stride: px between two positions: 32 (default, the paper's), 16 or 8, where the features of
            the trunk's stages of those strides are part of ``h``, see :mod:`glas_wsol.networks.hypercolumn`.
        seed: seed of the initial weights, so that they do not depend on what was drawn before; None draws on.
    """

    def __init__(
        self,
        trunk: str | Trunk = "resnet18",
        num_classes: int = 2,
        weights: str = "auto",
        hidden: int = 128,
        batch_norm: str = "batch",
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        map_stride: int = 32,
        seed: int | None = None,
    ) -> None:
        if hidden < 1:
            raise ConfigError(f"hidden={hidden}", "network", "give at least 1")
        with seeded(seed):
            super().__init__(trunk, num_classes, weights, batch_norm, pixel_mean, pixel_std, map_stride)
            self.value = nn.Conv2d(self.trunk.channels, hidden, kernel_size=1, bias=False)  # V
            self.gate = nn.Conv2d(self.trunk.channels, hidden, kernel_size=1, bias=False)  # U
            self.score = nn.Conv2d(hidden, 1, kernel_size=1, bias=False)  # w
            self.classifier = nn.Linear(self.trunk.channels, num_classes)
            channels = self.feature_channels()
            for layer in (self.value, self.gate, self.classifier):
                widen(layer, channels)
        self.hidden = hidden

    def attention(self, x: Tensor) -> Tensor:
        """How much each position counts: ``[B, 1, h, w]`` at stride ``map_stride``, float32; each image's sum is 1."""
        return self._attend(self.features(x))

    def logits(self, x: Tensor) -> Tensor:
        """Class scores: ``[B, c]``, at least float32. ``x``: ``[B, 3, H, W]``, normalised."""
        return self.logits_of(self.features(x))

    def logits_of(self, features: list[Tensor]) -> Tensor:
        """:meth:`logits` from the features of an image."""
        return self._classify(features, self._attend(features))

    def forward(self, image: Tensor) -> Tensor:
        """Which pixels decided, and for which class, see :class:`~glas_wsol.networks.base.TileNetwork`."""
        features = self.features(self.normalise(image))
        attention = self._attend(features)
        # The normalisation takes activations to be of order 1; attention is of the order of 1 / positions.
        evidence = attention * (attention.shape[2] * attention.shape[3])
        probabilities = self.probabilities(self._classify(features, attention))
        return distribution(score_map(evidence, image.shape[2], image.shape[3]), probabilities)

    def _attend(self, features: list[Tensor]) -> Tensor:
        value, gate = project(features, self.value.weight), project(features, self.gate.weight)
        scores = at_least_float32(self.score(torch.tanh(value) * torch.sigmoid(gate)))
        return scores.flatten(1).softmax(dim=1).view_as(scores)

    def _classify(self, features: list[Tensor], attention: Tensor) -> Tensor:
        return at_least_float32(self.classifier(attended(features, attention)))

    @torch.jit.unused
    def settings(self) -> dict[str, Any]:
        """What must be the same for weights to mean the same."""
        return {**super().settings(), "hidden": self.hidden, "map_stride": self.map_stride}
