# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Fits directions in feature space, and which side of them predicts the class, from images and image labels.

The principle is the paper's (equations 3 and 6) turned into a test: the decidable side of an image is the one that
still predicts its class when the other side is erased.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from monai.networks.utils import eval_mode
from skimage.measure import label, regionprops
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from glas_wsol.errors import ConfigError, NumericalError
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks.base import TileNetwork
from glas_wsol.networks.component_network import FeatureComponentNetwork
from glas_wsol.networks.maps import resize
from glas_wsol.utils.subjects import TISSUE

__all__ = [
    "Orientation",
    "Transform",
    "compactness",
    "cross_validated",
    "fit_components",
    "fit_probe",
    "fitted_card",
    "prepared",
    "principal_directions",
    "read_image",
    "standard_error",
]

logger = logging.getLogger(__name__)

Transform = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Reads an item of a data set."""

# Of the squared weights, with features divided by their standard deviation and sqrt(n): as one observation's worth.
_STRENGTH = 1e-3
_CLEARLY = (
    3  # standard errors: labels were seen to contradict the shape by 2.0, wrongly, where stroma predicts the class
)
_FINER = 4  # a region's outline is judged on this many points per position of the features
_LEAST_REGION = 20  # of those points; smaller ones are noise with a solidity of 1


@dataclass(frozen=True)
class Orientation:
    """What was found of the features' structure, without a pixel label.

    Attributes:
        explained: share of the features' variance along each component.
        compactness: of each component, see :func:`compactness`; positive: the positive side is the more compact. Of
            objects: how far the images lie from their borders along it, in standard deviations.
        loss_kept: cross-validated cross-entropy of the class, in nats, from the decidable side alone.
        loss_erased: the same from the undecidable side.
        margin: the second minus the first, a mean over images; negative where the labels favour the undecidable
            side, but not significantly.
        standard_error: of the margin over images.
        shape_agrees: whether the decidable side is the more compact one; False where the labels contradict that.
    """

    explained: tuple[float, ...]
    compactness: tuple[float, ...]
    loss_kept: float
    loss_erased: float
    margin: float
    standard_error: float
    shape_agrees: bool


def principal_directions(covariance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The principal components of features, the largest first.

    Args:
        covariance: ``[n, n]``.
        count: how many, at most n.

    Returns:
        ``[count, n]`` unit vectors, the entry of largest size in each positive, so that no sign is left to chance; and
        ``[count]`` variances along them.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    directions = vectors.flip(1)[:, :count].transpose(0, 1)
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return directions * largest.sign(), values.flip(0)[:count].clamp(min=0)


def fit_probe(features: Tensor, labels: Tensor, num_classes: int, strength: float = _STRENGTH) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression with a quadratic penalty: convex, so the answer does not depend on a draw.

    Args:
        features: ``[N, n]``; standardised inside.
        labels: ``[N]`` class indices.
        strength: of the penalty on the squared weights.

    Returns:
        Weights ``[c, n]`` and biases ``[c]`` for the features as they are, float64.

    Raises:
        NumericalError: if a feature is not finite.
    """
    features = features.double()
    if not features.isfinite().all():
        raise NumericalError("a feature is not a finite number", "linear probe", "look for damaged images or weights")
    mean, scale = features.mean(dim=0), features.std(dim=0, unbiased=False).clamp(min=1e-8) * features.shape[1] ** 0.5
    z = (features - mean) / scale
    weight = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    # To the minimum, not near it: where one stops would depend on the order of sums.
    exact = {"max_iter": 1000, "tolerance_grad": 1e-10, "tolerance_change": 1e-14}
    optimizer = torch.optim.LBFGS([weight, bias], line_search_fn="strong_wolfe", **exact)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(z, weight, bias), labels) + strength / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    weight, bias = weight.detach() / scale, bias.detach()
    return weight, bias - weight @ mean


