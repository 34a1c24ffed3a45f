# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What each part of the method brings: one part changed at a time, everything else as recommended.

    python benchmarks/ablations.py run OUT [--table NAME=CSV ...] [--phantom 1] [--seeds 0 1] [--parts NAME ...]
    python benchmarks/ablations.py table OUT [--picture FILE.png]

``run`` trains, for every set and seed, the first stage in the ways of :data:`FIRST`, and on the plain one the second
stage in the ways of :data:`SECOND`; it evaluates them, and the recommended model with the views of :data:`VIEWS`. Sets
are those of ``alarm.py``. What is finished is left as it is. Masks are read by the evaluation alone. ``table`` prints
for every variant its F1+, F1- and PxAP, a mean over sets and seeds, and the paired difference to what it is a variant
of, with a 95 % interval over images and seeds of all sets; the picture shows the differences.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sets import CONFIGS, ROOT, add_sets, bundle_run, held_out, sets_of, write_table
from tqdm import tqdm

from glas_wsol.experiments.tables.comparison import Comparison, Difference
from glas_wsol.experiments.tables.groups import MethodRuns
from glas_wsol.experiments.tables.runs import EvaluatedRun, find_runs, read_run
from glas_wsol.metrics.measures import MEASURES

TRAIN, PAPER, LITE0 = (
    CONFIGS / "train.json",
    CONFIGS / "paper.json",
    ROOT / "configs" / "trunks" / "efficientnet_lite0.json",
)
LIGHT, SGD = ROOT / "configs" / "data" / "light.json", ROOT / "benchmarks" / "ablations" / "sgd.json"
USUAL = {"scale": 1.0, "crop_size": 192}
EPOCHS = {"phantom": 12, "table": 6}  # of the first stage: a phantom has fewer tiles, so fewer steps an epoch

Settings = Mapping[str, Any]

PLAIN, RECOMMENDED = "first stage", "both stages"
ERASING = "passes 4"
FIRST: Mapping[str, Settings] = {
    PLAIN: {},
    ERASING: {"passes": 4},
    "passes 4, memory": {"passes": 4, "train#trainer#memory": 0.5},
    "stride 16": {"map_stride": 16},
    "stride 8": {"map_stride": 8},
    "constraints": {
        "network_def#differentiable_mask": True,
        "loss#size": 0.1,
        "loss#band": "[0.2,0.8]",
        "loss#variation": 0.01,
    },
    "batch statistics": {"batch_norm": "batch"},
    "SGD": {},
    "ResNet-18, random weights": {"trunk": "resnet18", "weights": "none"},
}
SECOND: Mapping[str, Settings] = {
    RECOMMENDED: {},
    "first stage with passes 4": {},
    "components alone": {"teachers#components": 1.0, "teachers#stain": 0.0},
    "stain alone": {"teachers#components": 0.0, "teachers#stain": 1.0},
    "first stage alone": {"teachers#components": 0.0, "teachers#stain": 0.0, "teachers#stage_one": 1.0},
    "all three teachers": {"teachers#stage_one": 0.35},
    "a fifth of the pixels on each side": {"seed_share": 0.2},
    "seeds by image": {"seed_scope": "image"},
    "hard targets": {"seed_softness": 0.0},
    "one round": {"refine_rounds": 1},
    "three rounds": {"refine_rounds": 3},
    "holes and specks left": {"fill_holes": 0, "drop_specks": 0},
}
VIEWS: Mapping[str, Settings] = {
    "four turns": {"rotations": True},
    "mirrored": {"flips": True},
    "three scales": {"scales": "[0.8,1.0,1.25]"},
}
_SHOWN = ("f1_foreground", "f1_background", "pixel_average_precision")


