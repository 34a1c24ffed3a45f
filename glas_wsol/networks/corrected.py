# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Define the network that learns from corrected outlines: a U-Net's mask, and the class of the model it began with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from glas_wsol.errors import ConfigError, count
from glas_wsol.networks.attention import AttentionNetwork
from glas_wsol.networks.base import construct
from glas_wsol.networks.cam import ClassActivationNetwork
from glas_wsol.networks.maps import distribution
from glas_wsol.networks.minmax import MinMaxEntropyNetwork
from glas_wsol.networks.refined import RefinedNetwork
from glas_wsol.networks.trunks import Trunk
from glas_wsol.networks.unet import SegmentationNetwork

__all__ = ["CorrectedNetwork"]

_FIRST = (RefinedNetwork, MinMaxEntropyNetwork, ClassActivationNetwork, AttentionNetwork)


class CorrectedNetwork(SegmentationNetwork):
    """The mask is that of a U-Net on a trunk of its own; the class is the first model's, which is not trained further.

    All other arguments are those of :class:`~glas_wsol.networks.unet.SegmentationNetwork`.

    Args:
        first: ``settings()`` of the first model's network, trained from image labels, on the same kind of trunk.
        corrections: of every corrected image by its name the SHA-256 of its outlines. Defaults to none.

    Raises:
        ConfigError: if the first model names no class, or several of an image.
    """

    supervision = "pixel labels"
    names_class = True
    classifier_knows_mask = False

    def __init__(
        self,
        trunk: str | Trunk = "resnet18",
        num_classes: int = 2,
        weights: str = "auto",
        *,
        first: Mapping[str, Any],
        corrections: Mapping[str, str] | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(trunk, num_classes, weights, seed=seed, **options)
        if first.get("multi_label", False):
            fix = "start from a model of one class per image"
            raise ConfigError("an image may have several classes, and one mask cannot show them", "corrections", fix)
        kinds: dict[str, type[nn.Module]] = {one.__name__: one for one in _FIRST}
        arguments = {"trunk": copy.deepcopy(trunk), "num_classes": num_classes, "weights": "none", "seed": seed}
        first_model: Any = construct(kinds, {"class": MinMaxEntropyNetwork.__name__, **first}, arguments)
        self.first = first_model
        for parameter in self.first.parameters():
            parameter.requires_grad_(False)
        self.corrections = dict(corrections or {})
        self.supervision = f"image labels and {count(len(self.corrections), 'corrected tile')}"
        # A class can be read from the channels of an empty mask too: float32 holds 1e-6 p as exactly as p.
        self.least_kept = 1e-6

    def train(self, mode: bool = True) -> CorrectedNetwork:
        """Set training mode; the first model stays in evaluation mode."""
        super().train(mode)
        self.first.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Which pixels are decidable, and the class, see :class:`~glas_wsol.networks.base.TileNetwork`."""
        mask = torch.sigmoid(self.mask_logits(self.normalise(image))).clamp(min=self.least_kept)
        with torch.no_grad():
            shares = self.first(image)[:, 1:].double().sum(dim=[2, 3])
        shares = (shares / shares.sum(dim=1, keepdim=True)).clamp(min=1e-12)
        return distribution(mask, self.probabilities(shares.log()).to(mask.dtype))

    @torch.jit.unused
    def undecidable(self, image: Tensor) -> Tensor:
        """``R-`` alone, ``[B, 1, H, W]``, without naming a class. ``image``: ``[B, 3, H, W]``, in [0, 1]."""
        return 1 - torch.sigmoid(self.mask_logits(self.normalise(image)))

    @torch.jit.unused
    def parameter_groups(self, trunk_lr: float, head_lr: float) -> list[dict[str, Any]]:
        """As :meth:`~glas_wsol.networks.base.TileNetwork.parameter_groups`, without the first model."""
        groups = super().parameter_groups(trunk_lr, head_lr)
        return [{**one, "params": [p for p in one["params"] if p.requires_grad]} for one in groups]

    @torch.jit.unused
    def settings(self) -> dict[str, Any]:
        """What must be the same for weights to mean the same."""
        return {**super().settings(), "first": self.first.settings(), "corrections": self.corrections}