def cross_validated(
    features: Tensor, labels: Tensor, num_classes: int, groups: Sequence[Hashable], folds: int = 5
) -> Tensor:
    """How well features predict the classes of held-out images.

    Args:
        features: ``[N, n]``.
        labels: ``[N]`` class indices.
        groups: ``N`` groups (patients): no group is in two folds.
        folds: how many, at most. Defaults to 5.

    Returns:
        ``[N]`` cross-entropy of each image by the probe that has not seen its group, in nats, float64.
    """
    sizes: dict[Hashable, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    folds = min(folds, len(sizes))
    if folds < 2:
        raise ConfigError("all images are of one group", "cross-validation", "give images of at least two patients")
    filled, fold_of = [0] * folds, {}
    for group in sorted(sizes, key=lambda one: (-sizes[one], str(one))):  # the largest first, each to the emptiest
        fold_of[group] = filled.index(min(filled))
        filled[fold_of[group]] += sizes[group]
    fold = torch.tensor([fold_of[group] for group in groups])
    losses = torch.empty(len(groups), dtype=torch.float64)
    for held_out in range(folds):
        out = fold == held_out
        weight, bias = fit_probe(features[~out], labels[~out], num_classes)
        scores = F.linear(features[out].double(), weight, bias)
        losses[out] = F.cross_entropy(scores, labels[out], reduction="none")
    return losses


def compactness(scores: np.ndarray) -> float:
    """How much more compact the regions of positive scores are than those of negative ones.

    Of each side, the area of its connected regions over that of their convex hulls (solidity). Bodies in a ground that
    runs between them are compact, the ground is not.

    Args:
        scores: ``[h, w]``.

    Returns:
        Difference of the two solidities, in [-1, 1].
    """
    sides = []
    for side in (scores > 0, scores <= 0):
        regions = [one for one in regionprops(label(side)) if one.area > _LEAST_REGION]
        hulls = sum(one.area_convex for one in regions)
        sides.append(sum(one.area for one in regions) / hulls if hulls else 0.0)
    return sides[0] - sides[1]


def fit_components(
    network: FeatureComponentNetwork,
    data: Sequence[Mapping[str, Any]],
    transform: Transform,
    inferer: WholeTileInferer,
    device: str | torch.device = "cpu",
    candidates: int = 4,
) -> Orientation:
    """Fit the direction, its orientation and the probe, from images and image labels, without outlines.

    Two criteria are used, and neither needs an outline. The *shape* makes the direction: each of the first principal
    components of the features over all images has one side that is more compact than the other (:func:`compactness`:
    bodies in a ground), and the direction is the sum of the components, each turned to its compact side and weighted by
    the square of its compactness. A sum does not depend on which component is taken: where two explain nearly the same
    variance, a few images more or less rotate them in their plane, and the sum hardly changes. The *labels* show which
    side predicts the class better when the other is erased, by :func:`cross_validated` on the mean features of the
    masked images. The compact side is decidable, unless the labels favour the other by more than three standard errors.

    Of objects (``network.subject``) the shape is another: the background touches the border. Each component at stride
    32 is turned to the side that the border has less of, and weighted by the square of that difference. The direction
    at stride 16 is the covariance of its features with the scores so found: the same structure, drawn finer.

    Args:
        network: fitted in place.
        data: training items with ``image``, ``label`` and, where known, ``group``.
        transform: reads an item: ``image`` to ``[3, H, W]`` in [0, 1].
        inferer: brings it to the training resolution.
        candidates: how many components are summed. Defaults to 4.

    Raises:
        ConfigError: if ``candidates`` is below 1.
    """
    if candidates < 1:
        raise ConfigError(f"candidates={candidates}", "components", "give at least 1")
    if any(np.ndim(item["label"]) for item in data):
        fix = "set multi_label=false, or refine from the first stage's own masks (teachers)"
        raise ConfigError("an image may have several classes, which the probe does not predict", "components", fix)
    network.to(device)
    labels = torch.tensor([int(item["label"]) for item in data])
    groups = [item.get("group", index) for index, item in enumerate(data)]
    with eval_mode(network):
        images = [
            prepared(network, read_image(item, transform, device), inferer) for item in tqdm(data, "reading images")
        ]
        features = [[one.cpu() for one in network.features_of(x)] for x in tqdm(images, "features")]
        coarse = [scales[-1] for scales in features]
        contrast_of = _compactness_along if network.subject == TISSUE else _contrast_to_border
        centre, covariance = _moments(coarse)
        directions, variances = principal_directions(covariance, candidates)
        contrasts = torch.tensor([contrast_of(coarse, centre, one) for one in tqdm(directions, "shape")])
        weights = (contrasts * contrasts.abs()).double()
        if not weights.any():  # nothing is more compact than anything else: only the labels decide
            weights[0] = 1
        spread = (weights.square() * variances).sum().clamp(min=1e-24).sqrt()
        centres, found_directions = [centre], [weights @ directions / spread]
        if len(features[0]) > 1:
            z = [_along(one, centre, found_directions[0]) for one in coarse]
            finer, direction = _towards([scales[0] for scales in features], z)
            centres, found_directions = [finer, centre], [direction / 2, found_directions[0] / 2]
        network.centre.copy_(torch.cat(centres))
        network.direction.copy_(torch.cat(found_directions))
        kept, erased = _both_sides(network, images, labels, groups)
        clearly = _CLEARLY * standard_error(erased - kept)
        turned = bool((erased - kept).mean() < -clearly)
        if turned:
            network.direction.neg_()
            kept, erased = erased, kept
        regions = torch.cat([network.region_features(x, network.mask(x)) for x in tqdm(images, "regions")]).cpu()
        weight, bias = fit_probe(regions, labels, network.num_classes)
        network.probe_weight.copy_(weight)
        network.probe_bias.copy_(bias)
    found = Orientation(
        explained=tuple((variances / covariance.trace()).tolist()),
        compactness=tuple(contrasts.tolist()),
        loss_kept=float(kept.mean()),
        loss_erased=float(erased.mean()),
        margin=float((erased - kept).mean()),
        standard_error=standard_error(erased - kept),
        shape_agrees=not turned,
    )
    logger.info(
        "components: cross-entropy of the class: decidable side %.3f nats, other side %.3f; the former is %s compact",
        found.loss_kept, found.loss_erased, "NOT more" if turned else "more",
    )  # fmt: skip
    return found


def fitted_card(card: Mapping[str, Any], network: FeatureComponentNetwork, **arguments: Any) -> dict[str, Any]:
    """Fit a network by :func:`fit_components`, and add its :class:`Orientation` to the card as ``orientation``."""
    return {**card, "orientation": asdict(fit_components(network, **arguments))}


def prepared(network: TileNetwork, image: Tensor, inferer: WholeTileInferer) -> Tensor:
    """Images ``[B, 3, H, W]`` in [0, 1] as the trunk takes them: at the training resolution, normalised and padded."""
    return network.normalise(inferer.prepare(image)[0])


def read_image(item: Mapping[str, Any], transform: Transform, device: str | torch.device) -> Tensor:
    """One item, read by ``transform``: ``[1, 3, H, W]``, in [0, 1]."""
    return torch.as_tensor(transform(item)["image"]).unsqueeze(0).to(device)


def _moments(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the unit features over all positions of all images, float64."""
    count = 0
    total: Any = 0.0
    square: Any = 0.0
    for one in features:
        unit = F.normalize(one, dim=1).double().flatten(2)[0]
        count, total, square = count + unit.shape[1], total + unit.sum(dim=1), square + unit @ unit.transpose(0, 1)
    mean = total / count
    return mean, square / count - torch.outer(mean, mean)


def _along(features: Tensor, centre: Tensor, direction: Tensor) -> Tensor:
    """Unit features ``[1, n, h, w]`` along a direction: ``[1, h, w]``, float64."""
    return ((F.normalize(features, dim=1).double() - centre.view(1, -1, 1, 1)) * direction.view(1, -1, 1, 1)).sum(dim=1)


def _compactness_along(features: Sequence[Tensor], centre: Tensor, direction: Tensor) -> float:
    contrasts = []
    for one in features:
        z = _along(one, centre, direction)
        height, width = _FINER * z.shape[1], _FINER * z.shape[2]
        contrasts.append(compactness(resize(z, height, width, False)[0].numpy()))
    return float(np.mean(contrasts))


def _contrast_to_border(features: Sequence[Tensor], centre: Tensor, direction: Tensor) -> float:
    """How far images lie along the direction from their outermost positions, in standard deviations.

    The background touches the border of a photograph, the object mostly does not.
    """
    maps = [_along(one, centre, direction)[0] for one in features]
    spread = torch.cat([one.flatten() for one in maps]).std(unbiased=False).clamp(min=1e-12)
    borders = [torch.cat([z[0], z[-1], z[:, 0], z[:, -1]]).mean() for z in maps]
    means = [z.mean() for z in maps]
    return float(torch.stack([mean - border for mean, border in zip(means, borders, strict=True)]).mean() / spread)


def _towards(features: Sequence[Tensor], coarse: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Centre and direction ``[n]`` of finer unit features that go with coarser scores: their covariance with these.

    Args:
        features: ``[1, n, h, w]`` each.
        coarse: ``[1, h', w']`` each, of the same images.

    Returns:
        Scores along the direction have a standard deviation of 1.
    """
    centre, covariance = _moments(features)
    direction = torch.zeros_like(centre)
    for one, z in zip(features, coarse, strict=True):
        unit = F.normalize(one, dim=1).double()[0] - centre.view(-1, 1, 1)
        wanted = F.interpolate(z[None], size=unit.shape[1:], mode="bilinear", align_corners=False)[0, 0]
        direction += (unit * wanted).sum(dim=(1, 2))
    return centre, direction / (direction @ covariance @ direction).clamp(min=1e-24).sqrt()


def standard_error(differences: Tensor) -> float:
    """Of the mean of independent values ``[n]``, ``n`` at least 2."""
    return float(differences.std(unbiased=True) / len(differences) ** 0.5)


def _both_sides(
    network: FeatureComponentNetwork, images: Sequence[Tensor], labels: Tensor, groups: Sequence[Hashable]
) -> tuple[Tensor, Tensor]:
    """Cross-validated losses of every image from the positive side alone, and from the negative side alone."""
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for x in tqdm(images, "both sides"):
        mask = network.mask(x)
        for side, region in zip(sides, (mask, 1 - mask), strict=True):
            side.append(network.region_features(x, region).cpu())
    positive, negative = (cross_validated(torch.cat(one), labels, network.num_classes, groups) for one in sides)
    return positive, negative
