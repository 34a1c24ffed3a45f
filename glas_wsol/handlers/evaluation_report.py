# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes the metrics of an evaluation, with the class scores of localizer M and classifier C."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.networks.utils import eval_mode
from monai.utils import ensure_tuple
from monai.utils.enums import CommonKeys as Keys

from glas_wsol.errors import count
from glas_wsol.handlers.clock import read_clock
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.metrics import MEASURES, NO_WIDTH, class_errors, confusions, interval
from glas_wsol.networks.minmax import MinMaxEntropyNetwork
from glas_wsol.networks.refined import RefinedNetwork
from glas_wsol.results.class_scores import WHOLE_IMAGE
from glas_wsol.results.localization import THRESHOLD, Localization
from glas_wsol.results.provenance import alarm_of
from glas_wsol.utils import distributed
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.csv_files import write_csv
from glas_wsol.utils.digests import sha256_of
from glas_wsol.utils.json_files import write_json
from glas_wsol.utils.labels import SEPARATOR, present_classes

__all__ = ["EvaluationReport", "WholeImageScores", "summary"]

logger = logging.getLogger(__name__)

_CLASSES, _CONFUSIONS = "evaluation_classes.csv", "evaluation_confusions.csv"
_WORST = 5  # classes named in a summary


class WholeImageScores:
    """Adds the class scores of localizer M and classifier C on the *whole* image; the named class is C's on X+.

    Also of a refined network that has both; the class that it names is M's, or C's on its own X+. Other methods, and
    ensembles, have one set of class scores only, and none are added. Several views of an image are averaged.

    Adds ``localizer_probabilities`` and ``whole_image_probabilities``, ``[B, c]`` each, to the evaluator's output.

    Args:
        inferer: prepares the image as for the prediction.
    """

    def __init__(self, network: torch.nn.Module, inferer: WholeTileInferer) -> None:
        self.inferer = inferer
        self.network: Any = network

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        refined = isinstance(self.network, RefinedNetwork) and self.network.has_classifier
        if refined or isinstance(self.network, MinMaxEntropyNetwork):
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Run M and C once more on every view of the batch."""
        class_scores = []
        with eval_mode(self.network):  # no gradient either
            for image in self.inferer.views(engine.state.output[Keys.IMAGE]):
                x = self.network.normalise(image)
                scores = self.network.localize(x).logits, self.network.classify(x)
                class_scores.append([self.network.probabilities(logits) for logits in scores])
        localizer, classifier = (torch.stack(who).mean(dim=0) for who in zip(*class_scores, strict=True))
        engine.state.output |= dict(zip(WHOLE_IMAGE, (localizer, classifier), strict=True))


class EvaluationReport:
    """Writes ``evaluation.json``, one row per image in ``evaluation.csv`` and ``evaluation.npz``; logs a summary.

    ``evaluation_classes.csv`` has the error of every class, ``evaluation_confusions.csv`` what images of each class are
    named as; the second not where an image may have several classes, both not where a method names none.

    Reports every measure of :data:`~glas_wsol.metrics.MEASURES` whose metric the evaluator has under the measure's key,
    each with its interval; the floors ``floor_f1_foreground`` and ``floor_f1_background``; and, where they are,
    ``classification_error_localizer`` (of M) and ``classification_error_whole_image`` (of C on the unmasked image).
    ``evaluation.npz`` holds what each measure took from each image (``[N, k]``, not a number where it could take
    nothing) beside the images' ``names``, so that runs can be compared image by image. Several processes report what
    one would, and the first writes it.

    Args:
        facts: other entries of the report: ``method``, ``trained_as`` (the method the weights were trained as), split,
            seed, selection rule, ..., JSON values only.
        checkpoint: the evaluated weights' file, named with its SHA-256; a ``clock.json`` beside it says how long they
            were trained. Of an ensemble a list of files: names and digests are lists then, and times sums.
    """

    def __init__(
        self, output_dir: str | Path, facts: Mapping[str, Any], checkpoint: str | Path | Sequence[str | Path]
    ) -> None:
        self.output_dir, self.facts = Path(output_dir), dict(facts)
        self.checkpoints = [Path(one) for one in ensure_tuple(checkpoint)]
        self.rows: list[dict[str, Any]] = []
        self.named: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.classes: tuple[str, ...] = ()
        self.multi_label = False
        self.threshold, self.without_evidence = 0.0, 0

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, after its metrics."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, _: Engine) -> None:
        self.rows.clear()
        self.named.clear()
        self.without_evidence = 0
        if distributed.not_main():
            return
        for name in (
            "evaluation.json",
            "evaluation.csv",
            "evaluation.npz",
            _CLASSES,
            _CONFUSIONS,
        ):  # older ones are not this one's
            (self.output_dir / name).unlink(missing_ok=True)

    def _collect(self, engine: Any) -> None:
        for item in engine.state.output:
            found: Localization = item["localization"]
            labels = present_classes(item[Keys.LABEL])
            self.classes, self.multi_label = found.classes, found.multi_label
            if found.probabilities:
                self.named.append((tuple(labels), found.labels))
            p = [f"{found.probabilities[label]:.6f}" for label in labels] if found.probabilities else []
            self.rows.append(
                {
                    "name": found.name,
                    "label": SEPARATOR.join(found.classes[label] for label in labels),
                    "predicted": found.predicted,
                    "class": found.class_name,
                    "probability_of_label": SEPARATOR.join(p),
                    "decidable_fraction": f"{found.decidable_fraction:.6f}",
                    "boxes": len(found.boxes),
                    "pixel_size": found.pixel_size_remark,
                    "image": found.path,
                    "mask": item.get("truth_path", ""),
                    "official_box": " ".join(f"{edge:g}" for edge in item["box"]) if "box" in item else "",
                }
            )
            self.threshold = found.threshold
            self.without_evidence += not found.evidence

    def _write(self, engine: Engine) -> None:
        self.rows = distributed.all_gather(self.rows)
        self.named = distributed.all_gather(self.named)
        self.without_evidence = sum(distributed.all_gather([self.without_evidence]))
        if distributed.not_main():
            return
        arrays = self._per_image(cast("Any", engine.state).metric_details)  # MONAI adds to Ignite's state
        report = {
            "n": len(self.rows),
            "n_with_masks": sum(bool(row["mask"]) for row in self.rows),
            "n_with_official_boxes": sum(bool(row["official_box"]) for row in self.rows),
            "n_without_evidence": self.without_evidence,  # their mask is empty; their class still counts
            "pixel_sizes": dict(Counter(row["pixel_size"] for row in self.rows if row["pixel_size"])),
            **self.facts,
            "threshold": self.threshold,
            "threshold_rule": self._threshold_rule(),
            "training": self._training(),
            "interval": "95 %: Wilson's for the error, percentile bootstrap over images for the others, "
            "reflected for calibration errors",
            "measures": {key: _measured(key, rows) for key, rows in arrays.items()},
            "floor": {
                "name": "all-ones",
                **{
                    key: _number(engine.state.metrics.get(f"floor_{key}"))
                    for key in MEASURES
                    if key in ("f1_foreground", "f1_background") or (MEASURES[key].needs == "box" and key in arrays)
                },
            },
            "class_errors": class_errors(self.classes, self.named) if self.named else [],
            "other_classification_errors": {
                who: _number(engine.state.metrics.get(f"classification_error_{who}"))
                for who in ("localizer", "whole_image")
            },
            "checkpoint": _one_or_all([file.name for file in self.checkpoints]),
            "checkpoint_sha256": _one_or_all([sha256_of(file) for file in self.checkpoints]),
        }
        for key in ("classification_error", "f1_foreground", "f1_background"):
            values = arrays.get(key, np.full((len(self.rows), 1), np.nan))[:, 0]
            for row, value in zip(self.rows, values, strict=True):
                row[key] = "" if math.isnan(value) else f"{value:.6f}"
        self.output_dir.mkdir(parents=True, exist_ok=True)
        write_csv(self.output_dir / "evaluation.csv", self.rows)
        if self.named:
            write_csv(self.output_dir / _CLASSES, report["class_errors"])
        if self.named and not self.multi_label:
            write_csv(self.output_dir / _CONFUSIONS, confusions(self.classes, self.named))
        with atomic_write(self.output_dir / "evaluation.npz") as file:
            np.savez_compressed(
                file, names=np.array([row["name"] for row in self.rows], dtype=str), **cast("Any", arrays)
            )
        # last: it marks the others as complete
        write_json(self.output_dir / "evaluation.json", report, allow_nan=False)
        logger.info(
            "evaluated %s of split %r\n%s", count(len(self.rows), "image"), report.get("split"), summary(report)
        )

    def _per_image(self, details: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What each measure took from each image, ``[N, k]``; an image without a true mask, or no class, gives none."""
        arrays = {}
        for key, measure in MEASURES.items():
            if details.get(key) is None:
                continue
            rows = np.asarray(details[key], dtype=float)
            rows = rows.reshape(len(rows), -1)
            known = {"class": "predicted", "mask": "mask", "box": "official_box"}[measure.needs]
            measured = [bool(row[known]) for row in self.rows]
            if sum(measured) != len(rows):
                raise ValueError(f"{key} measured {len(rows)} images, not {sum(measured)}")
            if len(rows):
                arrays[key] = np.full((len(self.rows), rows.shape[1]), np.nan)
                arrays[key][measured] = rows
        return arrays

    def _threshold_rule(self) -> str | None:
        """The config's words hold for the method's own threshold only: another was set by hand, whoever chose it."""
        own = self.threshold == THRESHOLD
        return self.facts.get("threshold_rule") if own else f"set by hand, not the method's own {THRESHOLD:g}"

    def _training(self) -> dict[str, Any] | None:
        """How long the weights were trained, all members of an ensemble together.

        None where nothing was, where they were trained as another method, and where the time of an epoch is lost or
        the epochs were not run on one device with one number of threads.
        """
        clocks = [read_clock(file.with_name("clock.json")) for file in self.checkpoints]
        epochs = [one for clock in clocks for one in clock]
        trained = self.facts.get("supervision") != "none" and self.facts.get("method") == self.facts.get("trained_as")
        whole = all(clock and [one["epoch"] for one in clock] == list(range(1, len(clock) + 1)) for clock in clocks)
        if not trained or not whole or len({(one["device"], one["threads"]) for one in epochs}) != 1:
            return None
        return {
            "seconds": sum(one["seconds"] for one in epochs),
            "cpu_seconds": sum(one["cpu_seconds"] for one in epochs),
            "epochs": len(epochs),
            "device": epochs[-1]["device"],
            "threads": epochs[-1]["threads"],
        }


