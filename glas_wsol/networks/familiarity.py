# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Measure how much an image looks like the training images, from features that the trunk computes anyway."""

from __future__ import annotations

import base64
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.errors import ConfigError, WeightsError
from glas_wsol.utils.host_copy import to_host

__all__ = ["FAMILIARITY", "LEAST_IMAGES", "Familiarity", "Pooled", "pooled", "watched"]

FAMILIARITY = "familiarity"
"""Entry of ``model.json``."""

LEAST_IMAGES = 6
"""Fewer training images do not say what is usual."""

KINDS = ("texture", "colour")
"""What is compared: means of the trunk's channels at strides 8 and 16; which colours the image's contrast has."""

Pooled = dict[str, Tensor]
"""Of each of :data:`KINDS`: ``[B, r, N]`` float64 on the CPU, of ``r`` parts of every image."""

_STAGES = (2, 3)  # finer stages hardly see the magnification, the last one sees hardly anything else
_DIRECTIONS = 32
_FOLDS = 20
_ARRAYS = ("mean", "scale", "variances", "directions")
_NUMBERS = ("rest", "usual", "spread", "slope", "pixels", "images")
_FIX = "delete its entry 'familiarity', or train again"


def pooled(x: Tensor, stages: Sequence[Tensor], parts: int = 1) -> Pooled:
    """What is compared of images.

    Args:
        x: ``[B, 3, H, W]``, normalised.
        stages: what the trunk makes of it, see :meth:`~glas_wsol.networks.trunks.Trunk.stages_of`.
        parts: of each side: 1 (default) for the whole image, 2 for its quarters.
    """
    texture = torch.cat([_means(stages[index], parts) for index in _STAGES], dim=2)
    contrast = (_means(x.double().square(), parts) - _means(x.double(), parts).square()).clamp(min=1e-6).log()
    colour = contrast[..., :2] - contrast[..., 2:]  # not how strong the stain is, but which colours it has
    found = to_host(texture.detach().double(), colour.detach())
    return dict(zip(KINDS, found, strict=True))


