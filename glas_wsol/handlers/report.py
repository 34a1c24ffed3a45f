# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The evaluation in figures, on disk, and what M and C say besides."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.networks.utils import eval_mode
from monai.utils.enums import CommonKeys as Keys

from glas_wsol.inferers import WholeTileInferer
from glas_wsol.localization import Localization
from glas_wsol.metrics.bootstrap import bootstrap_interval, share_interval
from glas_wsol.networks.minmax import MinMaxEntropyNetwork
from glas_wsol.networks.weights import sha256_of
from glas_wsol.writers.atomic import atomic_write
from glas_wsol.writers.table import write_csv

__all__ = ["ClassOpinions", "EvaluationReport", "summary"]

logger = logging.getLogger(__name__)


class ClassOpinions:
    """Asks the localizer, and the classifier of the *whole* image, for the class: the named class is C's on X+.

    Adds ``localizer_probabilities`` and ``whole_image_probabilities``, ``[B, c]`` each, to the evaluator's output.

    Args:
        network: the network evaluated.
        inferer: prepares the image as for the prediction.
    """

    def __init__(self, network: MinMaxEntropyNetwork, inferer: WholeTileInferer) -> None:
        self.network, self.inferer = network, inferer

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Run M and C once more on the batch."""
        with eval_mode(self.network):  # no gradient either
            x = self.network.normalise(self.inferer.prepare(engine.state.output[Keys.IMAGE])[0])
            engine.state.output["localizer_probabilities"] = self.network.localize(x).logits.softmax(dim=1)
            engine.state.output["whole_image_probabilities"] = self.network.classify(x).softmax(dim=1)


class EvaluationReport:
    """Writes ``evaluation.json`` and one row per image in ``evaluation.csv``, and logs a summary.

    Reads the metrics ``classification_error``, ``f1_foreground``, ``f1_background`` and the floors
    ``floor_f1_foreground`` and ``floor_f1_background`` of the evaluator it is attached to; where they are, also
    ``classification_error_localizer`` (of M) and ``classification_error_whole_image`` (of C on the unmasked image).

    Args:
        output_dir: where to write.
        facts: what else the report says: split, seed, selection rule, ..., JSON values only.
        checkpoint: the evaluated weights' file, named with its SHA-256.
    """

    metrics = ("classification_error", "f1_foreground", "f1_background")

    def __init__(self, output_dir: str | Path, facts: Mapping[str, Any], checkpoint: str | Path) -> None:
        self.output_dir, self.facts, self.checkpoint = Path(output_dir), dict(facts), Path(checkpoint)
        self.rows: list[dict[str, Any]] = []
        self.threshold, self.without_evidence = 0.0, 0

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, after its metrics."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, _: Engine) -> None:
        self.rows.clear()
        self.without_evidence = 0
        for name in ("evaluation.json", "evaluation.csv"):  # an older one is not to be taken for this one's
            (self.output_dir / name).unlink(missing_ok=True)

    def _collect(self, engine: Engine) -> None:
        for item in engine.state.output:
            found: Localization = item["localization"]
            label = int(item[Keys.LABEL])
            self.rows.append(
                {
                    "name": found.name,
                    "label": found.classes[label],
                    "predicted": found.classes[found.label],
                    "class": found.class_name,
                    "probability_of_label": f"{found.probabilities[label]:.6f}",
                    "decidable_fraction": f"{found.decidable_fraction:.6f}",
                    "image": found.path,
                    "mask": item.get("truth_path", ""),
                }
            )
            self.threshold = found.threshold
            self.without_evidence += not found.evidence

    def _write(self, engine: Engine) -> None:
        state, report = engine.state, {"n": len(self.rows), **self.facts}
        with_truth = [row for row in self.rows if row["mask"]]
        report["n_with_masks"] = len(with_truth)
        report["n_without_evidence"] = self.without_evidence  # their mask is empty; their class counts all the same
        report["threshold"] = self.threshold
        report["interval"] = "95 %: Wilson's for the error, percentile bootstrap over images (9999 resamples) for F1"
        for name in self.metrics:
            values = _per_image(state.metric_details.get(name))
            report[name] = _number(state.metrics.get(name))
            interval = share_interval if name == "classification_error" else bootstrap_interval
            report[f"{name}_interval"] = list(interval(values)) if values else None
            measured = self.rows if name == "classification_error" else with_truth
            cells = dict(zip(map(id, measured), values, strict=True)) if values else {}
            for row in self.rows:  # every row has every column: an image without a mask has empty ones
                row[name] = f"{cells[id(row)]:.6f}" if id(row) in cells else ""
        report["other_classification_errors"] = {
            who: _number(state.metrics.get(f"classification_error_{who}")) for who in ("localizer", "whole_image")
        }
        report["floor"] = {
            "name": "all-ones",
            "classification_error": None,  # a mask of ones names no class
            **{name: _number(state.metrics.get(f"floor_{name}")) for name in self.metrics[1:]},
        }
        report["checkpoint"] = self.checkpoint.name
        report["checkpoint_sha256"] = sha256_of(self.checkpoint)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.output_dir / "evaluation.json", "w") as file:
            file.write(json.dumps(report, indent=4, allow_nan=False) + "\n")
        write_csv(self.output_dir / "evaluation.csv", self.rows)
        logger.info("evaluated %d images of split %r\n%s", len(self.rows), report.get("split"), summary(report))


def summary(report: Mapping[str, Any]) -> str:
    """A small table of an evaluation, in percent, for a terminal.

    Args:
        report: the content of ``evaluation.json``.
    """

    def percent(value: float | None) -> str:
        return "  n/a" if value is None else f"{100 * value:5.1f}"

    lines = [f"{'':22}{'model':>8}  {'95 % interval':<16}{'all-ones floor':>14}"]
    for name, text in (
        ("classification_error", "classification error"),
        ("f1_foreground", "F1+ (decidable)"),
        ("f1_background", "F1- (undecidable)"),
    ):
        interval = report[f"{name}_interval"]
        bounds = "" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"
        lines.append(f"{text:<22}{percent(report[name]):>8}  {bounds:<16}{percent(report['floor'][name]):>14}")
    return "\n".join(lines)


def _per_image(details: Any) -> list[float]:
    return [] if details is None else [float(v) for v in np.asarray(details).reshape(-1)]


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)
