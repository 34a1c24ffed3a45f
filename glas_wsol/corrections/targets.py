# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Write what a network learns from corrections: the truth of corrected images, pseudo-labels of all the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glas_wsol.data.splits import Datalist
from glas_wsol.engines.prepare_batch import MASK
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks.checkpoint import load_checkpoint
from glas_wsol.networks.corrected import CorrectedNetwork
from glas_wsol.pseudo_labels.feature_components import Transform
from glas_wsol.pseudo_labels.seed_files import (
    MADE_WITH,
    digest_of_items,
    read_record,
    require_same,
    with_seeds,
    write_seeds,
)
from glas_wsol.pseudo_labels.seeds import IGNORE, pick_seeds
from glas_wsol.pseudo_labels.teachers import log_odds
from glas_wsol.transforms.reading import read_mask
from glas_wsol.utils import distributed
from glas_wsol.utils.json_files import read_json
from glas_wsol.utils.settings import as_json

__all__ = ["learning_items"]


def learning_items(
    network: CorrectedNetwork,
    first_model: str | Path,
    datalist: Datalist,
    transform: Transform,
    inferer: WholeTileInferer,
    directory: str | Path,
    share: float,
    scope: str,
    mask_threshold: float = 0,
    device: str | torch.device = "cpu",
) -> list[dict[str, Any]]:
    """Load the first model into the network, and write the targets of every training image.

    Targets are seeds, see :func:`~glas_wsol.pseudo_labels.seeds.pick_seeds`: every pixel of a corrected image, with
    certainty; of the others the pixels that the first model is surest of. So that these cannot outweigh the truth,
    corrected images are repeated until they are half of all.

    Args:
        network: whose ``first`` is loaded.
        first_model: ``model.pt``, its ``model.json`` beside it.
        datalist: see :func:`~glas_wsol.corrections.corrected_data.corrected_datalist`.
        transform: reads an item: ``image`` to ``[3, H, W]`` in [0, 1].
        inferer: brings it to the training resolution.
        directory: where the targets are written. Those written there by the same call are used again.
        share: of the pixels on each side, see :func:`~glas_wsol.pseudo_labels.seeds.pick_seeds`.
        scope: see there.
        mask_threshold: corrected masks of pixels are foreground above this value.
        device: where to run.

    Returns:
        Items with the file of their ``seeds``; no mask.

    Raises:
        OutputError: if targets made with other settings are there.
        WeightsError: if the first model is missing, or of another network.
    """
    load_checkpoint(network.first, str(first_model), {"classes": list(datalist.classes)})
    items = datalist.select("train", masks=True)
    masks = [item.pop(MASK, None) for item in items]
    folder = Path(directory) / "round_1"
    made_with = as_json(
        {
            "first_model": read_json(Path(first_model).with_suffix(".json"))["sha256"],
            "corrections": network.corrections,
            "seed_share": share,
            "seed_scope": scope,
            "images": digest_of_items(items),
            "inferer": inferer.settings(),
        }
    )

    def make() -> None:
        record = read_record(folder)
        if record is not None:
            require_same(folder, record, made_with)
            return
        scores = log_odds(network.first, items, transform, inferer, device, "pseudo-labels of the first model")
        seeds = pick_seeds({"first": scores}, share, scope, sources=[item.get("source") for item in items])
        whole = [
            one if mask is None else _certain(mask, one.shape, mask_threshold)
            for mask, one in zip(masks, seeds, strict=True)
        ]
        write_seeds(folder, items, whole, {MADE_WITH: made_with})

    distributed.on_main(make)
    return _balanced(with_seeds(items, folder), [mask is not None for mask in masks])


def _certain(mask: str, size: tuple[int, ...], threshold: float) -> np.ndarray:
    """Every pixel of a corrected mask as the most certain seed of its side."""
    inside = read_mask(mask, size=(size[0], size[1])) > threshold
    return np.where(inside, 2 * IGNORE - 1, 1).astype(np.uint8)


def _balanced(items: list[dict[str, Any]], corrected: list[bool]) -> list[dict[str, Any]]:
    """The items, the corrected ones as often as makes them half."""
    own: list[Mapping[str, Any]] = [item for item, yes in zip(items, corrected, strict=True) if yes]
    times = max(1, round((len(items) - len(own)) / len(own)))
    return [*items, *(dict(item) for _ in range(times - 1) for item in own)]