@dataclass(frozen=True)
class Place:
    """Where the runs of a set and a seed lie, and with which settings all of them are made."""

    folder: Path
    table: Path
    split: str
    seed: int
    epochs: int

    def settings(self, part: str, own: Settings) -> dict[str, Any]:
        """Of the run of a part."""
        common = {"dataset_dir": self.table, "output_dir": self.folder / slug(part), "seed": self.seed}
        return {**common, **USUAL, "epochs": self.epochs, "passes": 0, **own}


def slug(part: str) -> str:
    """A part's name as that of a folder."""
    return part.replace(",", "").replace(" ", "_")


def make(place: Place, part: str) -> int:
    """Train and evaluate one part; 0, or the exit status of what failed."""
    output = place.folder / slug(part)
    if (output / "evaluation.json").is_file():
        return 0
    if part in FIRST:
        files = [TRAIN, PAPER, LIGHT, *([SGD] if part == "SGD" else []), *([] if "trunk" in FIRST[part] else [LITE0])]
        return _run(place, part, files, FIRST[part])
    files = [TRAIN]
    if part in VIEWS:
        model = {"checkpoint": place.folder / slug(RECOMMENDED) / "models" / "model.pt"}
        return _run(place, part, files, {**VIEWS[part], **model}, train=False)
    first = ERASING if part == "first stage with passes 4" else PLAIN
    begun = {"stage_one_dir": place.folder / slug(first) / "models", "passes": FIRST[first].get("passes", 0)}
    return _run(place, part, files, {**SECOND[part], **begun})


def _run(place: Place, part: str, files: Sequence[Path], own: Settings, train: bool = True) -> int:
    settings, output = place.settings(part, own), place.folder / slug(part)
    status = bundle_run(output / "train.log", files, settings) if train else 0
    evaluation = [*files, CONFIGS / "evaluate.json"]
    return status or bundle_run(output / "evaluate.log", evaluation, {**settings, "split": place.split})


def run(output: Path, tables: dict[str, Path], phantoms: int, seeds: Sequence[int], parts: Sequence[str]) -> int:
    """Every part of every set and seed; 1 if one failed, else 0."""
    output.mkdir(parents=True, exist_ok=True)
    todo = []
    for name, rows in sets_of(output, tables, phantoms).items():
        table = output / f"{name}.csv"
        write_table(table, rows)
        epochs = EPOCHS["phantom" if name.startswith("phantom") else "table"]
        for seed in seeds:
            place = Place(output / "runs" / name / f"seed_{seed}", table, held_out(name), seed, epochs)
            todo += [(place, part) for part in parts]
    failed = 0
    for place, part in tqdm(todo, "runs"):
        if status := make(place, part):
            failed = 1
            print(f"{place.folder / slug(part)}: status {status}, see its logs", flush=True)
    return failed


def gathered(output: Path, names: Sequence[str]) -> dict[str, MethodRuns]:
    """The runs of each part as one method: a set is a fold, so that the images of all sets are drawn together."""
    runs: dict[str, dict[tuple[int, str], EvaluatedRun]] = defaultdict(dict)
    for folder in find_runs([output / "runs"]):
        dataset, seed, part = folder.relative_to(output / "runs").parts[-3:]
        if not names or dataset in names:
            found = read_run(folder, MEASURES)
            images = np.array([f"{dataset}/{name}" for name in found.names])
            runs[part][int(seed.removeprefix("seed_")), dataset] = EvaluatedRun(folder, found.facts, images, found.rows)
    return {part: MethodRuns(part, None, "", True, of_part) for part, of_part in runs.items()}


Differences = dict[str, dict[str, Difference | None]]
"""By part and measure."""


def compared(
    methods: Mapping[str, MethodRuns], comparison: Comparison
) -> Iterator[tuple[str, MethodRuns, Differences]]:
    """Of each base that was run: its name, its method, and what changing a part does to it."""
    for base, parts in ((PLAIN, FIRST), (RECOMMENDED, {**SECOND, **VIEWS})):
        against = methods.get(slug(base))
        if against is not None:
            others = {part: methods[slug(part)] for part in parts if part != base and slug(part) in methods}
            yield (
                base,
                against,
                {
                    part: {key: comparison.difference(method, against, MEASURES[key]) for key in _SHOWN}
                    for part, method in others.items()
                },
            )


