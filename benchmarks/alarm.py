# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs that should be trusted and runs that should not, and what their label-free signals say of them.

    python benchmarks/alarm.py run OUT --table NAME=CSV [--table NAME=CSV ...] [--phantom 2] [--jobs 2]
    python benchmarks/alarm.py calibrate OUT [--write]
    python benchmarks/alarm.py test FOLDER

``run`` trains both stages on tables of tiles with masks (``image,label,mask,group``; of two classes) and on phantoms
whose stroma is neutral or confounded, in the ways of :data:`VARIANTS`: as recommended; with the labels of the training
images permuted; with hardly any training; and with the first stage alone as teacher, trained as usual and hardly. The
masks are read by the evaluation alone. ``calibrate`` prints, for every run, its signals, its F1 and the score it gets
from an alarm calibrated on all other *sets*; ``--write`` puts the alarm calibrated on all of them into the package.
``test`` prints how the package's alarm does on the runs below a folder.

A run has failed if the mean F1 of its foreground or of its background is below 0.65. How often the class is wrong is
told by the image labels themselves, and is no matter of this alarm.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from monai.metrics import compute_roc_auc
from sets import CONFIGS, add_sets, bundle_run, held_out, sets_of, write_table
from tqdm import tqdm

from glas_wsol import alarm
from glas_wsol.alarm import ALARM, Alarm, shipped_alarm
from glas_wsol.signals import MaskSignals

USUAL = {"scale": 1.0, "crop_size": 192, "epochs": 3}
HARDLY = {"scale": 1.0, "crop_size": 192, "epochs": 1}
FIRST_STAGE = {"teachers#components": 0.0, "teachers#stain": 0.0, "teachers#stage_one": 1.0}
VARIANTS = {
    "good": USUAL,
    "shuffled": USUAL,
    "short": HARDLY | {"refine_epochs": 1, "refine_rounds": 1},
    "firststage": USUAL | FIRST_STAGE,
    "firstshort": HARDLY | FIRST_STAGE,
}
FAILED_F1 = 0.65


@dataclass(frozen=True)
class Outcome:
    """A run: where it stood, its signals, and what its masks were worth."""

    name: str
    signals: MaskSignals
    f1_foreground: float
    f1_background: float
    error: float

    @property
    def dataset(self) -> str:
        """The set it was trained on."""
        return self.name.split("/")[0]

    @property
    def failed(self) -> bool:
        """Whether its masks are not to be used."""
        return min(self.f1_foreground, self.f1_background) < FAILED_F1


def train_and_evaluate(output: Path, table: Path, variant: str, split: str) -> int:
    """Both stages and their evaluation, by the bundle; the exit status of the first command that fails, else 0."""
    settings = {"dataset_dir": table, "output_dir": output, **VARIANTS[variant]}
    train = [CONFIGS / "train.json"]
    return bundle_run(output / "train.log", train, settings) or bundle_run(
        output / "eval.log", [*train, CONFIGS / "evaluate.json"], {**settings, "split": split}
    )


def run(output: Path, tables: dict[str, Path], phantoms: int, jobs: int) -> None:
    """Train every variant on every set; what is finished is left as it is."""
    output.mkdir(parents=True, exist_ok=True)
    todo = []
    for name, some in sets_of(output, tables, phantoms).items():
        for shuffled in (False, True):
            write_table(output / f"{name}{'_shuffled' * shuffled}.csv", some, shuffled)
        for variant in VARIANTS:
            table = output / f"{name}{'_shuffled' * (variant == 'shuffled')}.csv"
            todo.append((output / "runs" / name / variant, table, variant, held_out(name)))
    with ThreadPoolExecutor(jobs) as pool:
        ended = pool.map(lambda one: train_and_evaluate(*one), todo)
        for (folder, *_), status in tqdm(zip(todo, ended, strict=True), "runs", len(todo)):
            if status:
                print(f"{folder}: status {status}, see its logs")


