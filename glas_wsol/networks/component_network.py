# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Localize by unsupervised structure of a pretrained trunk's features: one direction in feature space, two sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from glas_wsol.networks.base import TileNetwork, choose, seeded
from glas_wsol.networks.maps import at_least_float32, distribution, resize_exactly
from glas_wsol.networks.trunks import Trunk
from glas_wsol.utils.subjects import SUBJECTS, TISSUE

__all__ = ["FeatureComponentNetwork", "pooled"]


def pooled(features: Tensor, mask: Tensor, least: float = 1e-6) -> Tensor:
    """The mean feature of a region.

    Args:
        features: ``[B, n, h, w]``.
        mask: ``[B, 1, H, W]``, in [0, 1], of the image; averaged down to the features' grid.
        least: area, in positions, that an empty region counts as: its features stay finite.

    Returns:
        ``[B, n]``; nearly 0 for an empty region.
    """
    weights = F.interpolate(mask, size=list(features.shape[2:]), mode="area")
    return (features * weights).sum(dim=[2, 3]) / weights.sum(dim=[2, 3]).clamp(min=least)


class FeatureComponentNetwork(TileNetwork):
    """A direction in the feature space of a pretrained trunk, whose two sides are oriented by image labels.

    Features, each position's vector brought to length 1, are projected on one direction: ``z``, in units of its
    standard deviation over the training images, 0 at their mean. ``R+ = sigmoid(omega z)``. Of tissue these are the
    features at stride 16; of objects, which are larger than glands, ``z`` is the mean of two, at strides 16 and 32. The
    class is that of a linear probe on the mean feature of the *masked* image ``X R+`` in ``R+``: nothing outside the
    region is used.
    Nothing of the trunk is trained; :func:`glas_wsol.pseudo_labels.feature_components.fit_components` finds the
    direction, its orientation and the probe from images and their labels, without randomness.

    All other arguments are those of :class:`~glas_wsol.networks.base.TileNetwork`.

    Args:
        trunk: name of the trunk (see :data:`~glas_wsol.networks.trunks.TRUNKS`) or a trunk; pretrained, or the
            structure is that of noise.
        omega: steepness of the soft threshold at ``z = 0``. Defaults to 4.
        subject: what images show, ``"tissue"`` (default) or ``"objects"``: photographs with one thing before a
            background.
        seed: for a trunk of random weights; None draws on.
    """

    if TYPE_CHECKING:  # buffers; not for TorchScript
        centre: Tensor
        direction: Tensor
        probe_weight: Tensor
        probe_bias: Tensor

    def __init__(
        self,
        trunk: str | Trunk = "resnet18",
        num_classes: int = 2,
        weights: str = "auto",
        omega: float = 4.0,
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        seed: int | None = None,
        subject: str = TISSUE,
    ) -> None:
        with seeded(seed):
            super().__init__(trunk, num_classes, weights, "frozen", pixel_mean, pixel_std)
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.omega = omega
        choose("subject", subject, SUBJECTS)
        self.subject = subject
        self.scales = [-2] if subject == TISSUE else [-2, -1]  # of the trunk's stages
        self.widths = [self.trunk.stage_channels()[scale] for scale in self.scales]
        channels = sum(self.widths)
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("direction", torch.zeros(channels))
        self.register_buffer("probe_weight", torch.zeros(num_classes, self.widths[-1]))
        self.register_buffer("probe_bias", torch.zeros(num_classes))

    def features_of(self, x: Tensor) -> list[Tensor]:
        """The features that are projected, the finest first: ``[B, n, h, w]`` each, at least float32."""
        stages = self.trunk.stages_of(x)
        return [at_least_float32(stages[scale]) for scale in self.scales]

    def scores(self, x: Tensor) -> Tensor:
        """Which side every pixel is on, and how far: ``[B, 1, H, W]``, in standard deviations over training images."""
        coarse = self.coarse_scores(x)
        total = resize_exactly(coarse[0], x.shape[2], x.shape[3])
        for z in coarse[1:]:
            total = total + resize_exactly(z, x.shape[2], x.shape[3])
        return total

    def coarse_scores(self, x: Tensor) -> list[Tensor]:
        """The parts of :meth:`scores`, each at its features' own stride: ``[B, 1, h, w]``, the finest first."""
        found: list[Tensor] = []
        start = 0
        for features in self.features_of(x):
            end = start + features.shape[1]
            unit = F.normalize(features, dim=1) - self.centre[start:end].view(1, -1, 1, 1)
            found.append((unit * self.direction[start:end].view(1, -1, 1, 1)).sum(dim=1, keepdim=True))
            start = end
        return found

    def mask(self, x: Tensor) -> Tensor:
        """The decidable region: ``[B, 1, H, W]`` ``R+``, in (0, 1). ``x``: ``[B, 3, H, W]``, normalised."""
        return torch.sigmoid(self.omega * self.scores(x))

    def region_features(self, x: Tensor, mask: Tensor) -> Tensor:
        """The mean feature, ``[B, n]``, of a region ``[B, 1, H, W]`` in [0, 1] when everything else is erased."""
        return pooled(self.features_of(x * mask)[-1], mask)

    def logits(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Class scores of the region: ``[B, c]``. ``mask``: :meth:`mask` of ``x``, where it is known already."""
        features = self.region_features(x, self.mask(x) if mask is None else mask)
        weighted = features.unsqueeze(1) * self.probe_weight  # no product of matrices, which autocast would round
        return weighted.sum(dim=2) + self.probe_bias

    @torch.jit.unused
    def undecidable(self, image: Tensor) -> Tensor:
        """``R-`` alone, without naming a class: ``[B, 1, H, W]``, in [0, 1]. ``image``: ``[B, 3, H, W]``, in [0, 1]."""
        return 1 - self.mask(self.normalise(image))

    def forward(self, image: Tensor) -> Tensor:
        """Which side of the direction every pixel is on, and the class of the image, see :class:`TileNetwork`."""
        x = self.normalise(image)
        mask = self.mask(x)
        # A class can be read from the channels of an empty mask too: float32 holds 1e-6 p as exactly as p.
        return distribution(mask.clamp(min=1e-6), self.probabilities(self.logits(x, mask)))

    @torch.jit.unused
    def settings(self) -> dict[str, Any]:
        """What must be the same for weights to mean the same."""
        more = {} if self.subject == TISSUE else {"subject": self.subject}
        return {**super().settings(), "omega": self.omega, **more}
