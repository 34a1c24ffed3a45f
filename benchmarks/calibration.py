# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a temperature makes of the class's confidence, on runs that were evaluated without one.

    python benchmarks/calibration.py FOLDER [--picture FILE.png]

FOLDER holds evaluated runs of two classes, in folds of each seed. For every seed it prints the expected calibration
error of the class over the images of all folds, and that of its worst fold: as evaluated; with the temperature fitted
to each fold's own images, as a training does with the images it validates on; and fitted to all other folds' images.
The picture is the reliability diagram of the first seed, over the images of all folds: of the class with the
temperature of its fold's own images, and of the masks' pixels as they are.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from glas_wsol.experiments.tables.runs import find_runs, read_run
from glas_wsol.metrics.calibration import class_reliability, mask_reliability
from glas_wsol.metrics.measures import MEASURES
from glas_wsol.metrics.temperature import fit_temperature
from glas_wsol.visualize.reliability_diagram import draw_reliability


class Answers(NamedTuple):
    """Of the images of a fold: ``[N, 2]`` logarithms of probabilities, ``[N]`` labels, and the masks' bins."""

    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def answers_of(folder: Path) -> tuple[int, Answers]:
    """The seed of a run, and what it said."""
    run = read_run(folder, MEASURES)
    confidence, right = run.rows["calibration_error"].T
    labels = run.rows["balanced_error"][:, 0].astype(int)
    named = np.where(right > 0, labels, 1 - labels)
    p = np.where(np.arange(2) == named[:, None], confidence[:, None], 1 - confidence[:, None])
    return run.seed, Answers(np.log(p), labels, run.rows["mask_calibration_error"])


def rows_of(folds: Sequence[Answers], temperatures: Sequence[float]) -> np.ndarray:
    """``[N, 2]``, confidence and whether it was right, of the images of all folds."""
    rows = []
    for one, temperature in zip(folds, temperatures, strict=True):
        p = softmax(one.scores / temperature, axis=1)
        rows.append(np.stack([p.max(axis=1), p.argmax(axis=1) == one.labels], axis=1))
    return np.concatenate(rows)


def error_of(folds: Sequence[Answers], temperatures: Sequence[float]) -> float:
    """Expected calibration error over the images of all folds."""
    whole = rows_of(folds, temperatures)
    return float(MEASURES["calibration_error"].aggregate(whole, np.ones((1, len(whole))))[0])


def own_temperature(one: Answers) -> float:
    """Fitted to a fold's images."""
    return fit_temperature(one.scores, one.labels)


def draw(path: Path, seed: int, folds: Sequence[Answers]) -> None:
    """The reliability diagram of a seed."""
    rows = rows_of(folds, [own_temperature(one) for one in folds])
    masks = np.concatenate([one.masks for one in folds])
    said = f"{len(folds)} folds, seed {seed}; the class with the temperature of its fold's own images"
    draw_reliability(path, class_reliability(rows), mask_reliability(masks), said)


def main() -> None:
    """Print a Markdown table, and draw the picture if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    seeds: dict[int, list[Answers]] = defaultdict(list)
    for folder in find_runs([given.folder]):
        seed, found = answers_of(folder)
        seeds[seed].append(found)
    print("| seed | as it is, % (worst fold) | own images | other folds' images |\n|---|---|---|---|")
    for seed, folds in sorted(seeds.items()):
        own = [own_temperature(one) for one in folds]
        others = []
        for left_out in range(len(folds)):
            rest = [one for place, one in enumerate(folds) if place != left_out]
            others.append(own_temperature(Answers(*map(np.concatenate, zip(*rest, strict=True)))))
        cells = [str(seed)]
        for temperatures in ([1.0] * len(folds), own, others):
            worst = max(error_of([one], [t]) for one, t in zip(folds, temperatures, strict=True))
            cells.append(f"{100 * error_of(folds, temperatures):.1f} ({100 * worst:.1f})")
        print(f"| {' | '.join(cells)} |")
    if given.picture:
        draw(given.picture, *min(seeds.items()))


if __name__ == "__main__":
    main()