def outcomes(folder: Path) -> Iterator[Outcome]:
    """Every run below a folder that has both a model with signals and an evaluation."""
    for card in sorted(folder.rglob("models/model.json")):
        place = card.parent.parent
        found, evaluation = json.loads(card.read_text(encoding="utf-8")).get(ALARM), place / "evaluation.json"
        if found and evaluation.is_file():
            measures = json.loads(evaluation.read_text(encoding="utf-8"))["measures"]
            f1 = [measures[f"f1_{region}"]["value"] for region in ("foreground", "background")]
            name = place.relative_to(folder).as_posix()
            yield Outcome(name, MaskSignals(**found["signals"]), *f1, measures["classification_error"]["value"])


def table_of(runs: Sequence[Outcome], scores: Sequence[float], judge: Alarm) -> str:
    """A Markdown table of runs, and how the scores part failed from good ones."""
    columns = ["run", "information", "margin", "+-", "compactness", "agreement"]
    columns += ["F1+", "F1-", "error", "failed", "score", "verdict"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for one, score in zip(runs, scores, strict=True):
        s = one.signals
        figures = f"{s.information:.2f} | {s.margin:.3f} | {s.margin_error:.3f}"
        figures += f" | {s.compactness:.3f} | {s.agreement:.2f}"
        masks = f"{100 * one.f1_foreground:.1f} | {100 * one.f1_background:.1f} | {100 * one.error:.1f}"
        said = judge.verdict(score).split(":")[0]
        lines.append(f"| {one.name} | {figures} | {masks} | {'yes' if one.failed else ''} | {score:.2f} | {said} |")
    failed = [one.failed for one in runs]
    if 0 < sum(failed) < len(failed):
        truth = torch.tensor(failed)
        area = compute_roc_auc(torch.tensor(scores), truth)
        lines.append(f"\n{sum(failed)} of {len(runs)} runs failed. Area under the ROC curve of the score: {area:.3f}.")
        for name in ("information", "margin", "compactness", "agreement"):
            alone = compute_roc_auc(torch.tensor([-getattr(one.signals, name) for one in runs]), truth)
            lines.append(f"Of {name} alone: {alone:.3f}.")
    return "\n".join(lines)


def calibrate(folder: Path, write: bool) -> None:
    """Print every run with its score by an alarm that has not seen its set."""
    runs = list(outcomes(folder))
    scores = np.empty(len(runs))
    for name in sorted({one.dataset for one in runs}):
        others = [one for one in runs if one.dataset != name]
        judge = Alarm.calibrated([one.signals for one in others], [one.failed for one in others], "all other sets")
        for index, one in enumerate(runs):
            if one.dataset == name:
                scores[index] = judge.score(one.signals)
    sets = sorted({one.dataset for one in runs})
    failed = [one.failed for one in runs]
    on = f"{len(runs)} runs on {', '.join(sets)}; {sum(failed)} of them failed"
    judge = Alarm.calibrated([one.signals for one in runs], failed, on)
    print(table_of(runs, scores.tolist(), judge))
    print(f"\nWeights on all of them: {[round(one, 3) for one in judge.weights]}, bias {judge.bias:.3f}")
    if write:
        path = Path(alarm.__file__).with_name("alarm.json")
        path.write_text(json.dumps(asdict(judge), indent=4) + "\n", encoding="utf-8")
        print(f"written to {path.name}")


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("output", type=Path)
    add_sets(one, phantoms=2)
    one.add_argument("--jobs", type=int, default=2)
    two = commands.add_parser("calibrate")
    two.add_argument("output", type=Path)
    two.add_argument("--write", action="store_true")
    commands.add_parser("test").add_argument("output", type=Path)
    given = parser.parse_args()
    if given.command == "run":
        run(given.output, dict(given.table), given.phantom, given.jobs)
    elif given.command == "calibrate":
        calibrate(given.output, given.write)
    else:
        runs, judge = list(outcomes(given.output)), shipped_alarm()
        print(table_of(runs, [judge.score(one.signals) for one in runs], judge))


if __name__ == "__main__":
    main()
