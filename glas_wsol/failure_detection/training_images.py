# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Describes the training images of a finished model, so that it can say later which images are unlike them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.utils import eval_mode
from tqdm import tqdm

from glas_wsol.errors import ConfigError
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks.base import TileNetwork
from glas_wsol.networks.familiarity import Familiarity, pooled
from glas_wsol.pseudo_labels.feature_components import Transform, prepared, read_image

__all__ = ["describe_images"]

logger = logging.getLogger(__name__)


def describe_images(
    network: TileNetwork,
    data: Sequence[Mapping[str, Any]],
    transform: Transform,
    inferer: WholeTileInferer,
    device: str | torch.device = "cpu",
) -> dict[str, Any] | None:
    """Describe images by the features of a trained trunk; no label and no mask is used.

    Args:
        network: trained.
        data: the training items: ``image`` and, where known, ``group``.
        transform: reads an item: ``image`` to ``[3, H, W]`` in [0, 1].
        inferer: brings it to the training resolution.
        device: where to run.

    Returns:
        See :meth:`~glas_wsol.networks.familiarity.Familiarity.entry`; None where they are too few.
    """
    network.to(device)
    images, pixels = [], []
    with eval_mode(network):
        for item in tqdm(data, "describing the training images"):
            x = prepared(network, read_image(item, transform, device), inferer)
            stages = network.trunk.stages_of(x)
            whole, parts = pooled(x, stages), pooled(x, stages, parts=2)
            images.append({kind: torch.cat([whole[kind], parts[kind]], dim=1) for kind in whole})
            pixels.append(x.shape[2] * x.shape[3])
    groups = [item.get("group", index) for index, item in enumerate(data)]
    try:
        return Familiarity.fit(images, pixels, groups).entry()
    except ConfigError as error:
        logger.info("familiarity of images will not be known: %s", error)
        return None
