# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Estimates the probability that a training run failed, without outlines, and raises an alarm."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from glas_wsol.failure_detection.signals import MaskSignals, mask_signals
from glas_wsol.failure_detection.training_images import describe_images
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks.base import TileNetwork
from glas_wsol.networks.checkpoint import load_checkpoint, model_card
from glas_wsol.networks.component_network import FeatureComponentNetwork
from glas_wsol.networks.familiarity import FAMILIARITY
from glas_wsol.networks.folding import fold_batch_norm
from glas_wsol.pseudo_labels.feature_components import Transform, fit_components, fit_probe
from glas_wsol.results.verdict import Verdict
from glas_wsol.utils import distributed
from glas_wsol.utils.json_files import write_json
from glas_wsol.utils.subjects import TISSUE

__all__ = ["ALARM", "Alarm", "judge_run", "shipped_alarm"]

logger = logging.getLogger(__name__)

ALARM = "alarm"
"""Entry of ``model.json``."""

_FILE = "alarm.json"
_ENOUGH = 200  # images: signals are means, and all images are held in memory while the features are computed
_COMPACT = 0.15  # what is more compact than that is not for that more likely a gland


@dataclass(frozen=True)
class Alarm:
    """Logistic regression of failure on label-free signals.

    Attributes:
        weights: of each entry of :meth:`signal_vector`.
        calibrated_on: in words.
        subject: what the images of those runs show, see :mod:`glas_wsol.utils.subjects`; others are not judged.
    """

    weights: tuple[float, ...]
    bias: float
    calibrated_on: str
    subject: str = TISSUE

    @staticmethod
    def signal_vector(signals: MaskSignals) -> tuple[float, ...]:
        """Signals as numbers of similar size, each higher for better masks.

        Returns:
            The compactness, in tenths, and the agreement, in quarters. A compactness above 0.15 counts as that: glands
            have it, and blobs have more, whatever they cover. Margin and information are recorded only: many
            regions predict the class.
        """
        return 10 * min(signals.compactness, _COMPACT), 4 * signals.agreement

    @classmethod
    def calibrated(cls, runs: Sequence[MaskSignals], failed: Sequence[bool], on: str, strength: float = 0.01) -> Alarm:
        """Fit to runs that are known to be good or failed.

        Args:
            runs: their signals.
            failed: whether each did.
            on: what they were, in words.
            strength: of the penalty on the squared weights, see
                :func:`~glas_wsol.pseudo_labels.feature_components.fit_probe`.

        Raises:
            NumericalError: if a signal is not finite.
        """
        evidence = torch.tensor([cls.signal_vector(one) for one in runs], dtype=torch.float64)
        weight, bias = fit_probe(evidence, torch.tensor([int(one) for one in failed]), 2, strength)
        return cls(tuple((weight[1] - weight[0]).tolist()), float(bias[1] - bias[0]), on)

    def score(self, signals: MaskSignals) -> float:
        """How probable it is that the run failed, in (0, 1)."""
        value = float(np.dot(self.weights, self.signal_vector(signals))) + self.bias
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, value))))


def shipped_alarm() -> Alarm:
    """The alarm that comes with the package."""
    values = json.loads(resources.files("glas_wsol.failure_detection").joinpath(_FILE).read_text(encoding="utf-8"))
    return Alarm(tuple(values["weights"]), values["bias"], values["calibrated_on"], values["subject"])


def judge_run(
    network: nn.Module,
    checkpoint: str | Path,
    features: FeatureComponentNetwork,
    data: Sequence[Mapping[str, Any]],
    transform: Transform,
    inferer: WholeTileInferer,
    device: str | torch.device = "cpu",
) -> dict[str, Any] | None:
    """Judge whether a trained model's masks can be trusted, describe its training images, and write both.

    Both go into its ``model.json``: the entries ``alarm`` and ``familiarity``.

    Of several processes the first does so, and the others wait.

    Args:
        checkpoint: ``model.pt``, its ``model.json`` beside it.
        features: a pretrained trunk.
        data: the training items: images and image labels, no mask.
        transform: reads an item: ``image`` to ``[3, H, W]`` in [0, 1].
        inferer: brings it to the training resolution.

    Returns:
        ``score`` (how probable it is that the run failed, in (0, 1)), ``verdict`` (a value of
        :class:`~glas_wsol.results.verdict.Verdict`) and ``signals``. Where it is not judged the verdict says so, the
        score is None and ``why`` says why: several classes per image, a trunk that is not pretrained, images of one
        patient, or of another subject than the alarm was calibrated on.
    """

    def record(card: dict[str, Any], name: str, found: dict[str, Any] | None) -> dict[str, Any]:
        card = {**card, name: found}
        write_json(Path(checkpoint).with_suffix(".json"), card)
        return card

    def judge() -> dict[str, Any] | None:
        card = model_card(str(checkpoint))
        if {ALARM, FAMILIARITY} <= card.keys():
            return card[ALARM]
        load_checkpoint(network, str(checkpoint))
        some = data[:: math.ceil(len(data) / _ENOUGH)]
        if FAMILIARITY not in card and isinstance(network, TileNetwork):
            described = describe_images(network, some, transform, inferer, device)
            card = record(card, FAMILIARITY, described)
        if ALARM in card:
            return card[ALARM]
        alarm = shipped_alarm()
        why = _unjudged(features, data, alarm.subject)
        if why:
            logger.info("whether the masks can be trusted is not judged: %s", why)
            found = {"score": None, "verdict": Verdict.NOT_JUDGED.value, "why": why}
            record(card, ALARM, found)
            return found
        fit_components(fold_batch_norm(features), some, transform, inferer, device)
        signals = mask_signals(network, features, some, transform, inferer, device)
        score = alarm.score(signals)
        verdict = Verdict.of(score)
        found = {"score": score, "verdict": verdict.value, "signals": asdict(signals)}
        record(card, ALARM, found)
        level = logging.INFO if verdict is Verdict.NO_ALARM else logging.WARNING
        said = "this training run: %s (estimated failure probability %.2f), judged on its images without outlines"
        logger.log(level, f"{said}; other images are not judged", verdict.words, score)
        return found

    return distributed.on_main(judge)


def _unjudged(features: FeatureComponentNetwork, data: Sequence[Mapping[str, Any]], subject: str) -> str:
    """Why a run is not judged; empty if it is. ``subject``: what the alarm was calibrated on."""
    if features.subject != subject:
        return f"the alarm was calibrated on {subject}, these images show {features.subject}"
    if any(np.ndim(item["label"]) for item in data):
        return "an image may have several classes"
    if not features.trunk.weights_sha256:
        return "the trunk is not pretrained"
    if len({item.get("group", index) for index, item in enumerate(data)}) < 2:
        return "all images are of one patient"
    return ""
