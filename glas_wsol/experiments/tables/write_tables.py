# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes all tables of all groups: one Markdown document, and CSV and LaTeX files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from glas_wsol.errors import OutputError, count
from glas_wsol.experiments.tables.comparison import Comparison
from glas_wsol.experiments.tables.groups import group_runs
from glas_wsol.experiments.tables.layout import Table, as_latex, as_markdown, bullets, wrapped
from glas_wsol.experiments.tables.method_tables import (
    METHOD_COLUMNS,
    method_records,
    method_tables,
    not_run,
    oracle_table,
    recipe_notes,
)
from glas_wsol.experiments.tables.paired_differences import (
    PAIR_COLUMNS,
    PASSES_COLUMNS,
    difference_table,
    pair_records,
    passes_records,
    passes_tables,
)
from glas_wsol.experiments.tables.runs import find_runs, read_run
from glas_wsol.experiments.tables.table_cells import TableContext
from glas_wsol.experiments.tables.times import TIME_COLUMNS, time_records, time_table
from glas_wsol.metrics.measures import Measure
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.csv_files import escape_cell

__all__ = ["Report", "make_report"]

_HOW_TO_READ = (
    "A row is one method on one backbone. Its runs are trainings with several seeds, and folds where there are any. "
    "The images of all folds of a seed are measured together; a value is the mean over seeds.",
    "In brackets is the value's {level} % interval: images and seeds are drawn again {resamples} times with "
    "replacement, and it holds that share of the values so found. It says how far the value would move with other "
    "images of the same kind and, as far as the seeds at hand show it, with other trainings.",
    "Whether two methods differ is shown by the interval and the p of their paired difference (both on the same "
    "draws), not by whether their intervals overlap. With many comparisons, some small p is to be expected.",
    "Errors and distances are better when small, all else when large. F1+ alone is not to be trusted where objects "
    "cover most of an image: a mask of ones scores high. A dash stands where there is no value, with its reason below.",
    "No pixel label had a part in any class or mask, except in methods marked †; a note says so where a threshold was "
    "set by hand. Methods need not share backbone or recipe: what they do not share is listed under table 1.",
)
_ORACLE_FILES = ("oracle.csv", "oracle.tex")


