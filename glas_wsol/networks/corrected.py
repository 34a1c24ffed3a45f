# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Define the network that learns from corrected outlines: a mask of its own, and the class of the first model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glas_wsol.errors import ConfigError, count
from glas_wsol.networks.attention import AttentionNetwork
from glas_wsol.networks.base import TileNetwork, choose, construct, seeded
from glas_wsol.networks.cam import ClassActivationNetwork
from glas_wsol.networks.decoder import PyramidDecoder
from glas_wsol.networks.frozen_norm import frozen_norms
from glas_wsol.networks.maps import at_least_float32, distribution, resize_exactly
from glas_wsol.networks.minmax import MinMaxEntropyNetwork
from glas_wsol.networks.refined import RefinedNetwork
from glas_wsol.networks.trunks import Stages, Trunk

__all__ = ["CorrectedNetwork"]

_FIRST = (RefinedNetwork, MinMaxEntropyNetwork, ClassActivationNetwork, AttentionNetwork)
_KEPT = 2  # stages of the trunk, at strides 2 and 4, of edges and colours, stay: a third of a step's time


class CorrectedNetwork(TileNetwork):
    """The mask is drawn by a trunk and a decoder of its own; the class is the first model's, which is not trained.

    Trunk and decoder begin as those of the first model, see :meth:`begin`, and are trained by :meth:`mask_logits`.

    All other arguments are those of :class:`~glas_wsol.networks.base.TileNetwork`.

    Args:
        first: ``settings()`` of the first model's network, trained from image labels, on the same kind of trunk.
        corrections: of every corrected image by its name the SHA-256 of its outlines. Defaults to none.
        batch_norm: has no effect: the trunk's statistics stay those of the first model.

    Raises:
        ConfigError: if the first model names no class, or several of an image.
    """

    supervision = "pixel labels"
    names_class = True
    classifier_knows_mask = False
    __jit_unused_properties__ = ("local",)

    def __init__(
        self,
        trunk: str | Trunk = "resnet18",
        num_classes: int = 2,
        weights: str = "auto",
        *,
        first: Mapping[str, Any],
        corrections: Mapping[str, str] | None = None,
        batch_norm: str = "frozen",
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        seed: int | None = None,
    ) -> None:
        choose("batch_norm", batch_norm, ("batch", "frozen"))
        if first.get("multi_label", False):
            fix = "start from a model of one class per image"
            raise ConfigError("an image may have several classes, and one mask cannot show them", "corrections", fix)
        with seeded(seed):
            super().__init__(trunk, num_classes, weights, "frozen", pixel_mean, pixel_std)
            self.decoder = PyramidDecoder(self.trunk.stage_channels()[1:], first.get("decoder_width", 64))
        kinds: dict[str, type[nn.Module]] = {one.__name__: one for one in _FIRST}
        arguments = {"trunk": copy.deepcopy(trunk), "num_classes": num_classes, "weights": "none", "seed": seed}
        first_model: Any = construct(kinds, {"class": MinMaxEntropyNetwork.__name__, **first}, arguments)
        self.first = first_model
        for parameter in [*self.first.parameters(), *_low(self.trunk).parameters()]:
            parameter.requires_grad_(False)
        self.corrections = dict(corrections or {})
        self.supervision = f"image labels and {count(len(self.corrections), 'corrected tile')}"
        # A class can be read from the channels of an empty mask too: float32 holds 1e-6 p as exactly as p.
        self.least_kept = 1e-6

    @property
    def local(self) -> bool:
        """Whether the decoder's statistics are frozen, see :class:`~glas_wsol.networks.refined.RefinedNetwork`."""
        return all(layer.frozen for layer in frozen_norms(self.decoder).values())

    @torch.jit.unused
    def begin(self) -> None:
        """Take over the trunk of the first model and, where it has one, its decoder."""
        self.trunk.load_state_dict(self.first.trunk.state_dict())
        if isinstance(self.first, RefinedNetwork):
            self.decoder.load_state_dict(self.first.decoder.state_dict())

    def train(self, mode: bool = True) -> CorrectedNetwork:
        """Set training mode; the first model stays in evaluation mode."""
        super().train(mode)
        self.first.eval()
        return self

    def mask_logits(self, x: Tensor) -> Tensor:
        """Scores of the mask.

        Args:
            x: ``[B, 3, H, W]``, normalised.

        Returns:
            ``[B, 1, H, W]``, at least float32; above 0 is decidable.
        """
        scores = self.decoder(self.trunk.stages_of(x)[1:])
        return resize_exactly(at_least_float32(scores), x.shape[2], x.shape[3])

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
        """Optimiser groups: the trunk's later stages, and the decoder.

        Args:
            trunk_lr: learning rate of the stages.
            head_lr: learning rate of the decoder.
        """
        trunk = [parameter for parameter in self.trunk.parameters() if parameter.requires_grad]
        return [{"params": trunk, "lr": trunk_lr}, {"params": list(self.decoder.parameters()), "lr": head_lr}]

    @torch.jit.unused
    def settings(self) -> dict[str, Any]:
        """What must be the same for weights to mean the same."""
        return {**super().settings(), "first": self.first.settings(), "corrections": self.corrections}


def _low(trunk: Trunk) -> nn.ModuleList:
    """The stages that stay; none of a trunk that is not made of stages."""
    return nn.ModuleList(list(trunk.stages)[:_KEPT] if isinstance(trunk.stages, Stages) else [])