def table_of(methods: Mapping[str, MethodRuns], comparison: Comparison) -> Iterator[str]:
    """Lines of a Markdown table for each base."""
    titles = [MEASURES[key].title for key in _SHOWN]
    head = ["part", "runs", *(cell for title in titles for cell in (title, "difference"))]
    for base, _, differences in compared(methods, comparison):
        yield f"\nDifference to: {base}.\n"
        yield f"| {' | '.join(head)} |"
        yield "|---" * len(head) + "|"
        for part in (base, *differences):
            method = methods[slug(part)]
            cells = [part, str(len(method.runs))]
            for key in _SHOWN:
                value, apart = comparison.estimate(method, MEASURES[key]), differences.get(part, {}).get(key)
                cells += [f"{100 * value.value:.1f}" if value else "-", _said(apart)]
            yield f"| {' | '.join(cells)} |"


def _said(apart: Difference | None) -> str:
    return "" if apart is None else f"{100 * apart.value:+.1f} ({100 * apart.lo:.1f} to {100 * apart.hi:.1f})"


def draw(methods: Mapping[str, MethodRuns], comparison: Comparison, path: Path) -> None:
    """The differences with their intervals, a panel for each measure and base."""
    from matplotlib.figure import Figure

    found = list(compared(methods, comparison))
    heights = [len(differences) + 1 for *_, differences in found]
    figure = Figure(figsize=(12, 0.34 * sum(heights) + 1.2), layout="constrained")
    axes = figure.subplots(len(found), len(_SHOWN), sharex="col", squeeze=False, height_ratios=heights)
    for line, (base, against, differences) in zip(axes, found, strict=True):
        for axis, key in zip(line, _SHOWN, strict=True):
            for place, apart in enumerate(one[key] for one in differences.values()):
                if apart is not None:
                    clear = apart.lo > 0 or apart.hi < 0
                    low, high = 100 * (apart.value - apart.lo), 100 * (apart.hi - apart.value)
                    colour = "#0072b2" if clear else "#888888"
                    axis.errorbar(100 * apart.value, place, xerr=[[low], [high]], fmt="o", color=colour, capsize=3)
            axis.axvline(0, color="black", linewidth=0.8)
            first = axis is line[0]
            axis.set_yticks(range(len(differences)), list(differences) if first else [""] * len(differences))
            axis.set_ylim(len(differences) - 0.5, -0.5)
            value = comparison.estimate(against, MEASURES[key])
            axis.set_title(f"{MEASURES[key].title}: {base} {100 * value.value:.1f} %" if value else base, fontsize=10)
            axis.grid(axis="x", color="#dddddd")
    for axis in axes[-1]:
        axis.set_xlabel("difference, points (95 % interval)")
    figure.savefig(path, dpi=110)


def main() -> int:
    """Run a command; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("output", type=Path)
    add_sets(one, phantoms=1)
    one.add_argument("--seeds", type=int, nargs="+", default=[0])
    every = [*FIRST, *SECOND, *VIEWS]
    one.add_argument("--parts", nargs="+", choices=every, default=every, metavar="NAME")
    two = commands.add_parser("table")
    two.add_argument("output", type=Path)
    two.add_argument("--picture", type=Path)
    two.add_argument("--sets", nargs="+", default=[], help="of these sets alone; default all")
    given = parser.parse_args()
    if given.command == "run":
        return run(given.output, dict(given.table), given.phantom, given.seeds, given.parts)
    methods, comparison = gathered(given.output, given.sets), Comparison()  # which keeps what it has drawn
    print("\n".join(table_of(methods, comparison)))
    if given.picture:
        draw(methods, comparison, given.picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
