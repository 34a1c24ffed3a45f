# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Define the second stage: a light decoder for the mask on the frozen trunk of a trained first-stage network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from glas_wsol.errors import ConfigError
from glas_wsol.networks.attention import AttentionNetwork
from glas_wsol.networks.base import TileNetwork, choose, construct, seeded
from glas_wsol.networks.cam import ClassActivationNetwork
from glas_wsol.networks.decoder import PyramidDecoder
from glas_wsol.networks.frozen_norm import frozen_norms
from glas_wsol.networks.maps import at_least_float32, distribution, resize_exactly
from glas_wsol.networks.minmax import Localized, MinMaxEntropyNetwork
from glas_wsol.networks.trunks import Trunk

__all__ = ["RefinedNetwork"]


class RefinedNetwork(TileNetwork):
    """A first-stage network, frozen, and a decoder on its trunk that draws the mask at stride 4 (method.md, 10).

    The class stays the first stage's, by default as it would name it alone: where there is a classifier C, C on the
    first stage's own ``X R+``, on which it was trained and by whose errors its model was chosen. Alternatives are M on
    the whole image, or C on the decoder's decidable region: but on masks unlike those that it was trained on, C is less
    sure and more often wrong.

    Args:
        trunk: name of the trunk (see :data:`~glas_wsol.networks.trunks.TRUNKS`) or a trunk, of the first stage.
        num_classes: ``c``, at least 2.
        weights: the trunk's weights; those of a trained first stage are loaded over them. Defaults to ``"auto"``.
        base: ``settings()`` of the first stage's network; defaults to those of a
            :class:`~glas_wsol.networks.minmax.MinMaxEntropyNetwork`.
        decoder_width: feature channels of the decoder. Defaults to 64.
        class_from: whose the class is: ``"first_stage"`` (default) the first stage's own; ``"localizer"`` M's of the
            whole image; ``"classifier"`` C's of the decoder's ``X R+``. Without a C the first two are the same.
        batch_norm: has no effect: the trunk is frozen. Here so that every network takes it.
        pixel_mean: mean subtracted from images in [0, 1]; defaults to what the trunk's weights expect.
        pixel_std: divisor after that; defaults to what the trunk's weights expect.
        seed: seed of the decoder's initial weights; None draws on.

    Raises:
        ConfigError: if a value is out of range, the first stage has no class scores of whole images or several classes
            per image, or there is no classifier to name the class.
    """

    classifier_knows_mask = False
    __constants__ = ("asks_classifier", "asks_localizer")  # TorchScript compiles only the branch that is taken
    __jit_unused_properties__ = ("trunk", "local")

    def __init__(
        self,
        trunk: str | Trunk = "resnet18",
        num_classes: int = 2,
        weights: str = "auto",
        base: Mapping[str, Any] | None = None,
        decoder_width: int = 64,
        class_from: str = "first_stage",
        batch_norm: str = "frozen",
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        seed: int | None = None,
    ) -> None:
        choose("class_from", class_from, ("first_stage", "localizer", "classifier"))
        choose("batch_norm", batch_norm, ("batch", "frozen"))
        arguments = {"trunk": trunk, "num_classes": num_classes, "weights": weights, "seed": seed}
        with seeded(seed):
            network = _first_stage(base or {}, {**arguments, "pixel_mean": pixel_mean, "pixel_std": pixel_std})
            super().__init__(network.trunk, num_classes, weights, "frozen", pixel_mean, pixel_std)
            del self._modules["trunk"]  # once in the weights' file: as the first stage's
            self.base = network
            self.decoder = PyramidDecoder(self.trunk.stage_channels()[1:], decoder_width, self.trunk.image_stages)
        self.base_settings = network.settings()
        self.decoder_width = decoder_width
        self.class_from = class_from
        # A class can be read from the channels of an empty mask too: float32 holds 1e-6 p as exactly as p.
        self.least_kept = 1e-6
        self.supervision = network.supervision
        self.has_classifier = isinstance(network, MinMaxEntropyNetwork)
        self.asks_classifier = class_from == "classifier"
        self.asks_localizer = class_from == "localizer" or not self.has_classifier
        if self.asks_classifier and not self.has_classifier:
            what = f"{type(network).__name__} has no classifier of masked images"
            raise ConfigError(what, "class_from=classifier", "set class_from=localizer")
        for parameter in self.base.parameters():
            parameter.requires_grad_(False)

    @property
    def trunk(self) -> Trunk:
        """The first stage's trunk."""
        return self.base.trunk

    @property
    def local(self) -> bool:
        """Whether trunk and decoder are local: its statistics are then frozen. The class is of the whole tile."""
        return self.trunk.local and all(layer.frozen for layer in frozen_norms(self).values())

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
            stages = self.base.trunk.stages_of(x)
        return self._drawn(stages, x.shape[2], x.shape[3])

    def _drawn(self, stages: list[Tensor], height: int, width: int) -> Tensor:
        return resize_exactly(at_least_float32(self.decoder(stages[1:])), height, width)

    def localize(self, x: Tensor) -> Localized:
        """The mask, and the first stage's class scores of the whole image: of M, where there is one.

        Args:
            x: ``[B, 3, H, W]``, normalised.
        """
        stages = self.base.trunk.stages_of(x)
        mask = torch.sigmoid(self._drawn(stages, x.shape[2], x.shape[3]))
        return Localized(self.base.logits_of(self.base.features_of(stages)), mask, None)

    @torch.jit.unused
    def classify(self, x: Tensor) -> Tensor:
        """Class scores of a masked image by the first stage's classifier C.

        Args:
            x: ``[B, 3, H, W]``, normalised and masked.

        Returns:
            ``[B, c]``.

        Raises:
            ConfigError: if there is none.
        """
        if not self.has_classifier:
            what = f"{type(self.base).__name__} has no classifier of masked images"
            raise ConfigError(what, "refinement", "call localize()")
        return self.base.classify(x)

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
        return self._answer(image)[0]

    @torch.jit.unused
    def answer(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The output of :meth:`forward`, and the first stage's class scores (of M, if there is one) of the image.

        Args:
            image: ``[B, 3, H, W]``, in [0, 1].

        Returns:
            ``[B, 1 + c, H, W]``, the prediction, and ``[B, c]``, class scores.
        """
        if self.asks_localizer:  # whose scores named the class: not computed twice
            return self.localizer_answer(image)
        prediction, features = self._answer(image)
        return prediction, self.base.logits_of(features)

    @torch.jit.unused
    def localizer_answer(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`answer`, with the class that the first stage (M, where there is one) names of the whole image.

        Args:
            image: ``[B, 3, H, W]``, in [0, 1].
        """
        localized = self.localize(self.normalise(image))
        mask = localized.mask.clamp(min=self.least_kept)
        return distribution(mask, self.probabilities(localized.logits)), localized.logits

    def _answer(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The prediction, and the features it was made of."""
        x = self.normalise(image)
        with torch.no_grad():
            stages = self.base.trunk.stages_of(x)
        mask = torch.sigmoid(self._drawn(stages, x.shape[2], x.shape[3])).clamp(min=self.least_kept)
        features = self.base.features_of(stages)
        logits = self.class_logits(x, features, mask)
        return distribution(mask, self.probabilities(logits)), features

    def class_logits(self, x: Tensor, features: list[Tensor], mask: Tensor) -> Tensor:
        """Class scores ``[B, c]`` of an image, by whom ``class_from`` says.

        Args:
            x: ``[B, 3, H, W]``, normalised.
            features: of :meth:`~glas_wsol.networks.base.TileNetwork.features_of`.
            mask: ``[B, 1, H, W]``, the decoder's.
        """
        if self.asks_classifier:
            return self.base.classify(x * mask)
        elif self.asks_localizer:
            return self.base.logits_of(features)
        else:
            return self.base.classify(x * self.base.localize_from(features, x.shape[2], x.shape[3]).mask)

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
            The arguments of this class that decide it, as JSON values.
        """
        own = {"base": self.base_settings, "decoder_width": self.decoder_width, "class_from": self.class_from}
        return {**super().settings(), **own}


def _first_stage(settings: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """A network whose class is that of whole images, computed from the trunk's features.

    Raises:
        ConfigError: if it is not of such a kind, or has several classes per image.
    """
    kinds = {one.__name__: one for one in (MinMaxEntropyNetwork, ClassActivationNetwork, AttentionNetwork)}
    name = settings.get("class", MinMaxEntropyNetwork.__name__)
    fix = "start from a method trained from image labels, one class per image"
    if name not in kinds:
        raise ConfigError(f"{name} has no class scores of whole images", "refinement", fix)
    if settings.get("multi_label", False):
        raise ConfigError("an image may have several classes, and one mask cannot show them", "refinement", fix)
    return construct(kinds, settings, arguments)
