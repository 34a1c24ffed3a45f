# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of the first round from the teachers' scores of every training image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.utils import eval_mode
from torch import nn
from tqdm import tqdm

from glas_wsol.errors import ConfigError
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks.base import undecidable_part
from glas_wsol.networks.checkpoint import load_checkpoint
from glas_wsol.networks.component_network import FeatureComponentNetwork
from glas_wsol.networks.fixed import FixedMaskNetwork
from glas_wsol.networks.folding import fold_batch_norm
from glas_wsol.networks.refined import RefinedNetwork
from glas_wsol.pseudo_labels.colour_evidence import correct_all_by_colour
from glas_wsol.pseudo_labels.feature_components import Transform, fit_components, read_image
from glas_wsol.pseudo_labels.seed_files import made_once
from glas_wsol.pseudo_labels.seeds import agreement, pick_seeds
from glas_wsol.utils.json_files import read_json
from glas_wsol.utils.subjects import OBJECTS

__all__ = ["COMPONENTS", "STAGE_ONE", "STAIN", "TEACHERS", "check_teachers", "first_seeds", "log_odds"]

TEACHERS = COMPONENTS, STAGE_ONE, STAIN = "components", "stage_one", "stain"
"""Names of the teachers."""

_LEAST = 1e-6  # of R+ and R-: below it float32 keeps no order


def log_odds(
    network: nn.Module,
    data: Sequence[Mapping[str, Any]],
    transform: Transform,
    inferer: WholeTileInferer,
    device: str | torch.device = "cpu",
    description: str = "localizing",
) -> list[np.ndarray]:
    """``log(R+ / R-)`` of every image, as any network sees it.

    Args:
        network: images in [0, 1] to ``[B, 1 + c, H, W]``, channel 0 ``R-``; its method ``undecidable``, where it has
            one, to that channel alone.
        data: items to read.
        transform: reads one: ``image`` to ``[3, H, W]`` in [0, 1].
        inferer: brings it to the training resolution and the answer back.
        device: where to run.
        description: text of the progress bar.

    Returns:
        ``[H, W]`` float32 each, in the images' own sizes.
    """
    scores = []
    network.to(device)
    answer = undecidable_part(network)
    with eval_mode(network):
        for item in tqdm(data, description):
            image = read_image(item, transform, device)
            rest = inferer(image, answer)[0, 0].clamp(_LEAST, 1 - _LEAST)
            scores.append(torch.log((1 - rest) / rest).cpu().numpy())
    return scores


def check_teachers(weights: Mapping[str, float]) -> None:
    """Refuse a teacher that does not exist.

    Args:
        weights: by teacher.

    Raises:
        ConfigError: naming it.
    """
    unknown = sorted(set(weights) - set(TEACHERS))
    if unknown:
        raise ConfigError(f"no teacher named {unknown[0]!r}", "teachers", f"choose {', '.join(TEACHERS)}")


def first_seeds(
    network: RefinedNetwork,
    checkpoint: str | Path,
    components: FeatureComponentNetwork,
    data: Sequence[Mapping[str, Any]],
    transform: Transform,
    inferer: WholeTileInferer,
    directory: str | Path,
    weights: Mapping[str, float],
    share: float | Sequence[float] = 0.3,
    scope: str = "dataset",
    component_inferer: WholeTileInferer | None = None,
    device: str | torch.device = "cpu",
) -> list[dict[str, Any]]:
    """Load the first stage into the network to refine; generate pseudo-labels of every training image.

    Of several processes the first does so, and the others wait.

    Args:
        network: whose ``base`` is loaded.
        checkpoint: ``model.pt`` of the first stage, its ``model.json`` beside it.
        components: the teacher of evidence-oriented features; fitted here, its trunk folded, if its weight is positive.
        data: training items: images and image labels, no mask.
        transform: reads an item: ``image`` to ``[3, H, W]`` in [0, 1].
        inferer: brings it to the training resolution.
        directory: where the seeds are written, a folder per round. Seeds written there by the same call are used again.
        weights: of the teachers ``components``, ``stage_one`` and ``stain`` (haematoxylin, untrained: for H&E only);
            0 leaves one out. Of photographs of objects (``components.subject``) the seeds are corrected by
            :func:`~glas_wsol.pseudo_labels.colour_evidence.correct_by_colour`.
        share: see :func:`~glas_wsol.pseudo_labels.seeds.pick_seeds`.
        scope: see :func:`~glas_wsol.pseudo_labels.seeds.pick_seeds`.
        component_inferer: for the components, which several views of an image make finer; ``inferer`` where not given.
        device: where to run.

    Returns:
        The items, each with the file of its ``seeds``.

    Raises:
        ConfigError: if there is no such teacher, or :func:`~glas_wsol.pseudo_labels.seeds.pick_seeds` refuses.
        OutputError: if seeds made with other settings are there.
        WeightsError: if the first stage's model is missing or of another network.
    """
    check_teachers(weights)
    load_checkpoint(network.base, str(checkpoint))
    folder = Path(directory) / "round_1"
    card = read_json(Path(checkpoint).with_suffix(".json"))
    views = component_inferer or inferer
    made_with = {
        "stage_one": card["sha256"],
        "teachers": dict(weights),
        "seed_share": share,
        "seed_scope": scope,
        "inferer": inferer.settings(),
    }
    by_colour = components.subject == OBJECTS
    made_with |= {"by_colour": True} if by_colour else {}
    if weights.get(COMPONENTS, 0) > 0:
        digest = {"trunk_weights_sha256": components.trunk.weights_sha256}
        made_with |= {COMPONENTS: {**components.settings(), **digest}, "component_inferer": views.settings()}

    def make() -> tuple[list[np.ndarray], dict[str, Any]]:
        teachers, facts = {}, {}
        if weights.get(COMPONENTS, 0) > 0:
            found = fit_components(fold_batch_norm(components), data, transform, inferer, device)
            facts["orientation"] = asdict(found)
            teachers[COMPONENTS] = log_odds(components, data, transform, views, device, "seeds from components")
        # Also when its weight is 0: low agreement indicates a failed run.
        seen = log_odds(network.base, data, transform, inferer, device, "seeds from the first stage")
        if COMPONENTS in teachers:
            masks = [(a > np.median(a), b > np.median(b)) for a, b in zip(teachers[COMPONENTS], seen, strict=True)]
            facts["teachers_agree"] = float(np.mean([agreement(a, b) for a, b in masks]))
        if weights.get(STAGE_ONE, 0) > 0:
            teachers[STAGE_ONE] = seen
        if weights.get(STAIN, 0) > 0:
            haematoxylin = FixedMaskNetwork("stain")
            teachers[STAIN] = log_odds(haematoxylin, data, transform, inferer, device, "seeds from the stain")
        sources = [item.get("source") for item in data]
        seeds = pick_seeds(teachers, share, scope, weights, sources)
        return correct_all_by_colour(seeds, data, transform) if by_colour else seeds, facts

    return made_once(folder, data, made_with, make)
