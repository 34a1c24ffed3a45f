# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a temperature makes of the class's confidence, on runs that were evaluated without one.

    python benchmarks/calibration.py FOLDER

FOLDER holds evaluated runs of two classes, in folds of each seed. For every seed it prints the expected calibration
error of the class over the images of all folds, and that of its worst fold: as evaluated; with the temperature fitted
to each fold's own images, as a training does with the images it validates on; and fitted to all other folds' images.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from glas_wsol.calibration import fit_temperature
from glas_wsol.metrics.measures import MEASURES
from glas_wsol.tables.runs import find_runs, read_run


class Answers(NamedTuple):
    """Of the images of a fold: ``[N, 2]`` logarithms of probabilities, and ``[N]`` labels."""

    scores: np.ndarray
    labels: np.ndarray


def answers_of(folder: Path) -> tuple[int, Answers]:
    """The seed of a run, and what it said."""
    run = read_run(folder, MEASURES)
    confidence, right = run.rows["calibration_error"].T
    labels = run.rows["balanced_error"][:, 0].astype(int)
    named = np.where(right > 0, labels, 1 - labels)
    p = np.where(np.arange(2) == named[:, None], confidence[:, None], 1 - confidence[:, None])
    return run.seed, Answers(np.log(p), labels)


def error_of(folds: Sequence[Answers], temperatures: Sequence[float]) -> float:
    """Expected calibration error over the images of all folds."""
    rows = []
    for (scores, labels), temperature in zip(folds, temperatures, strict=True):
        p = softmax(scores / temperature, axis=1)
        rows.append(np.stack([p.max(axis=1), p.argmax(axis=1) == labels], axis=1))
    whole = np.concatenate(rows)
    return float(MEASURES["calibration_error"].aggregate(whole, np.ones((1, len(whole))))[0])


def main() -> None:
    """Print a Markdown table."""
    seeds: dict[int, list[Answers]] = defaultdict(list)
    for folder in find_runs([Path(sys.argv[1])]):
        seed, found = answers_of(folder)
        seeds[seed].append(found)
    print("| seed | as it is, % (worst fold) | own images | other folds' images |\n|---|---|---|---|")
    for seed, folds in sorted(seeds.items()):
        own = [fit_temperature(*one) for one in folds]
        others = []
        for left_out in range(len(folds)):
            rest = [one for place, one in enumerate(folds) if place != left_out]
            others.append(fit_temperature(*map(np.concatenate, zip(*rest, strict=True))))
        cells = [str(seed)]
        for temperatures in ([1.0] * len(folds), own, others):
            worst = max(error_of([one], [t]) for one, t in zip(folds, temperatures, strict=True))
            cells.append(f"{100 * error_of(folds, temperatures):.1f} ({100 * worst:.1f})")
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
