# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Derive masks from a classifier: CAM with any pooling (WILDCAT is one), Grad-CAM and Grad-CAM++."""

# No `from __future__ import annotations` here: TorchScript cannot read those of a method it leaves out.
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from glas_wsol.networks.base import TileNetwork, choose, seeded
from glas_wsol.networks.grad_cam import grad_cam, grad_cam_pp
from glas_wsol.networks.head import Head
from glas_wsol.networks.hypercolumn import join
from glas_wsol.networks.maps import distribution, score_map
from glas_wsol.networks.trunks import Trunk

__all__ = ["ClassActivationNetwork"]


class ClassActivationNetwork(TileNetwork):
    """A classifier with one head; its mask is the predicted class's map, min-max normalised per image, at 0.5.

    Trained by the cross-entropy of :meth:`logits`. With ``pooling="average"`` it is CAM (Zhou et al., CVPR 2016), with
    ``"max"`` and ``"lse"`` the same with other pooling, with ``"wildcat"`` and ``modalities=5`` WILDCAT (Durand et al.,
    CVPR 2017). The explanation does not depend on the weights: the same weights serve all three explanations.

    TorchScript: with ``explanation="cam"``; the other two need gradients and refuse to run when scripted.

    All other arguments are those of :class:`~glas_wsol.networks.base.TileNetwork`.

    Args:
        pooling: see :func:`~glas_wsol.networks.pooling.build_pooling`. Defaults to ``"average"``.
        pooling_options: the pooling's arguments.
        modalities: maps per class. Defaults to 1.
        explanation: ``"cam"`` (default) for the class map, ``"grad_cam"`` or ``"grad_cam++"`` for the maps of
            :mod:`glas_wsol.networks.grad_cam` on the features that the head reads.
        map_stride: px between two positions of a class map: 32 (default, the paper's), 16 or 8, where the features of
            the trunk's stages of those strides are read too, see :mod:`glas_wsol.networks.hypercolumn`.
        seed: seed of the initial weights, so that they do not depend on what was drawn before; None draws on.
    """

    def __init__(
        self,
        trunk: str | Trunk = "resnet18",
        num_classes: int = 2,
        weights: str = "auto",
        pooling: str = "average",
        pooling_options: Mapping[str, Any] | None = None,
        modalities: int = 1,
        explanation: str = "cam",
        batch_norm: str = "batch",
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        map_stride: int = 32,
        seed: int | None = None,
    ) -> None:
        choose("explanation", explanation, ("cam", "grad_cam", "grad_cam++"))
        with seeded(seed):
            super().__init__(trunk, num_classes, weights, batch_norm, pixel_mean, pixel_std, map_stride)
            self.head = Head(self.feature_channels(), num_classes, modalities, pooling, pooling_options)
        self.explanation = explanation

    def class_maps(self, x: Tensor) -> Tensor:
        """Class activation maps: ``[B, c, h, w]`` at stride ``map_stride``, at least float32."""
        return self.head.class_maps(self.features(x))

    def logits(self, x: Tensor) -> Tensor:
        """Class scores, with a fresh dropout pattern in training: ``[B, c]``, at least float32."""
        return self.logits_of(self.features(x))

    def logits_of(self, features: list[Tensor]) -> Tensor:
        """:meth:`logits` from the features of an image."""
        return self.head(features)

    def forward(self, image: Tensor) -> Tensor:
        """Which pixels decided, and for which class, see :class:`~glas_wsol.networks.base.TileNetwork`."""
        features = self.features(self.normalise(image))
        maps = self.head.class_maps(features)
        logits = self.head.pooling(maps, self.head.pooling.draw_dropout(maps))
        predicted = logits.argmax(dim=1)
        if self.explanation == "cam":
            index = predicted.view(-1, 1, 1, 1).expand(-1, 1, maps.shape[2], maps.shape[3])
            evidence = maps.gather(1, index)
        else:
            evidence = self._from_gradient(join(features), predicted)
        return distribution(score_map(evidence, image.shape[2], image.shape[3]), self.probabilities(logits))

    @torch.jit.unused
    def _from_gradient(self, features: Tensor, predicted: Tensor) -> Tensor:
        """``[B, 1, h, w]`` from a gradient that reaches the features and goes no further: no hook, no ``.grad``."""
        # Evaluators run without gradients, and a tensor made in inference mode never gets one: so it is copied.
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(features.device.type, enabled=False):
            leaf = features.detach().clone().to(self.head.to_maps.weight.dtype).requires_grad_()
            maps = self.head.class_maps([leaf])
            # Images do not interact in the head, so the sum's gradient holds each image's own.
            score = self.head.pooling(maps).gather(1, predicted.clone().unsqueeze(1)).sum()
            (gradient,) = torch.autograd.grad(score, leaf)
        leaf = leaf.detach()
        if self.explanation == "grad_cam":
            evidence = grad_cam(leaf, gradient)
        elif self.stages_read == 1 and bool((leaf >= 0).all()):
            evidence = grad_cam_pp(leaf, gradient)
        else:  # it is defined for activations of at least 0; a negative one is a positive one of opposite gradient
            halves = torch.cat([leaf.relu(), (-leaf).relu()], dim=1)
            evidence = grad_cam_pp(halves, torch.cat([gradient, -gradient], dim=1))
        # Its scale means nothing, and the normalisation takes activations to be of order 1.
        return evidence / evidence.amax(dim=(1, 2, 3), keepdim=True).clamp(min=torch.finfo(evidence.dtype).tiny)

    @torch.jit.unused
    def settings(self) -> dict[str, Any]:
        """What must be the same for weights to mean the same; not the explanation, which reads the same weights."""
        return {**super().settings(), **self.head.settings(), "map_stride": self.map_stride}
