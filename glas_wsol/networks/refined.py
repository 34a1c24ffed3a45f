# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The second stage: a light decoder for the mask on the frozen trunk of a network that knows the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.networks.base import TileNetwork, seeded
from glas_wsol.networks.maps import at_least_float32, distribution, resize
from glas_wsol.networks.minmax import Localized, MinMaxEntropyNetwork
from glas_wsol.networks.trunks import Trunk

__all__ = ["PyramidDecoder", "RefinedNetwork"]


class PyramidDecoder(nn.Module):
    """Features of strides 32, 16, 8 and 4, summed from coarse to fine (Lin et al., CVPR 2017), to one mask score.

    Args:
        channels: of the trunk's stages at strides 4, 8, 16 and 32.
        width: feature channels throughout. Defaults to 64.
    """

    def __init__(self, channels: Sequence[int], width: int = 64) -> None:
        super().__init__()
        if width < 8 or width % 8:
            raise ConfigError(f"decoder_width={width}", "network", "give a positive multiple of 8")
        self.lateral = nn.ModuleList([nn.Conv2d(n, width, kernel_size=1) for n in channels])
        # Group normalisation: what a pixel scores does not depend on the rest of the mini-batch.
        self.fuse = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.ReLU())
                for _ in channels[1:]
            ]
        )
        self.score = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Scores of the mask.

        Args:
            features: ``[B, n, h, w]`` at strides 4, 8, 16 and 32.

        Returns:
            ``[B, 1, h, w]`` at stride 4; above 0 is foreground.
        """
        laterals: list[Tensor] = []
        for index, lateral in enumerate(self.lateral):
            laterals.append(lateral(features[index]))
        y = laterals[-1]
        step = len(laterals) - 2
        for fuse in self.fuse:
            finer = laterals[step]
            up = F.interpolate(y, size=[finer.shape[2], finer.shape[3]], mode="bilinear", align_corners=False)
            y = fuse(finer + up)
            step -= 1
        return self.score(y)


class RefinedNetwork(TileNetwork):
    """A first-stage network, frozen, and a decoder on its trunk that draws the mask at stride 4 (method.md, 10).

    The class stays the first stage's, decided on what the decoder kept: C on ``X R+`` where there is a classifier of
    masked images (:class:`~glas_wsol.networks.minmax.MinMaxEntropyNetwork`), else the class scores of the image.

    Args:
        trunk: name of the trunk (see :data:`~glas_wsol.networks.trunks.TRUNKS`) or a trunk, of the first stage.
        num_classes: ``c``, at least 2.
        weights: the trunk's weights; those of a trained first stage are loaded over them. Defaults to ``"auto"``.
        base: ``settings()`` of the first stage's network.
        decoder_width: feature channels of the decoder. Defaults to 64.
        batch_norm: has no effect: the trunk is frozen. Kept so that every network takes it.
        pixel_mean: mean subtracted from images in [0, 1]; defaults to what the trunk's weights expect.
        pixel_std: divisor after that; defaults to what the trunk's weights expect.
        seed: seed of the decoder's initial weights; None draws on.

    Raises:
        ConfigError: if a value is out of range, or the first stage names no class.
    """

    __constants__ = ("has_classifier",)  # TorchScript compiles only the branch that is taken
    __jit_unused_properties__ = ("trunk",)

    def __init__(
        self,
        trunk: str | Trunk = "resnet18",
        num_classes: int = 2,
        weights: str = "auto",
        base: Mapping[str, Any] | None = None,
        decoder_width: int = 64,
        batch_norm: str = "frozen",
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        seed: int | None = None,
    ) -> None:
        from glas_wsol.networks.registry import build_network  # the registry lists this class

        with seeded(seed):
            arguments = {"weights": weights, "num_classes": num_classes, "seed": seed}
            network = build_network(base or {}, trunk=trunk, pixel_mean=pixel_mean, pixel_std=pixel_std, **arguments)
            if not isinstance(network, TileNetwork) or not network.names_class:
                what = f"{type(network).__name__} names no class to keep"
                raise ConfigError(what, "refinement", "start from a row that learns from image labels")
            super().__init__(network.trunk, num_classes, weights, "frozen", pixel_mean, pixel_std)
            del self.trunk  # once in the weights' file: as the first stage's
            self.base = network
            self.decoder = PyramidDecoder(self.trunk.stage_channels()[1:], decoder_width)
        self.base_settings = dict(base or network.settings())
        self.decoder_width = decoder_width
        self.supervision = network.supervision
        self.has_classifier = isinstance(network, MinMaxEntropyNetwork)
        for parameter in self.base.parameters():
            parameter.requires_grad_(False)

    @property
    def trunk(self) -> Trunk:
        """The first stage's trunk."""
        return self.base.trunk

    def train(self, mode: bool = True) -> RefinedNetwork:
        """Set training mode; everything but the decoder stays in evaluation mode."""
        super().train(mode)
        self.base.eval()
        return self

    def mask_logits(self, x: Tensor) -> Tensor:
        """Scores of the mask; no gradient reaches the trunk.

        Args:
            x: ``[B, 3, H, W]``, normalised.

        Returns:
            ``[B, 1, H, W]``, at least float32; above 0 is decidable.
        """
        with torch.no_grad():
            features = self.base.trunk.stages_of(x)
        scores = at_least_float32(self.decoder(features[1:]))
        return resize(scores, x.shape[2], x.shape[3], False)

    def localize(self, x: Tensor) -> Localized:
        """The mask, and the first stage's class scores of the whole image.

        Args:
            x: ``[B, 3, H, W]``, normalised.
        """
        return Localized(self.whole_image_logits(x), torch.sigmoid(self.mask_logits(x)), None)

    def whole_image_logits(self, x: Tensor) -> Tensor:
        """Class scores of the image with nothing erased, ``[B, c]``: of M, where there is one.

        Args:
            x: ``[B, 3, H, W]``, normalised.
        """
        if self.has_classifier:
            return self.base.localize(x).logits
        else:
            return self.base.logits(x)

    def classify(self, x: Tensor) -> Tensor:
        """Class scores of a masked image.

        Args:
            x: ``[B, 3, H, W]``, normalised and masked.

        Returns:
            ``[B, c]``.
        """
        if self.has_classifier:
            return self.base.classify(x)
        else:
            return self.base.logits(x)

    @torch.jit.unused
    def undecidable(self, image: Tensor) -> Tensor:
        """``R-`` alone, without naming a class.

        Args:
            image: ``[B, 3, H, W]``, in [0, 1].

        Returns:
            ``[B, 1, H, W]``, in [0, 1].
        """
        return 1 - torch.sigmoid(self.mask_logits(self.normalise(image)))

    def forward(self, image: Tensor) -> Tensor:
        """Which pixels are decidable, and the class of the image.

        Args:
            image: ``[B, 3, H, W]``, in [0, 1].

        Returns:
            ``[B, 1 + c, H, W]``: channel 0 is ``R-``, channel k is ``R+ p(class k)``; the channels sum to 1.
        """
        x = self.normalise(image)
        # A class can be read from the channels of an empty mask too: float32 holds 1e-6 p as exactly as p.
        mask = torch.sigmoid(self.mask_logits(x)).clamp(min=1e-6)
        logits = self.classify(x * mask if self.has_classifier else x)
        return distribution(mask, logits.softmax(dim=1))

    @torch.jit.unused
    def parameter_groups(self, trunk_lr: float, head_lr: float) -> list[dict[str, Any]]:
        """Optimiser groups: the decoder alone is trained.

        Args:
            trunk_lr: not used.
            head_lr: learning rate of the decoder.
        """
        return [{"params": list(self.decoder.parameters()), "lr": head_lr}]

    @torch.jit.unused
    def settings(self) -> dict[str, Any]:
        """What must be the same for weights to mean the same.

        Returns:
            The arguments of this class that say so, as JSON values.
        """
        return {**super().settings(), "base": self.base_settings, "decoder_width": self.decoder_width}