@dataclass(frozen=True)
class Report:
    """Tables of one or more groups of methods.

    Attributes:
        oracle: whether to show the measures whose threshold was chosen with pixel labels, in a table of their own.
    """

    contexts: tuple[TableContext, ...]
    command: str
    oracle: bool = False

    @cached_property
    def _tables(self) -> list[dict[str, list[Table]]]:
        """By name of the file, for each group."""
        every = []
        for context in self.contexts:
            against, times = difference_table(context), time_table(context)
            every.append(
                {
                    "table1": [*method_tables(context), *([against] if against else [])],
                    "table2": passes_tables(context),
                    "table3": [times] if times else [],
                    "oracle": [oracle_table(context)] if self.oracle else [],
                }
            )
        return every

    def markdown(self) -> str:
        """The whole document."""
        parts = [f"`{self.command}`", f"## How to read\n\n{self._how_to_read()}"]
        for context, tables in zip(self.contexts, self._tables, strict=True):
            parts.append(f"## {context.group.heading[0].upper()}{context.group.heading[1:]}")
            parts.append(_contents(context))
            parts += [as_markdown(table).rstrip() for table in tables["table1"]]
            absent = not_run(context)
            parts += [wrapped(f"Not run: {'; '.join(absent)}.")] if absent else []
            parts.append(_recipes(recipe_notes(context)))
            parts += [as_markdown(table).rstrip() for name in ("table2", "table3") for table in tables[name]]
            parts += [as_markdown(table).rstrip() for table in tables["oracle"]]
        return "\n\n".join(parts) + "\n"

    def _how_to_read(self) -> str:
        c = self.contexts[0].comparison
        return bullets(line.format(level=f"{100 * c.level:g}", resamples=c.resamples) for line in _HOW_TO_READ)

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``table1``, ``table2``, ``table3`` as CSV and LaTeX, ``pairs.csv`` and, last, ``tables.md``.

        Each file is written atomically. Without the oracle measures, those of earlier tables
        in the folder are removed.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"the folder of the tables cannot be written ({error.strerror})"
            raise OutputError(what, folder, "choose another --output") from error
        if not self.oracle:
            for name in _ORACLE_FILES:
                with suppress(OSError):
                    (folder / name).unlink(missing_ok=True)
        records: Mapping[str, tuple[Sequence[str], list[dict[str, Any]]]] = {
            "table1": (METHOD_COLUMNS, [r for context in self.contexts for r in method_records(context)]),
            "table2": (PASSES_COLUMNS, [r for context in self.contexts for r in passes_records(context)]),
            "table3": (TIME_COLUMNS, [r for context in self.contexts for r in time_records(context)]),
            "pairs": (PAIR_COLUMNS, [r for context in self.contexts for r in pair_records(context)]),
        }
        if self.oracle:
            found = [r for context in self.contexts for r in method_records(context, oracle=True)]
            records = {**records, "oracle": (METHOD_COLUMNS, found)}
        written = []
        for name, (columns, lines) in records.items():
            written.append(folder / f"{name}.csv")
            # Objects, so that the passes of some methods do not become 4.0 because others have none.
            cells = [{key: escape_cell(value) for key, value in line.items()} for line in lines]
            frame = pd.DataFrame(cells, columns=list(columns), dtype=object)
            with atomic_write(written[-1], "w", newline="") as file:
                frame.to_csv(file, index=False, lineterminator="\n")
        for name in self._tables[0]:
            if name == "oracle" and not self.oracle:
                continue
            written.append(folder / f"{name}.tex")
            every = zip(self.contexts, self._tables, strict=True)
            tables = [(context.group.heading, table) for context, tables in every for table in tables[name]]
            with atomic_write(written[-1], "w") as file:
                file.write(as_latex(tables))
        written.append(folder / "tables.md")
        with atomic_write(written[-1], "w") as file:
            file.write(self.markdown())
        return written


def make_report(
    places: Iterable[str | Path],
    measures: Mapping[str, Measure],
    comparison: Comparison,
    command: str,
    oracle: bool = False,
    progress: bool = False,
) -> Report:
    """Read the runs and set up their tables.

    Raises:
        ConfigError: if the runs are not comparable.
        OutputError: if a run is damaged or not there.
    """
    wanted = {key: measure for key, measure in measures.items() if oracle or not measure.oracle}
    folders = tqdm(find_runs(places), "reading runs", unit="run", disable=not progress, leave=False)
    contexts = tuple(
        TableContext(group, wanted, comparison) for group in group_runs([read_run(one, wanted) for one in folders])
    )
    methods = [(context, method) for context in contexts for method in context.group.methods]
    for context, method in tqdm(methods, "drawing images again", unit="method", disable=not progress, leave=False):
        for measure in wanted.values():
            context.estimate(method, measure)  # what takes long is kept by the comparison
    return Report(contexts, command, oracle)


def _contents(context: TableContext) -> str:
    group = context.group
    cells = group.cells()
    seeds, folds = sorted({seed for seed, _ in cells}), sorted({fold for _, fold in cells})
    n = max(method.n_images for method in group.methods)
    classes = ", ".join(map(str, group.methods[0].first.facts["classes"]))
    runs = f"seeds {', '.join(map(str, seeds))}; folds {', '.join(folds)}"
    return wrapped(f"{count(n, 'image')} of {classes}; {count(len(group.methods), 'method')}; {runs}.")


def _recipes(lines: list[str]) -> str:
    if not lines:
        return "The recipes of the trained methods share all their settings."
    return f"What the methods' recipes do not share:\n\n{bullets(lines)}"
