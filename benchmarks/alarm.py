# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs that should be trusted and runs that should not, and what their label-free signals say of them.

    python benchmarks/alarm.py run OUT --table NAME=CSV [--table NAME=CSV ...] [--phantom 2] [--jobs 2]
    python benchmarks/alarm.py calibrate RUNS [RUNS ...] [--aside TEXT ...] [--write]
    python benchmarks/alarm.py test RUNS [RUNS ...]

``run`` trains both stages on tables of tiles with masks (``image,label,mask,group``; of two classes) and on phantoms
whose stroma is neutral or confounded, in the ways of :data:`VARIANTS`: as recommended; with the labels of the training
images permuted; with hardly any training; and with the first stage alone as teacher, trained as usual and hardly. The
masks are read by the evaluation alone. ``calibrate`` prints, for every run, its signals, its F1 and the score it gets
from an alarm calibrated on all other *sets*; ``--write`` puts the alarm calibrated on all of them into the package.
``test`` prints how the package's alarm does. Both read all runs below a folder, named by their paths in it, the set
first; or those of a table that either has printed before.

A run has failed if the mean F1 of its foreground or of its background is below 0.65. Near that, from 0.60 to 0.70, it
is no example of either, and nothing is calibrated on it; neither on runs whose names hold a text of ``--aside``. How
often the class is wrong is told by the image labels themselves, and is no matter of this alarm.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from monai.metrics import compute_roc_auc
from sets import CONFIGS, add_sets, bundle_run, held_out, sets_of, write_table
from tqdm import tqdm

from glas_wsol.failure_detection import alarm
from glas_wsol.failure_detection.alarm import ALARM, Alarm, shipped_alarm
from glas_wsol.failure_detection.signals import MaskSignals
from glas_wsol.results.verdict import Verdict

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
BETWEEN = (0.6, 0.7)
COLUMNS = ("run", "information", "margin", "+-", "compactness", "agreement", "kept", "F1+", "F1-", "error")


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
        return self.worse < FAILED_F1

    @property
    def between(self) -> bool:
        """Whether it is too near that to be an example."""
        return BETWEEN[0] <= self.worse < BETWEEN[1]

    @property
    def worse(self) -> float:
        """The lower of its two F1."""
        return min(self.f1_foreground, self.f1_background)


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


def outcomes(place: Path) -> Iterator[Outcome]:
    """Every run below a folder that has both a model with signals and an evaluation; or every run of a table."""
    if place.is_file():
        for line in place.read_text(encoding="utf-8").splitlines():
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            if "/" in name and len(cells) >= len(COLUMNS) - 1:
                figures = [float(cell) for cell in cells[: len(COLUMNS) - 1]]
                yield Outcome(name, MaskSignals(*figures[:6]), *(one / 100 for one in figures[6:]))
        return
    for card in sorted(place.rglob("models/model.json")):
        run = card.parent.parent
        found, evaluation = json.loads(card.read_text(encoding="utf-8")).get(ALARM), run / "evaluation.json"
        if found and evaluation.is_file():
            measures = json.loads(evaluation.read_text(encoding="utf-8"))["measures"]
            f1 = [measures[f"f1_{region}"]["value"] for region in ("foreground", "background")]
            name = run.relative_to(place).as_posix()
            yield Outcome(name, MaskSignals(**found["signals"]), *f1, measures["classification_error"]["value"])


