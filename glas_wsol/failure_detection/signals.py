# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Measures how far a model's masks can be trusted, from images and class labels; no outline is needed.

Two criteria are independent of how a mask was made. The class: the decidable region should predict it, and the
undecidable region should not (equations 3 and 6 of the paper, as a test). The shape: the decidable region consists of
compact bodies, the undecidable one is the ground between them. The class is predicted from features of the
*pretrained* trunk, by a probe that has not seen the patient: a trained network predicts its training images' classes
from any region. A third criterion is not independent of every mask: agreement with the oriented component of the
features, the structure of the tissue. That component is also a teacher of the second stage in the recommended recipe,
whose masks agree with it even where it is wrong; there only the shape shows a failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.networks.utils import eval_mode
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks.base import undecidable_part
from glas_wsol.networks.component_network import FeatureComponentNetwork
from glas_wsol.pseudo_labels.feature_components import (
    Transform,
    compactness,
    cross_validated,
    prepared,
    read_image,
    standard_error,
)
from glas_wsol.pseudo_labels.seeds import agreement

__all__ = ["MaskSignals", "mask_signals"]

_COARSER = 4  # px of the training resolution per point on which shapes are judged: as fine as the components are


@dataclass(frozen=True)
class MaskSignals:
    """Signals for and against a model's masks.

    Attributes:
        information: share of the class's entropy that the decidable region alone resolves, on images of patients not
            seen: 1 if it always predicts the class, 0 or less if it is uninformative.
        margin: cross-entropy of the class from the undecidable region minus that from the decidable one, in nats, a
            mean over images.
        margin_error: its standard error over images.
        compactness: of the decidable regions minus of the undecidable ones, a mean over images, see
            :func:`~glas_wsol.pseudo_labels.feature_components.compactness`.
        agreement: Cohen's kappa of the masks and those of the features' oriented component, a mean over images: a mask
            that was fitted to the class alone, from any parts that predict it, agrees with no structure of the tissue.
        kept: share of the pixels that are decidable.
    """

    information: float
    margin: float
    margin_error: float
    compactness: float
    agreement: float
    kept: float


def mask_signals(
    network: nn.Module,
    features: FeatureComponentNetwork,
    data: Sequence[Mapping[str, Any]],
    transform: Transform,
    inferer: WholeTileInferer,
    device: str | torch.device = "cpu",
) -> MaskSignals:
    """Judge a model's masks of labelled images.

    Args:
        network: images in [0, 1] to ``[B, 1 + c, H, W]``, channel 0 ``R-``; its method ``undecidable``, where it has
            one, to that channel alone.
        features: a pretrained trunk, fitted to the same data
            (:func:`~glas_wsol.pseudo_labels.feature_components.fit_components`).
        data: items with ``image``, one ``label`` and, where known, ``group``: the training images, of which there are
            most. No mask.
        transform: reads an item: ``image`` to ``[3, H, W]`` in [0, 1].
        inferer: brings it to the training resolution and the answer back.

    Raises:
        ConfigError: if all images are of one group.
    """
    network.to(device)
    features.to(device)
    answer = undecidable_part(network)
    sides: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    shapes, agreements, shares = [], [], []
    with eval_mode(network, features):
        for item in tqdm(data, "judging the masks"):
            image = read_image(item, transform, device)
            mask = (inferer(image, answer)[:, :1] <= 0.5).to(torch.float32)
            shares.append(float(mask.mean()))
            x = prepared(features, image, inferer)
            size = [max(1, side // _COARSER) for side in x.shape[2:]]
            small = F.interpolate(mask, size=size, mode="area")[0, 0].cpu().numpy()
            shapes.append(compactness(small - 0.5))
            region = (F.interpolate(mask, size=x.shape[2:], mode="area") >= 0.5).to(x.dtype)
            component = features.mask(x) >= 0.5
            agreements.append(agreement(region.bool().cpu().numpy(), component.cpu().numpy()))
            for side, one in zip(sides, (region, 1 - region), strict=True):
                side.append(features.region_features(x, one).cpu())
    labels = torch.tensor([int(item["label"]) for item in data])
    groups = [item.get("group", index) for index, item in enumerate(data)]
    classes = features.num_classes
    decidable, undecidable = (cross_validated(torch.cat(one), labels, classes, groups) for one in sides)
    frequencies = torch.bincount(labels, minlength=classes).double() / len(labels)
    entropy = float(torch.special.entr(frequencies).sum())
    differences = undecidable - decidable
    return MaskSignals(
        information=float(1 - decidable.mean() / entropy),
        margin=float(differences.mean()),
        margin_error=standard_error(differences),
        compactness=float(np.mean(shapes)),
        agreement=float(np.mean(agreements)),
        kept=float(np.mean(shares)),
    )
