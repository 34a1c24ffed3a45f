# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Write what a network learns from corrections: the truth of corrected images, pseudo-labels of others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from glas_wsol.data.splits import Datalist
from glas_wsol.engines.prepare_batch import MASK
from glas_wsol.errors import ConfigError
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks.checkpoint import load_checkpoint
from glas_wsol.networks.corrected import CorrectedNetwork
from glas_wsol.pseudo_labels.feature_components import Transform
from glas_wsol.pseudo_labels.seed_files import made_once
from glas_wsol.pseudo_labels.seeds import IGNORE, pick_seeds
from glas_wsol.pseudo_labels.teachers import log_odds
from glas_wsol.transforms.reading import read_mask, read_rgb
from glas_wsol.utils.json_files import read_json

__all__ = ["learning_items"]

_T = TypeVar("_T")


def learning_items(
    network: CorrectedNetwork,
    first_model: str | Path,
    datalist: Datalist,
    transform: Transform,
    inferer: WholeTileInferer,
    directory: str | Path,
    share: float,
    scope: str,
    per_epoch: int,
    seed: int = 0,
    mask_threshold: float = 0,
    device: str | torch.device = "cpu",
) -> list[dict[str, Any]]:
    """Begin with the first model, and write the targets of the images of one epoch.

    Targets are seeds, see :func:`~glas_wsol.pseudo_labels.seeds.pick_seeds`: every pixel of a corrected image, with
    certainty; of the others the pixels that the first model is surest of. So that these cannot outweigh the truth,
    corrected images are half of an epoch, and are repeated to that end. Of the others as many as fit in the other half
    are drawn: a training takes as long whatever the size of the data.

    Args:
        network: whose ``first`` is loaded, and which begins with it.
        first_model: ``model.pt``, its ``model.json`` beside it.
        datalist: see :func:`~glas_wsol.corrections.corrected_data.corrected_datalist`.
        transform: reads an item: ``image`` to ``[3, H, W]`` in [0, 1].
        inferer: brings it to the training resolution.
        directory: where the targets are written. Those written there by the same call are used again.
        share: of the pixels on each side, see :func:`~glas_wsol.pseudo_labels.seeds.pick_seeds`.
        scope: see there.
        per_epoch: images of an epoch, at least 2; more where so many are corrected.
        seed: of what is drawn.
        mask_threshold: corrected masks of pixels are foreground above this value.
        device: where to run.

    Returns:
        Items with the file of their ``seeds``; no mask.

    Raises:
        ConfigError: if ``per_epoch`` is less than 2.
        OutputError: if targets made with other settings are there.
        WeightsError: if the first model is missing, or of another network.
    """
    if per_epoch < 2:
        raise ConfigError(f"tiles_per_epoch={per_epoch}", "learn", "give 2 or more")
    load_checkpoint(network.first, str(first_model), {"classes": list(datalist.classes)})
    network.begin()
    items = datalist.select("train", masks=True)
    own = [item for item in items if MASK in item]
    half = max(per_epoch // 2, len(own))
    others = [item for item in items if MASK not in item]
    drawn = sorted(np.random.default_rng(seed).permutation(len(others))[:half])
    others = [others[place] for place in drawn]
    masks = [item.pop(MASK) for item in own]

    def make() -> tuple[list[np.ndarray], dict[str, Any]]:
        scores = log_odds(network.first, others, transform, inferer, device, "pseudo-labels of the first model")
        seeds = pick_seeds({"first": scores}, share, scope, sources=[item.get("source") for item in others])
        return [*(certain(*one) for one in zip(own, masks, strict=True)), *seeds], {}

    def certain(item: dict[str, Any], mask: str) -> np.ndarray:
        height, width = read_rgb(item["image"]).shape[:2]  # which outlines do not say
        return np.where(read_mask(mask, size=(height, width)) > mask_threshold, 2 * IGNORE - 1, 1).astype(np.uint8)

    made_with = {
        "first_model": read_json(Path(first_model).with_suffix(".json"))["sha256"],
        "corrections": network.corrections,
        "seed_share": share,
        "seed_scope": scope,
        "inferer": inferer.settings(),
    }
    found = made_once(Path(directory) / "round_1", [*own, *others], made_with, make)
    return [*_repeated(found[: len(own)], half), *_repeated(found[len(own) :], half)]


def _repeated(items: Sequence[_T], count: int) -> list[_T]:
    return list(islice(cycle(items), count))
