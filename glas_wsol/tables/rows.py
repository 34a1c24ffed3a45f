# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Rows of a table: the runs of one method, over seeds and folds, and whether they may stand side by side."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from glas_wsol.errors import ConfigError
from glas_wsol.published import UNTRAINED, order_of, title_of
from glas_wsol.tables.runs import Run

__all__ = ["Cell", "Group", "Row", "group_runs", "unshared_settings"]

Cell = tuple[int, str]
"""Seed and fold of a run."""

# Settings that seed and fold decide, under any prefix: they differ between the runs of one row.
_OF_THE_RUN = frozenset(
    {"seed", "fold", "fold_seed", "training_images", "validation_images", "best_epoch", "steps of the schedule"}
)
# What a report says beside the recipe and must be the same within a row.
_FACTS = (
    "trunk",
    "trunk_weights_sha256",
    "threshold",
    "threshold_rule",
    "selection_rule",
    "supervision",
    "names_class",
)
# What must be the same for all rows of a table: else the same image would be measured differently.
_OF_THE_GROUP = ("classes", "mask_threshold")


@dataclass(frozen=True)
class Row:
    """One method with its erasing depth, on one backbone, pretrained or not.

    Attributes:
        method: key.
        passes: of the erasing; None for methods that know none.
        trunk: the backbone, or ``"none"``.
        pretrained: whether the backbone's training began from given weights.
        runs: by seed and fold.
    """

    method: str
    passes: int | None
    trunk: str
    pretrained: bool
    runs: Mapping[Cell, Run]

    @cached_property
    def first(self) -> Run:
        """Any run, for what all share."""
        return self.runs[min(self.runs)]

    @property
    def key(self) -> tuple[str, int | None, str, bool]:
        """Identity within its group."""
        return self.method, self.passes, self.trunk, self.pretrained

    @property
    def title(self) -> str:
        """The method's title."""
        return title_of(self.method, self.passes)

    @property
    def backbone(self) -> str:
        """The trunk, and whether it began from random weights; empty where there is none."""
        if self.trunk == "none":
            return ""
        return self.trunk if self.pretrained else f"{self.trunk} (random)"

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

    def at(self, cell: Cell) -> Run | None:
        """The run of a seed and fold; for a method that is not trained, which has no seed, any run of that fold."""
        if cell in self.runs or self.supervision != UNTRAINED:
            return self.runs.get(cell)
        return next((self.runs[other] for other in sorted(self.runs) if other[1] == cell[1]), None)


