# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Define the paper's network G: a localizer M and a classifier C, two heads on one shared trunk."""

# No `from __future__ import annotations` here: TorchScript cannot read postponed annotations of a NamedTuple.
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.networks.base import TileNetwork, choose, seeded
from glas_wsol.networks.head import Head
from glas_wsol.networks.maps import activation_map, bilinear, distribution, normalise, pseudo_threshold, resize
from glas_wsol.networks.trunks import Trunk
from glas_wsol.utils.labels import LEAST_PROBABILITY, check_multi_label
from glas_wsol.utils.sizes import fraction_of, larger, opaque, scaled, smaller

__all__ = ["Localized", "MinMaxEntropyNetwork"]


class Localized(NamedTuple):
    """The localizer's output for a mini-batch.

    Attributes:
        logits: ``[B, c]`` class scores ``s`` of M.
        mask: ``[B, 1, H, W]`` decidable region ``R+``, in (0, 1); where an image may have several classes,
            ``[B, c, H, W]``: the region of each class, were it present, see :meth:`MinMaxEntropyNetwork.decidable`.
        dropout: the dropout pattern used, to be used again for the same samples; None where nothing was dropped.
    """

    logits: Tensor
    mask: Tensor
    dropout: Tensor | None


class MinMaxEntropyNetwork(TileNetwork):
    """Localizer and classifier on one trunk (paper, figure 2).

    ``forward`` maps images in [0, 1] to one tensor that sums to 1 at every pixel, a distribution over
    {undecidable, class 1, ..., class c}; the named methods work on *normalised* images, see :meth:`normalise`.

    Where an image may have several classes, scores go through a sigmoid each, and each class k has a region of its own:
    ``R+_k = sigmoid(omega (T_k - sigma'))``, ``T_k`` its class map ``A_k`` normalised by itself. The image's ``R+`` is
    the largest ``R+_k`` of the classes that M names. So the mask is the union of their masks whatever the threshold,
    and regions unite as they do over the steps of the recursion (equation 12).

    All other arguments are those of :class:`~glas_wsol.networks.base.TileNetwork`.

    Args:
        modalities: maps per class. Defaults to 5.
        pooling: pooling of both heads. Defaults to ``"wildcat"``.
        pooling_options: arguments of the pooling; for WILDCAT defaults to ``kmax=kmin=0.09, alpha=0, dropout=0.75``.
        classifier_scale: C gets its input bilinearly shrunk by this factor. Defaults to 0.5.
        classifier_align_corners: whether the corner pixels of both sizes coincide in that. Defaults to False.
        normalisation: min-max normalisation of the activation map *in training*, ``"sample"`` (default), ``"batch"``
            or ``"none"``; evaluation is always per image unless ``"none"``.
        omega: steepness of the pseudo-threshold. Defaults to 8.
        sigma: the pseudo-threshold. Defaults to 0.5.
        differentiable_mask: whether gradients pass through the mask into M. Defaults to False (paper, footnote 5).
        map_stride: px between two positions of M's class maps: 32 (default, the paper's), 16 or 8, where the features
            of the trunk's stages of those strides are read too, see :mod:`glas_wsol.networks.hypercolumn`. C's maps
            make no mask and stay at 32.
        multi_label: False (default, the paper's) for one class per image, True for several.
        seed: seed of the initial weights, so that they do not depend on what was drawn before; None draws on.
    """

    def __init__(
        self,
        trunk: str | Trunk = "resnet101",
        num_classes: int = 2,
        weights: str = "auto",
        modalities: int = 5,
        pooling: str = "wildcat",
        pooling_options: Mapping[str, Any] | None = None,
        classifier_scale: float = 0.5,
        classifier_align_corners: bool = False,
        normalisation: str = "sample",
        omega: float = 8.0,
        sigma: float = 0.5,
        differentiable_mask: bool = False,
        batch_norm: str = "batch",
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        map_stride: int = 32,
        multi_label: bool = False,
        seed: int | None = None,
    ) -> None:
        check_multi_label(multi_label, "network")
        choose("normalisation", normalisation, ("sample", "batch", "none"))
        if not 0 < classifier_scale <= 1:
            raise ConfigError(f"classifier_scale={classifier_scale}", "network", "give a factor in (0, 1]")
        for value in (classifier_align_corners, differentiable_mask):  # a text such as "false" is true
            if not isinstance(value, bool):
                raise ConfigError(f"{value!r} is not a switch", "network", "give True or False")
        if pooling == "wildcat":
            pooling_options = {"dropout": 0.75, **(pooling_options or {})}
        with seeded(seed):
            super().__init__(trunk, num_classes, weights, batch_norm, pixel_mean, pixel_std, map_stride)
            head = (num_classes, modalities, pooling, pooling_options)
            self.localizer = Head(self.feature_channels(), *head)
            self.classifier = Head(self.trunk.channels, *head)
        self.classifier_scale = classifier_scale
        self.classifier_fraction = fraction_of(classifier_scale)
        self.classifier_align_corners = classifier_align_corners
        self.normalisation = normalisation
        if not all(isinstance(value, (int, float)) for value in (omega, sigma)):
            raise ConfigError(f"omega={omega!r}, sigma={sigma!r}", "network", "give numbers")
        self.omega = omega
        self.sigma = sigma
        self.differentiable_mask = differentiable_mask
        self.multi_label = multi_label
        self.least_probability = LEAST_PROBABILITY

    def class_maps(self, x: Tensor) -> Tensor:
        """The localizer's class activation maps: ``[B, c, h, w]`` at stride ``map_stride``."""
        return self.localizer.class_maps(self.features(x))

    def logits_of(self, features: list[Tensor]) -> Tensor:
        """The localizer's class scores ``[B, c]`` of an image's features, with a fresh dropout pattern in training."""
        return self.localizer(features)

    def localize(self, x: Tensor, dropout: Tensor | None = None) -> Localized:
        """Scores and mask by M (equations 8, 10, 11); ``dropout`` of an earlier call on these samples, or None."""
        return self._localized(self.class_maps(x), x.shape[2], x.shape[3], dropout)

    def localize_from(self, features: list[Tensor], height: int, width: int) -> Localized:
        """As :meth:`localize`, where the trunk has run already; ``features`` are those of :meth:`features`."""
        return self._localized(self.localizer.class_maps(features), height, width, None)

    def _localized(self, maps: Tensor, height: int, width: int, dropout: Tensor | None) -> Localized:
        if dropout is None:
            dropout = self.localizer.pooling.draw_dropout(maps)
        logits = self.localizer.pooling(maps, dropout)
        if torch.jit.is_scripting():
            mask = self._mask(maps, logits, height, width)
        else:  # autocast would round the matrix products, and so the mask, to 8 bits
            with torch.autocast(maps.device.type, enabled=False):
                mask = self._mask(maps, logits, height, width)
        return Localized(logits, mask, dropout)

    def _mask(self, maps: Tensor, logits: Tensor, height: int, width: int) -> Tensor:
        if not self.differentiable_mask:
            maps, logits = maps.detach(), logits.detach()
        if not self.multi_label:
            maps = activation_map(maps, logits.softmax(dim=1))
        evidence = resize(maps, height, width)
        mode = self.normalisation if self.training or self.normalisation == "none" else "sample"
        return pseudo_threshold(normalise(evidence, mode), self.omega, self.sigma)

    def decidable(self, localized: Localized) -> Tensor:
        """The image's decidable region, whichever its classes.

        Returns:
            ``[B, 1, H, W]`` ``R+``: ``localized.mask`` itself; where an image may have several classes, the largest
            ``R+_k`` of those at least as probable as not, and of the most probable one whatever its probability.
        """
        if not self.multi_label:
            return localized.mask
        return torch.where(self._named(localized), localized.mask, 0.0).amax(dim=1, keepdim=True)

    def _named(self, localized: Localized) -> Tensor:
        """``[B, c, 1, 1]`` bool: the classes that M names, at least one."""
        p = localized.logits.sigmoid()
        return ((p >= self.least_probability) | (p == p.amax(dim=1, keepdim=True))).unsqueeze(2).unsqueeze(3)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class scores as probabilities.

        Args:
            logits: ``[B, c]``, of M or of C.

        Returns:
            ``[B, c]``, in [0, 1]; each row sums to 1, unless an image may have several classes: those have no
            temperature.
        """
        return logits.sigmoid() if self.multi_label else (logits / self.temperature).softmax(dim=1)

    def classify(self, x: Tensor) -> Tensor:
        """One forward of C on ``X+`` or ``X-``, masked images: ``[B, c]`` class scores."""
        if self.classifier_scale < 1.0:
            numerator, denominator = self.classifier_fraction
            height = smaller(larger(scaled(x.shape[2], numerator, denominator), self.smallest_side), x.shape[2])
            width = smaller(larger(scaled(x.shape[3], numerator, denominator), self.smallest_side), x.shape[3])
            x = bilinear(x, opaque(height), opaque(width), self.classifier_align_corners)
        return self.classifier([self.trunk(x)])

    def forward(self, image: Tensor) -> Tensor:
        """Which pixels decided, and for which class.

        Returns:
            ``[B, 1 + c, H, W]``: channel 0 is ``R-``, channel k is ``R+ p(class k | X+)``; the channels sum to 1. Where
            an image may have several classes, channel k is the part of ``R+`` that falls to class k, in proportion to
            ``p(class k | X+) R+_k`` of those that M names: the most likely channel of a pixel is its class, but how
            probable a class is of the image does not follow from channels that share, see :meth:`presence`.
        """
        return self.answer(image)[0]

    def answer(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The output of :meth:`forward`, and the class scores of M, ``[B, c]``, a by-product."""
        x = self.normalise(image)
        localized = self.localize(x)
        mask = self.decidable(localized)
        return self._prediction(localized, mask, self.classify(x * mask)), localized.logits

    @torch.jit.unused
    def localizer_answer(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`answer`, with the class of M instead of C, not run: the mask at the cost of one forward."""
        localized = self.localize(self.normalise(image))
        return self._prediction(localized, self.decidable(localized), localized.logits), localized.logits

    def _prediction(self, localized: Localized, mask: Tensor, logits: Tensor) -> Tensor:
        """``[B, 1 + c, H, W]`` of a mask and class scores."""
        if not self.multi_label:
            return distribution(mask, self.probabilities(logits))
        # As a softmax of logarithms, finite also where all p(k) or all regions are too small for float32.
        weights = F.logsigmoid(logits).unsqueeze(2).unsqueeze(3) + localized.mask.clamp(min=1e-30).log()
        shares = weights.masked_fill(~self._named(localized), -torch.inf).softmax(dim=1)
        return torch.cat([1 - mask, mask * shares], dim=1)

    def presence(self, image: Tensor) -> Tensor:
        """``[B, c]``, ``p(class k | X+)``, which :meth:`forward` does not hold where there may be several classes."""
        x = self.normalise(image)
        return self.probabilities(self.classify(x * self.decidable(self.localize(x))))

    @torch.jit.unused
    def settings(self) -> dict[str, Any]:
        """What must be the same for weights to mean the same; the pooling's dropout, for training only, is left out."""
        return {
            **super().settings(),
            **self.localizer.settings(),
            "classifier_scale": self.classifier_scale,
            "classifier_align_corners": self.classifier_align_corners,
            "normalisation": self.normalisation,
            "omega": self.omega,
            "sigma": self.sigma,
            "map_stride": self.map_stride,
            "multi_label": self.multi_label,
        }
