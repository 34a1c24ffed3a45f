# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Sorts evaluated runs by data set and method, and refuses runs that are not comparable."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from glas_wsol.bundle.methods import METHODS, UNTRAINED, order_of, title_of
from glas_wsol.errors import ConfigError
from glas_wsol.experiments.tables.recipes import check_recipe
from glas_wsol.experiments.tables.runs import EvaluatedRun

__all__ = ["Cell", "Group", "MethodRuns", "group_runs"]

Cell = tuple[int, str]
"""Seed and fold of a run."""

# What must be the same for all methods of a table: else the same image would be measured differently.
_OF_THE_GROUP = ("classes", "mask_threshold")


@dataclass(frozen=True, eq=False)  # each is itself: methods of two groups may have one key
class MethodRuns:
    """One method with its erasing depth, on one backbone, pretrained or not.

    Attributes:
        passes: of the erasing; None for methods without.
        pretrained: whether the backbone's training began from given weights.
    """

    name: str
    passes: int | None
    trunk: str
    pretrained: bool
    runs: Mapping[Cell, EvaluatedRun]

    @cached_property
    def first(self) -> EvaluatedRun:
        """Any run, for what all share."""
        return self.runs[min(self.runs)]

    @property
    def key(self) -> tuple[str, int | None, str, bool]:
        """Identity within its group."""
        return self.name, self.passes, self.trunk, self.pretrained

    @property
    def title(self) -> str:
        """The method's title."""
        return title_of(self.name, self.passes)

    @property
    def backbone(self) -> str:
        """The trunk, and whether it began from random weights; empty where there is none."""
        if self.trunk == "none":
            return ""
        return self.trunk if self.pretrained else f"{self.trunk} (random)"

    @property
    def trained_as(self) -> str | None:
        """Key of the method whose network it explains; None where it has its own, or none."""
        known = METHODS[self.name].weights_of if self.name in METHODS else None
        key = self.first.facts.get("trained_as") or known
        return None if key == self.name else key

    @property
    def supervision(self) -> str:
        """What it learns from."""
        return self.first.facts["supervision"]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of its runs, sorted."""
        return tuple(sorted({seed for seed, _ in self.runs}))

    @property
    def folds(self) -> tuple[str, ...]:
        """Folds of its runs, sorted."""
        return tuple(sorted({fold for _, fold in self.runs}))

    @property
    def n_images(self) -> int:
        """Number of different images evaluated."""
        return len({name for run in self.runs.values() for name in run.names.tolist()})

    def at(self, cell: Cell) -> EvaluatedRun | None:
        """The run of a seed and fold; for a method that is not trained, which has no seed, any run of that fold."""
        if cell in self.runs or self.supervision != UNTRAINED:
            return self.runs.get(cell)
        return next((self.runs[other] for other in sorted(self.runs) if other[1] == cell[1]), None)


@dataclass(frozen=True)
class Group:
    """The methods that were evaluated on one split of one data set, in the order of the tables."""

    dataset: str
    synthetic: bool
    split: str
    methods: tuple[MethodRuns, ...]

    @property
    def heading(self) -> str:
        """What the tables are of."""
        return f"{self.dataset}, split {self.split}"

    def label(self, method: MethodRuns) -> str:
        """The method's title, with its backbone where another method has the same title."""
        twins = sum(other.title == method.title for other in self.methods)
        return method.title if twins == 1 else f"{method.title}, {method.backbone or 'no backbone'}"

    def cells(self) -> list[Cell]:
        """Every seed and fold that a trained method has (any method, where none is trained), sorted."""
        trained = [method for method in self.methods if method.supervision != UNTRAINED]
        return sorted({cell for method in trained or self.methods for cell in method.runs})

    def missing(self, method: MethodRuns) -> list[Cell]:
        """The cells this method has no run for; an untrained method needs one run per fold."""
        return [cell for cell in self.cells() if method.at(cell) is None]


def group_runs(runs: Iterable[EvaluatedRun]) -> list[Group]:
    """Sort runs into groups and methods, and refuse runs that are not comparable.

    Raises:
        ConfigError: if two runs are of the same method, seed and fold; if the runs of a method differ in a setting that
            seed and fold do not decide; if methods were evaluated on different images of one fold, or with other
            classes or another threshold of the true masks.
    """
    groups: dict[tuple[str, bool, str], dict[tuple[str, int | None, str, bool], dict[Cell, EvaluatedRun]]] = (
        defaultdict(lambda: defaultdict(dict))
    )
    for run in runs:
        facts = run.facts
        methods = groups[facts["dataset"], facts["synthetic"], facts["split"]]
        method = methods[facts["method"], facts["passes"], facts["trunk"], bool(facts["trunk_weights_sha256"])]
        cell = (run.seed, run.fold)
        if cell in method:
            what = f"two runs of {title_of(facts['method'], facts['passes'])} with seed {run.seed} and fold {run.fold}"
            raise ConfigError(what, f"{method[cell].folder}, {run.folder}", "name only one of them")
        method[cell] = run
    made = []
    for place, methods in sorted(groups.items(), key=lambda item: item[0]):
        ordered = sorted(methods, key=lambda key: (*order_of(*key[:2]), key[2], not key[3]))
        group = Group(*place, tuple(MethodRuns(*key, dict(methods[key])) for key in ordered))
        for method in group.methods:
            check_recipe(method.title, list(method.runs.values()))
        _check_images(group)
        made.append(group)
    return made


def _check_images(group: Group) -> None:
    first: dict[str, EvaluatedRun] = {}
    runs: Sequence[EvaluatedRun] = [run for method in group.methods for run in method.runs.values()]
    for run in runs:
        other = first.setdefault(run.fold, run)
        both = f"{other.folder}, {run.folder}"
        same = run.facts["images_sha256"] == other.facts["images_sha256"]
        if not same or run.names.tolist() != other.names.tolist():
            what = f"two runs of fold {run.fold} were evaluated on different images or labels of {group.heading}"
            raise ConfigError(what, both, "evaluate both on the same data, or make tables of each alone")
    for run in runs:
        for name in _OF_THE_GROUP:
            if run.facts[name] != runs[0].facts[name]:
                what = f"{name} is {runs[0].facts[name]!r} there and {run.facts[name]!r} here"
                raise ConfigError(what, f"{runs[0].folder}, {run.folder}", "evaluate both with the same setting")