def _one_or_all(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values


def summary(report: Mapping[str, Any]) -> str:
    """A small table of an evaluation for a terminal: percent, and pixels where a measure is a distance; its notes."""
    notes = [report["trained_on"]] if report.get("trained_on") else []
    notes += [str(alarm)] if (alarm := alarm_of(report)) is not None else []
    notes += [f"{count} of {report['n']} images: {said}" for said, count in report.get("pixel_sizes", {}).items()]
    lines = [f"{'':34}{'model':>8}  {'95 % interval':<16}{'all-ones floor':>14}"]
    for key, measure in MEASURES.items():
        if measure.oracle or key not in report["measures"]:
            continue
        found = report["measures"][key]
        value, *bounds = (_shown(v, measure.unit) for v in (found["value"], *(found["interval"] or (None, None))))
        floor = _shown(report["floor"].get(key), measure.unit) if key in report["floor"] else ""
        between = "" if found["interval"] is None else f"{bounds[0]} to {bounds[1]}"
        if found["interval"] is not None and bounds[0] == bounds[1]:
            between += " *"
            notes.append(f"* {NO_WIDTH}")
        lines.append(f"{f'{measure.title} ({measure.unit})':<34}{value:>8}  {between:<16}{floor:>14}")
    return "\n".join((*lines, *dict.fromkeys(notes), *_worst_classes(report.get("class_errors", []))))


def _worst_classes(errors: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line on the classes with errors, the worst first, where there are more than two classes."""
    wrong = sorted((one for one in errors if one["errors"]), key=lambda one: -one["error"])
    if len(errors) < 3 or not wrong:
        return []
    said = [f"{one['class']} {100 * one['error']:.1f} % of {one['images']}" for one in wrong[:_WORST]]
    more = f" and {count(len(wrong) - _WORST, 'other')}" if len(wrong) > _WORST else ""
    return [f"error by class: {', '.join(said)}{more} (all: {_CLASSES}, {_CONFUSIONS})"]


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "  n/a"
    return f"{100 * value if unit == '%' else value:5.1f}"


def _measured(key: str, rows: np.ndarray) -> dict[str, Any]:
    """Value, interval and number of images of one measure; marked where its threshold was chosen on these images."""
    n = int((~np.isnan(rows).any(axis=1)).sum())
    value = _number(MEASURES[key].aggregate(rows, np.ones((1, len(rows))))[0])
    bounds = [_number(bound) for bound in interval(key, rows)]
    found = {"value": value, "interval": None if None in (value, *bounds) else bounds, "n": n}
    return found | ({"oracle": True} if MEASURES[key].oracle else {})


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)
