# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Results on disk: masks, overlays and tables of an evaluator's localizations, and the evaluation in figures."""

from __future__ import annotations

import csv
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

from glas_wsol.errors import OutputError
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.localization import Localization
from glas_wsol.metrics.bootstrap import bootstrap_interval, share_interval
from glas_wsol.networks.minmax import MinMaxEntropyNetwork
from glas_wsol.networks.weights import sha256_of
from glas_wsol.writers.atomic import atomic_write
from glas_wsol.writers.images import overlay, write_png

__all__ = ["ClassOpinions", "EvaluationReport", "LocalizationSaver"]

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


class LocalizationSaver:
    """Writes each image's mask and overlay as PNG at the image's own size, and one row per image in a table.

    An earlier run's results in the same folder are replaced; any other file is never overwritten.

    Args:
        output_dir: receives ``masks/NAME.png`` (0 undecidable, 255 decidable), ``overlays/NAME.png`` and the table.
        table: name of the CSV table. Defaults to ``predictions.csv``.
        overlays: whether to write overlays. Defaults to True.
    """

    def __init__(self, output_dir: str | Path, table: str = "predictions.csv", overlays: bool = True) -> None:
        self.output_dir, self.table, self.overlays = Path(output_dir), table, overlays
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose postprocessing adds ``localization``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write_images)
        engine.add_event_handler(Events.COMPLETED, self._write_table)

    def _start(self, _: Engine) -> None:
        self.rows.clear()
        self._remove_earlier()
        for folder in ("masks", "overlays") if self.overlays else ("masks",):
            (self.output_dir / folder).mkdir(parents=True, exist_ok=True)

    @property
    def _journal(self) -> Path:
        """Names of an unfinished run's files: a hidden file beside the table that is not there yet."""
        return self.output_dir / f".{self.table}.unfinished"

    def _remove_earlier(self) -> None:
        """Take away what an earlier run wrote, table last: nothing of it can be taken for a result of this one."""
        table, names = self.output_dir / self.table, set()
        if table.is_file():
            with table.open(encoding="utf-8", errors="replace", newline="") as file:
                names |= {row["name"] for row in csv.DictReader(file) if row.get("name")}
        if self._journal.is_file():
            names |= set(self._journal.read_text(encoding="utf-8").splitlines())
        for name in names:
            if name != Path(name).name:  # a table that somebody edited must not reach out of its folder
                continue
            for file in self._files(name):
                file.unlink(missing_ok=True)
        if names:
            logger.warning("replacing %d earlier results in %s", len(names), self.output_dir)
        table.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def _files(self, name: str) -> tuple[Path, Path]:
        return tuple(self.output_dir / folder / f"{name}.png" for folder in ("masks", "overlays"))

    def _reserve(self, name: str) -> None:
        """Refuse to overwrite what no run of this kind wrote: masks/ may hold a user's own annotation."""
        for file in self._files(name):
            if file.exists():
                raise OutputError("this file is not one of earlier results", file, "choose another output_dir")
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(f"{name}\n")

    def _write_images(self, engine: Engine) -> None:
        for item in engine.state.output:
            found: Localization = item["localization"]
            self._reserve(found.name)
            mask, picture = self._files(found.name)
            write_png(mask, found.mask)
            if self.overlays:
                write_png(picture, _overlay(item[Keys.IMAGE], found))
            self.rows.append(
                {
                    "path": found.path,
                    "class": found.class_name,
                    "probability": "" if found.probability is None else f"{found.probability:.6f}",
                    "decidable_fraction": f"{found.decidable_fraction:.6f}",
                    "name": found.name,
                }
            )

    def _write_table(self, _: Engine) -> None:
        _write_csv(self.output_dir / self.table, self.rows)
        self._journal.unlink(missing_ok=True)
        logger.info("%d localizations in %s", len(self.rows), self.output_dir)


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
        _write_csv(self.output_dir / "evaluation.csv", self.rows)
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


def _overlay(image: Any, found: Localization) -> np.ndarray:
    pixels = (np.asarray(image.cpu()) * 255).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    sure = "" if found.probability is None else f" {100 * found.probability:.0f} %"
    return overlay(
        pixels, found.decidable, found.mask, f"{found.class_name}{sure}", found.name, evidence=found.evidence
    )


def _per_image(details: Any) -> list[float]:
    return [] if details is None else [float(v) for v in np.asarray(details).reshape(-1)]


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_write(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["path"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