def table_of(runs: Sequence[Outcome], scores: Sequence[float], judge: Alarm, aside: Sequence[str] = ()) -> str:
    """A Markdown table of runs, and how the scores part failed from good ones."""
    columns = [*COLUMNS, "failed", "score", "verdict"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    verdicts = [Verdict.of(score).value for score in scores]
    for one, score, said in zip(runs, scores, verdicts, strict=True):
        s = one.signals
        figures = f"{s.information:.2f} | {s.margin:.3f} | {s.margin_error:.3f}"
        figures += f" | {s.compactness:.3f} | {s.agreement:.3f} | {s.kept:.2f}"
        masks = f"{100 * one.f1_foreground:.1f} | {100 * one.f1_background:.1f} | {100 * one.error:.1f}"
        failed = ("yes" if one.failed else "") + (", near" if one.between else "") + (", aside" * is_aside(one, aside))
        lines.append(f"| {one.name} | {figures} | {masks} | {failed.strip(', ')} | {score:.2f} | {said} |")
    judged = list(zip(runs, scores, verdicts, strict=True))
    lines += parted("All", judged)
    clear = [each for each in judged if is_example(each[0], aside)]
    lines += parted("Without those near 65 and those set aside", clear)
    return "\n".join(lines)


def parted(what: str, judged: Sequence[tuple[Outcome, float, str]]) -> Iterator[str]:
    """How the scores, and each signal alone, part failed runs from good ones."""
    failed = [one.failed for one, *_ in judged]
    if not 0 < sum(failed) < len(failed):
        return
    truth = torch.tensor(failed)
    area = compute_roc_auc(torch.tensor([score for _, score, _ in judged]), truth)
    yield f"\n{what}: {sum(failed)} of {len(failed)} runs failed. Area under the ROC curve of the score: {area:.3f}."
    for name in ("information", "margin", "compactness", "agreement"):
        alone = compute_roc_auc(torch.tensor([-getattr(one.signals, name) for one, *_ in judged]), truth)
        yield f"Of {name} alone: {alone:.3f}."
    for words, which in (("failed", True), ("other", False)):
        said = Counter(verdict for one, _, verdict in judged if one.failed is which)
        counts = ", ".join(f"{verdict} {said[verdict]}" for verdict in ("ALARM", "doubtful", "no alarm"))
        yield f"Of the {said.total()} {words} runs: {counts}."


def is_aside(one: Outcome, aside: Sequence[str]) -> bool:
    """Whether a run's name holds one of the texts."""
    return any(text in one.name for text in aside)


def is_example(one: Outcome, aside: Sequence[str]) -> bool:
    """Whether an alarm is calibrated on a run."""
    return not one.between and not is_aside(one, aside)


def calibrate(runs: Sequence[Outcome], aside: Sequence[str], write: bool) -> None:
    """Print every run with its score by an alarm that has not seen its set."""
    examples = [one for one in runs if is_example(one, aside)]
    scores = {}
    for name in sorted({one.dataset for one in runs}):
        judge = calibrated([one for one in examples if one.dataset != name], "all other sets")
        scores.update({one: judge.score(one.signals) for one in runs if one.dataset == name})
    sets = sorted({one.dataset for one in examples})
    failed = sum(one.failed for one in examples)
    judge = calibrated(examples, f"{len(examples)} runs on {', '.join(sets)}; {failed} of them failed")
    print(table_of(runs, [scores[one] for one in runs], judge, aside))
    print(f"\nWeights on all of them: {[round(one, 3) for one in judge.weights]}, bias {judge.bias:.3f}")
    if write:
        path = Path(alarm.__file__).with_name("alarm.json")
        path.write_text(json.dumps(asdict(judge), indent=4) + "\n", encoding="utf-8")
        print(f"written to {path.name}")


def calibrated(examples: Sequence[Outcome], on: str) -> Alarm:
    """The alarm of some runs."""
    return Alarm.calibrated([one.signals for one in examples], [one.failed for one in examples], on)


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("output", type=Path)
    add_sets(one, phantoms=2)
    one.add_argument("--jobs", type=int, default=2)
    two = commands.add_parser("calibrate")
    two.add_argument("runs", type=Path, nargs="+")
    two.add_argument("--aside", nargs="+", default=[], metavar="TEXT")
    two.add_argument("--write", action="store_true")
    commands.add_parser("test").add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    if given.command == "run":
        run(given.output, dict(given.table), given.phantom, given.jobs)
        return
    runs = []
    for place in given.runs:
        found = list(outcomes(place))
        if not found:
            parser.error(f"no run in {place}")
        runs += found
    if given.command == "calibrate":
        calibrate(runs, given.aside, given.write)
    else:
        judge = shipped_alarm()
        print(table_of(runs, [judge.score(one.signals) for one in runs], judge))


if __name__ == "__main__":
    main()