@dataclass(frozen=True)
class Group:
    """The rows that were evaluated on one split of one data set, in the order of the tables.

    Attributes:
        dataset: its name.
        synthetic: whether it is a phantom in that data set's layout.
        split: which split was evaluated.
        rows: at least one.
    """

    dataset: str
    synthetic: bool
    split: str
    rows: tuple[Row, ...]

    @property
    def heading(self) -> str:
        """What the tables are of."""
        data = f"synthetic images in the layout of {self.dataset}" if self.synthetic else self.dataset
        return f"{data}, split {self.split}"

    def label(self, row: Row) -> str:
        """The row's title, with its backbone where another row has the same title."""
        twins = sum(other.title == row.title for other in self.rows)
        return row.title if twins == 1 else f"{row.title}, {row.backbone or 'no backbone'}"

    def cells(self) -> list[Cell]:
        """Every seed and fold that a trained row has (any row, where none is trained), sorted."""
        trained = [row for row in self.rows if row.supervision != UNTRAINED]
        return sorted({cell for row in trained or self.rows for cell in row.runs})

    def missing(self, row: Row) -> list[Cell]:
        """The cells this row has no run for; an unseeded row needs one run per fold."""
        return [cell for cell in self.cells() if row.at(cell) is None]


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Sort runs into groups and rows, and refuse what cannot be compared.

    Args:
        runs: evaluated runs.

    Raises:
        ConfigError: if two runs are of the same row, seed and fold; if the runs of a row differ in a setting that
            seed and fold do not decide; if rows were evaluated on different images of one fold, or with other
            classes or another threshold of the true masks.
    """
    groups: dict[tuple, dict[tuple, dict[Cell, Run]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        facts = run.facts
        rows = groups[facts["dataset"], facts["synthetic"], facts["split"]]
        row = rows[facts["method"], facts["passes"], facts["trunk"], bool(facts["trunk_weights_sha256"])]
        cell = (run.seed, run.fold)
        if cell in row:
            what = f"two runs of {title_of(facts['method'], facts['passes'])} with seed {run.seed} and fold {run.fold}"
            raise ConfigError(what, f"{row[cell].folder}, {run.folder}", "name only one of them")
        row[cell] = run
    made = []
    for place, rows in sorted(groups.items(), key=lambda item: item[0]):
        ordered = sorted(rows, key=lambda key: (*order_of(*key[:2]), key[2], not key[3]))
        group = Group(*place, tuple(Row(*key, dict(rows[key])) for key in ordered))
        for row in group.rows:
            _check_recipe(row)
        _check_images(group)
        made.append(group)
    return made


def unshared_settings(group: Group) -> tuple[dict[str, list[tuple[str, list[str]]]], dict[str, list[str]]]:
    """What the recipes of a group's trained rows do not share.

    Args:
        group: rows on the same images.

    Returns:
        By setting that all trained rows have: its values as text, each with the labels of the rows that have it. And
        by setting that only some have, being their method's own: the labels of those rows.
    """
    trained = {group.label(row): _settings(row.first) for row in group.rows if row.first.facts["recipe"] is not None}
    for settings in trained.values():
        for name in ("supervision", "names_class"):  # every table says these of every row
            settings.pop(name)
        if settings.get("weights") == settings["trunk_weights_sha256"]:
            settings.pop("weights")
    differ: dict[str, list[tuple[str, list[str]]]] = {}
    own: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for settings in trained.values() for name in settings):
        having = [label for label, settings in trained.items() if name in settings]
        if len(having) < len(trained):
            own[name] = having
        values: dict[str, list[str]] = defaultdict(list)
        for label in having:
            values[_text(trained[label][name])].append(label)
        if len(values) > 1:
            differ[name] = list(values.items())
    return differ, own


def _settings(run: Run) -> dict[str, Any]:
    recipe = run.facts["recipe"] or {}
    kept = {name: value for name, value in recipe.items() if name.rpartition("#")[2] not in _OF_THE_RUN}
    return {name: run.facts[name] for name in _FACTS} | kept


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return f"{value[:12]}..."
    return f"{text[:57]}..." if len(text) > 60 else text or "none"


def _check_recipe(row: Row) -> None:
    first, then = row.first, _settings(row.first)
    widths: dict[str, int] = {}
    for run in row.runs.values():
        for key, values in run.rows.items():
            if widths.setdefault(key, values.shape[1]) != values.shape[1]:
                what = f"two runs of {row.title} hold {key} in different forms: two versions made them"
                raise ConfigError(what, f"{first.folder}, {run.folder}", "evaluate all with one version")
        now = _settings(run)
        missing = object()
        names = [name for name in then | now if then.get(name, missing) != now.get(name, missing)]
        if names:
            said = ", ".join(
                f"{name} is {_said(then, name)} there and {_said(now, name)} here" for name in names[:3]
            ) + (f", and {len(names) - 3} more" if len(names) > 3 else "")
            what = f"two runs of {row.title} are not of one recipe: {said}"
            raise ConfigError(what, f"{first.folder}, {run.folder}", "make tables of one recipe at a time")


def _said(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "absent"


def _check_images(group: Group) -> None:
    first: dict[str, Run] = {}
    runs: Sequence[Run] = [run for row in group.rows for run in row.runs.values()]
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