def _means(features: Tensor, parts: int) -> Tensor:
    values = features if features.dtype == torch.float64 else features.float()
    return F.adaptive_avg_pool2d(values, parts).flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class _Normal:
    """Training images as a normal distribution, and how far from its mean is usual.

    The distribution is that of probabilistic principal components (Tipping and Bishop, 1999): a variance along each of
    a few directions, and one along all others.

    Attributes:
        mean: ``[N]``, of the features.
        scale: ``[N]``, above 0: the features are divided by it first.
        variances: ``[k]``, along the directions.
        directions: ``[k, N]``, orthogonal unit vectors.
        rest: the variance along every other direction, above 0.
        usual: mean logarithm of the distance of training images that were left out of the fit.
        spread: its standard deviation, above 0.
        slope: how much larger that logarithm is for an image of a part of the area, per logarithm of the part.
        pixels: usual area of a training image, px of the training resolution.
        images: how many there are.
    """

    mean: Tensor
    scale: Tensor
    variances: Tensor
    directions: Tensor
    rest: float
    usual: float = 0.0
    spread: float = 1.0
    slope: float = 0.0
    pixels: float = 1.0
    images: int = 2

    @classmethod
    def of(cls, features: Tensor, **usual: Any) -> _Normal:
        """The distribution of ``[M, r, N]``."""
        samples = features.flatten(0, 1)
        mean, scale = samples.mean(dim=0), samples.std(dim=0, correction=0)
        scale = scale.clamp(min=max(1e-3 * float(scale.mean()), 1e-9))  # a channel that hardly fires decides nothing
        _, values, directions = torch.linalg.svd((samples - mean) / scale, full_matrices=False)
        variances, count = values.square() / len(samples), samples.shape[1]
        kept = min(_DIRECTIONS, max(1, len(features) // 3), count - 1)
        rest = max(float(variances[kept:].sum()) / (count - kept), 1e-6)
        return cls(mean, scale, variances[:kept].clamp(min=rest), directions[:kept], rest, **usual)

    def distance(self, features: Tensor) -> Tensor:
        """Squared Mahalanobis distance from the mean, per dimension: ``[..., N]`` to ``[...]``, above 0."""
        z = (features.double() - self.mean) / self.scale
        along = (z @ self.directions.T).square()
        beside = (z.square().sum(dim=-1) - along.sum(dim=-1)).clamp(min=0)
        total = (along / self.variances).sum(dim=-1) + beside / self.rest
        return (total / z.shape[-1]).clamp(min=1e-12)

    def share(self, features: Tensor, pixels: float) -> Tensor:
        """Share of images of the training's kind, and of this area, that lie farther: ``[..., N]`` to ``[...]``."""
        usual = self.usual + self.slope * max(0.0, math.log(self.pixels / pixels))
        z = (self.distance(features).log() - usual) / (self.spread * math.sqrt(1 + 1 / self.images))
        return torch.as_tensor(stats.t.sf(z.numpy(), self.images - 1))

    def entry(self) -> dict[str, Any]:
        arrays = {name: getattr(self, name).numpy().astype("<f4").tobytes() for name in _ARRAYS}
        coded = {name: base64.b64encode(one).decode("ascii") for name, one in arrays.items()}
        return {**{name: getattr(self, name) for name in _NUMBERS}, **coded}

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> _Normal:
        arrays = [np.frombuffer(base64.b64decode(entry[name], validate=True), "<f4") for name in _ARRAYS]
        mean, scale, variances, directions = (torch.tensor(one, dtype=torch.float64) for one in arrays)
        numbers: dict[str, Any] = {name: float(entry[name]) for name in _NUMBERS}
        numbers["images"] = int(entry["images"])
        positive = torch.cat([scale, variances, torch.tensor([numbers["rest"], numbers["spread"], numbers["pixels"]])])
        finite = torch.cat([mean, directions, positive, torch.tensor([numbers["usual"], numbers["slope"]])])
        if len(scale) != len(mean) or numbers["images"] < 2 or not (positive > 0).all() or not finite.isfinite().all():
            raise ValueError("not a description")
        return cls(mean, scale, variances, directions.view(len(variances), len(mean)), **numbers)


class Familiarity:
    """What is usual for the training images of a model.

    Familiarity of an image is the share of images of their kind that lie farther from the mean of the training images.
    The logarithm of the distance of training images that were left out, patient by patient, is taken to be normal, with
    estimated mean and variance: so a new image of the same kind is as often below 0.01 as one in 100. Of texture and
    colour the less familiar counts, with Sidak's correction for having two.

    Args:
        kinds: what is usual for each of :data:`KINDS`.
    """

    def __init__(self, kinds: Mapping[str, _Normal]) -> None:
        self.kinds = dict(kinds)

    @classmethod
    def fit(cls, images: Sequence[Pooled], pixels: Sequence[float], groups: Sequence[Hashable]) -> Familiarity:
        """Describe training images.

        Args:
            images: of each, ``[1, r, N]``: the whole image first, then its parts, which keep the size of a tile from
                being taken for its kind.
            pixels: area of each at the training resolution.
            groups: patient of each: what is left out together.

        Raises:
            ConfigError: if there are fewer than :data:`LEAST_IMAGES`, or all are of one patient.
        """
        members = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        folds = min(_FOLDS, len(members))
        if len(images) < LEAST_IMAGES or folds < 2:
            what = f"{len(images)} training images of {len(members)} patients do not say what is usual"
            raise ConfigError(what, "familiarity", f"give at least {LEAST_IMAGES} images, of two patients")
        fold = torch.tensor([members[group] % folds for group in groups])
        kinds = {}
        for kind in KINDS:
            features = torch.cat([one[kind] for one in images])
            logs = torch.empty(features.shape[:2], dtype=torch.float64)
            for number in range(folds):
                out = fold == number
                logs[out] = _Normal.of(features[~out]).distance(features[out]).log()
            parts = float((logs[:, 1:] - logs[:, :1]).mean()) if logs.shape[1] > 1 else 0.0
            kinds[kind] = _Normal.of(
                features,
                usual=float(logs[:, 0].mean()),
                spread=max(float(logs[:, 0].std()), 1e-3),
                slope=max(0.0, parts / math.log(max(2, logs.shape[1] - 1))),
                pixels=float(np.median(pixels)),
                images=len(images),
            )
        return cls(kinds)

    def share(self, images: Pooled, pixels: float) -> Tensor:
        """How familiar images are.

        Args:
            images: ``[B, r, N]`` of each kind.
            pixels: area of an image at the training resolution.

        Returns:
            ``[B, r]``, float64, in [0, 1].
        """
        shares = torch.stack([one.share(images[kind], pixels) for kind, one in self.kinds.items()])
        return 1 - (1 - shares.amin(dim=0)) ** len(self.kinds)

    def entry(self) -> dict[str, Any]:
        """As JSON values: arrays as base64 of float32, least significant byte first."""
        return {kind: one.entry() for kind, one in self.kinds.items()}

    @classmethod
    def read(cls, entry: Any, where: object = "model.json") -> Familiarity | None:
        """A description as recorded; None where nothing is.

        Args:
            entry: of :meth:`entry`.
            where: the file it is from.

        Raises:
            WeightsError: if it is none.
        """
        if entry is None:
            return None
        try:
            return cls({kind: _Normal.read(entry[kind]) for kind in KINDS})
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise WeightsError("the description of the training images is damaged", where, _FIX) from error


class _Watched(nn.Module):
    """The stages of a trunk, which pools what they compute the first time."""

    def __init__(self, stages: nn.Module) -> None:
        super().__init__()
        self.stages, self.pixels = stages, 0
        self.seen: Pooled | None = None

    def forward(self, x: Tensor, every: bool) -> list[Tensor]:
        features = self.stages(x, True)
        if self.seen is None:
            self.seen, self.pixels = pooled(x, features), x.shape[2] * x.shape[3]
        return features if every else features[-1:]


@contextmanager
def watched(network: Any) -> Iterator[list[Tensor]]:
    """Predict within, once: the trunk does not run twice.

    Args:
        network: of :mod:`glas_wsol.networks`.

    Yields:
        A list, which receives ``[B]`` float64 at the end, on the CPU: the familiarity, of an ensemble the mean of its
        members'; nothing unless every one of them describes its training images.
    """
    found: list[Tensor] = []
    members = list(getattr(network, "members", [network]))
    if any(getattr(member, "familiarity", None) is None for member in members):
        yield found
        return
    trunks = [member.trunk for member in members]
    watching = [_Watched(trunk.stages) for trunk in trunks]
    for trunk, one in zip(trunks, watching, strict=True):
        trunk.stages = one
    try:
        yield found
    finally:
        for trunk, one in zip(trunks, watching, strict=True):
            trunk.stages = one.stages
    pairs = [(member.familiarity, one) for member, one in zip(members, watching, strict=True) if one.seen is not None]
    if len(pairs) == len(members):
        found.append(torch.stack([known.share(one.seen, one.pixels)[:, 0] for known, one in pairs]).mean(dim=0))
