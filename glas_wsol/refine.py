# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The second stage's material: what the teachers say of every training image, as seeds on disk; rounds of teaching."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.networks.utils import eval_mode
from torch import nn
from tqdm import tqdm

from glas_wsol.bundle import load_checkpoint
from glas_wsol.components import fit_components
from glas_wsol.data.seeded import SeededCacheDataset
from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks.components import FeatureComponentNetwork
from glas_wsol.networks.fixed import FixedMaskNetwork
from glas_wsol.networks.refined import RefinedNetwork
from glas_wsol.seeds import SEEDS, agreement, pick_seeds
from glas_wsol.writers.atomic import atomic_write
from glas_wsol.writers.images import write_png

__all__ = ["SelfTraining", "evidence_scores", "first_seeds"]

logger = logging.getLogger(__name__)

Transform = Callable[[Mapping[str, Any]], Mapping[str, Any]]

COMPONENTS, STAGE_ONE, STAIN = "components", "stage_one", "stain"
"""Names of the teachers."""

_RECORD = "seeds.json"
_LEAST = 1e-6  # of R+ and R-: beyond it float32 knows no order


def evidence_scores(
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
        description: what the progress bar says.

    Returns:
        ``[H, W]`` float32 each, in the images' own sizes.
    """
    scores = []
    network.to(device)
    answer = getattr(network, "undecidable", network)  # without the forward that only names the class
    with eval_mode(network):
        for item in tqdm(data, description):
            image = torch.as_tensor(transform(item)["image"]).unsqueeze(0).to(device)
            rest = inferer(image, answer)[0, 0].clamp(_LEAST, 1 - _LEAST)
            scores.append(torch.log((1 - rest) / rest).cpu().numpy())
    return scores


def first_seeds(
    network: RefinedNetwork,
    checkpoint: str | Path,
    components: FeatureComponentNetwork,
    data: Sequence[Mapping[str, Any]],
    transform: Transform,
    inferer: WholeTileInferer,
    directory: str | Path,
    weights: Mapping[str, float],
    share: float = 0.3,
    over: str = "set",
    component_inferer: WholeTileInferer | None = None,
    device: str | torch.device = "cpu",
) -> list[dict[str, Any]]:
    """Load the first stage into the network to refine; let the teachers mark every training image, and write it down.

    Args:
        network: whose ``base`` is loaded.
        checkpoint: ``model.pt`` of the first stage, its ``model.json`` beside it.
        components: the teacher of evidence-oriented features; fitted here if its weight is positive.
        data: training items: images and image labels, no mask.
        transform: reads an item: ``image`` to ``[3, H, W]`` in [0, 1].
        inferer: brings it to the training resolution.
        directory: where the seeds are written, a folder per round. Seeds written there by the same call are used again.
        weights: of the teachers ``components``, ``stage_one`` and ``stain`` (haematoxylin, untrained: for H&E only);
            0 leaves one out.
        share: see :func:`~glas_wsol.seeds.pick_seeds`.
        over: see :func:`~glas_wsol.seeds.pick_seeds`.
        component_inferer: for the components, which several views of an image make finer; ``inferer`` where not given.
        device: where to run.

    Returns:
        The items, each with the file of its ``seeds``.

    Raises:
        ConfigError: if there is no such teacher.
        OutputError: if seeds made with other settings are there.
        WeightsError: if the first stage's model is missing or of another network.
    """
    unknown = sorted(set(weights) - {COMPONENTS, STAGE_ONE, STAIN})
    if unknown:
        raise ConfigError(f"no teacher named {unknown[0]!r}", "teachers", f"choose {COMPONENTS}, {STAGE_ONE}, {STAIN}")
    load_checkpoint(network.base, checkpoint)
    folder = Path(directory) / "round_1"
    card = json.loads(Path(checkpoint).with_suffix(".json").read_text(encoding="utf-8"))
    made_with = {
        "stage_one": card["sha256"],
        "teachers": dict(weights),
        "share": share,
        "over": over,
        "images": [str(item["name"]) for item in data],
    }
    if (folder / _RECORD).is_file():
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        if record["made_with"] != made_with:
            fix = "restore the settings, delete this folder, or choose another output_dir"
            raise OutputError("seeds made with other settings are here", folder, fix)
        logger.info("%s holds the seeds already", folder)
        return _with_seeds(data, folder)
    teachers, facts = {}, {}
    if weights.get(COMPONENTS, 0) > 0:
        found = fit_components(components, data, transform, inferer, device)
        facts["orientation"] = asdict(found)
        views = component_inferer or inferer
        teachers[COMPONENTS] = evidence_scores(components, data, transform, views, device, "seeds from components")
    # Also when it teaches nothing: how far it agrees tells a good run from a failed one.
    seen = evidence_scores(network.base, data, transform, inferer, device, "seeds from the first stage")
    if teachers:
        masks = [(a > np.median(a), b > np.median(b)) for a, b in zip(teachers[COMPONENTS], seen, strict=True)]
        facts["teachers_agree"] = float(np.mean([agreement(a, b) for a, b in masks]))
    if weights.get(STAGE_ONE, 0) > 0:
        teachers[STAGE_ONE] = seen
    if weights.get(STAIN, 0) > 0:
        haematoxylin = FixedMaskNetwork("stain")
        teachers[STAIN] = evidence_scores(haematoxylin, data, transform, inferer, device, "seeds from the stain")
    _write(folder, data, pick_seeds(teachers, share, over, weights), {"made_with": made_with, **facts})
    return _with_seeds(data, folder)


class SelfTraining:
    """Rounds of self-training: after each, the network's own surest pixels are the seeds of the next.

    It ends when the rounds are done, or when the masks of the training images no longer change: no pixel label is
    needed to see that. Seeds stay on disk, so that an interrupted run goes on with those it had.

    Args:
        network: the network in training.
        dataset: its training data, whose items are replaced.
        items: training items with ``image`` and ``name``, the seeds of the first round with them.
        transform: reads an item for prediction: ``image`` to ``[3, H, W]`` in [0, 1].
        inferer: brings it to the training resolution; its views of an image are averaged.
        directory: where seeds are written, a folder per round.
        epochs: of a round.
        rounds: at most.
        share: see :func:`~glas_wsol.seeds.pick_seeds`.
        over: see :func:`~glas_wsol.seeds.pick_seeds`.
        tolerance: it has converged when the masks of two rounds have a mean kappa above 1 minus this. Defaults to 0.05.

    Raises:
        ConfigError: if there is no round, or none of its epochs.
    """

    def __init__(
        self,
        network: nn.Module,
        dataset: SeededCacheDataset,
        items: Sequence[Mapping[str, Any]],
        transform: Transform,
        inferer: WholeTileInferer,
        directory: str | Path,
        epochs: int,
        rounds: int = 1,
        share: float = 0.3,
        over: str = "set",
        tolerance: float = 0.05,
    ) -> None:
        if rounds < 1 or epochs < 1:
            raise ConfigError(f"{rounds} rounds of {epochs} epochs", "self-training", "give at least one of each")
        self.network, self.dataset, self.items = network, dataset, list(items)
        self.transform, self.inferer, self.directory = transform, inferer, Path(directory)
        self.epochs, self.rounds, self.share, self.over = epochs, rounds, share, over
        self.tolerance = tolerance
        self._round = 1

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handler that validates and before the one that saves."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._take_up)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.epochs), self._teach)

    def _folder(self, number: int) -> Path:
        return self.directory / f"round_{number}"

    def _take_up(self, engine: Engine) -> None:
        number = (engine.state.epoch - 1) // self.epochs + 1
        if number != self._round:
            self.dataset.set_data(_with_seeds(self.items, self._folder(number)))
            self._round = number

    def _teach(self, engine: Engine) -> None:
        done = engine.state.epoch // self.epochs
        device = engine.state.device
        what = f"what round {done} sees"
        scores = evidence_scores(self.network, self.items, self.transform, self.inferer, device, what)
        record = _read(self._folder(done))
        before = self._masks(done)
        same = float(np.mean([agreement(a > 0, b) for a, b in zip(scores, before, strict=True)])) if before else None
        record["student_agrees"] = same
        record["loss"] = float(engine.state.metrics.get("loss", float("nan")))
        _record(self._folder(done), record)
        if done == self.rounds:
            return
        if done > 1 and same is not None and same > 1 - self.tolerance:
            logger.info("the masks of rounds %d and %d are nearly the same (kappa %.3f): done", done - 1, done, same)
            engine.terminate()
            return
        facts = {"made_with": {"round": done}}
        _write(self._folder(done + 1), self.items, pick_seeds({"student": scores}, self.share, self.over), facts)

    def _masks(self, number: int) -> list[np.ndarray]:
        """What the teacher of a round took for decidable, where it was sure; elsewhere its mask is not known."""
        from glas_wsol.seeds import UNSURE
        from glas_wsol.transforms.reading import read_mask

        return [read_mask(item[SEEDS]) > UNSURE for item in _with_seeds(self.items, self._folder(number))]


def _write(
    folder: Path, data: Sequence[Mapping[str, Any]], seeds: Sequence[np.ndarray], record: Mapping[str, Any]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item, one in zip(data, seeds, strict=True):
        write_png(folder / f"{item['name']}.png", one)
    _record(folder, record)  # last: where it is, the seeds are whole


def _record(folder: Path, record: Mapping[str, Any]) -> None:
    with atomic_write(folder / _RECORD, "w") as file:
        file.write(json.dumps(record, indent=4) + "\n")


def _read(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / _RECORD).read_text(encoding="utf-8")))


def _with_seeds(data: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    return [{**item, SEEDS: str(folder / f"{item['name']}.png")} for item in data]
