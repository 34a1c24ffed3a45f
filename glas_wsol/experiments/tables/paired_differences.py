# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Compares every method with every other, and makes table 2: the effect of recursive erasing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from glas_wsol.bundle.methods import IMAGE_LABELS
from glas_wsol.errors import count
from glas_wsol.experiments.tables.comparison import holm
from glas_wsol.experiments.tables.groups import MethodRuns
from glas_wsol.experiments.tables.layout import Footnotes, Table
from glas_wsol.experiments.tables.table_cells import (
    PUBLISHED_COLUMN,
    TableContext,
    measure_entries,
    p_value,
    percent,
    signed,
    title_of_measure,
    without_width,
)
from glas_wsol.metrics.bootstrap import NO_WIDTH
from glas_wsol.metrics.measures import Measure

__all__ = ["PAIR_COLUMNS", "PASSES_COLUMNS", "difference_table", "pair_records", "passes_records", "passes_tables"]

_MAIN = ("classification_error", "f1_foreground", "f1_background", "pixel_average_precision")
PAIR_COLUMNS = (
    *("dataset", "synthetic", "split", "row", "other", "row_method", "row_passes", "row_trunk", "row_pretrained"),
    *("other_method", "other_passes", "other_trunk", "other_pretrained", "measure", "unit", "higher_is_better"),
    *("difference", "lo", "hi", "p", "p_holm", "images_compared", "runs_compared"),
)
PASSES_COLUMNS = (
    *("dataset", "synthetic", "split", "trunk", "pretrained", "passes", "measure", "unit", "higher_is_better"),
    *("value", "lo", "hi", "published", "against_passes", "difference", "difference_lo", "difference_hi", "p"),
)


def pair_records(context: TableContext) -> list[dict[str, Any]]:
    """One record per pair of methods and measure, `PAIR_COLUMNS`: row minus other; the later method is the row.

    ``p_holm`` is corrected for all pairs of that measure.
    """
    records = []
    for measure in context.shown():
        mine = []
        for other, method in combinations(context.group.methods, 2):
            found = context.difference(method, other, measure)
            if found is None:
                continue
            record = context.where() | {"row": context.group.label(method), "other": context.group.label(other)}
            for who, one in (("row", method), ("other", other)):
                parts = zip(("method", "passes", "trunk", "pretrained"), one.key, strict=True)
                record |= {f"{who}_{part}": value for part, value in parts}
            record |= measure_entries(measure) | {
                "difference": found.value,
                "lo": found.lo,
                "hi": found.hi,
                "p": found.p,
                "images_compared": found.n,
                "runs_compared": len(found.cells),
            }
            mine.append(record)
        for record, corrected in zip(mine, holm([record["p"] for record in mine]), strict=True):
            record["p_holm"] = corrected
        records += mine
    return records


def difference_table(context: TableContext) -> Table | None:
    """One method against all others on the main measures; None where there is nothing to compare.

    That method is min-max entropy with the most passes, or without any the last one trained on image labels.
    """
    methods, measures = context.group.methods, [m for m in context.shown() if m.key in _MAIN]
    rivals = [method for method in methods if method.supervision == IMAGE_LABELS]
    ours = [method for method in rivals if method.name == "minmax"]
    if len(methods) < 2 or not rivals or not measures:
        return None
    deepest = max(method.passes or 0 for method in ours) if ours else 0
    chosen = next((method for method in ours if (method.passes or 0) == deepest), rivals[-1])
    label, notes, lines = context.group.label(chosen), Footnotes(), []
    titles = [title for m in measures for title in (f"{m.title} ({_points(m)})", "p")]
    for other in methods:
        if other is not chosen:
            cells = [_cells(context, chosen, other, measure, notes) for measure in measures]
            lines.append((context.name(other, notes, full=True), *(cell for pair in cells for cell in pair)))
    under = (
        *context.mark_notes(),
        *notes.lines(),
        f"{label} minus the other method, both on the same draws of images and seeds: "
        f"above 0 is better for it, except for {_lower(measures)}",
        *context.interval_notes()[1:],
        context.data_note(),
        "p: two-sided, twice the share of resamples at zero or beyond; not corrected for there being several methods "
        "(p_holm in pairs.csv is, for all pairs of a measure)",
    )
    return Table(f"Table 1d. {label} against the others", ("against", *titles), tuple(lines), under, ("backbone",))


def _lower(measures: list[Measure]) -> str:
    return " and ".join(m.title for m in measures if not m.higher_is_better) or "none"


def _points(measure: Measure) -> str:
    return "points" if measure.unit == "%" else measure.unit


def _cells(
    context: TableContext, method: MethodRuns, other: MethodRuns, measure: Measure, notes: Footnotes
) -> tuple[str, str]:
    found = context.difference(method, other, measure)
    if found is not None:
        text = signed(found, measure)
        if found.lo == found.hi == 0:
            text += " " + notes.mark("the two never differ here, which does not prove them alike")
        elif without_width(found, measure):
            text += " " + notes.mark(NO_WIDTH)
        return text, p_value(found.p)
    common = any(method.at(cell) and other.at(cell) for cell in method.runs.keys() | other.runs.keys())
    why = "one of the two has no value" if common else "the two methods have no seed and fold in common"
    return "-" + notes.mark(why), ""


def _depths(context: TableContext) -> Iterator[tuple[MethodRuns, MethodRuns]]:
    """Methods that differ in the passes only, the fewest first: (without, with)."""
    by_trunk: dict[tuple[str, bool], list[MethodRuns]] = {}
    for method in context.group.methods:
        if method.name == "minmax" and method.passes is not None:
            by_trunk.setdefault((method.trunk, method.pretrained), []).append(method)
    for methods in by_trunk.values():
        least, *others = sorted(methods, key=lambda method: method.passes or 0)
        yield from ((least, other) for other in others)


def passes_tables(context: TableContext) -> list[Table]:
    """Table 2, one per backbone and depth: without and with erasing, their paired difference and its p."""
    measures = [m for m in context.shown() if m.key in _MAIN]
    return [_passes_table(context, least, deeper, measures) for least, deeper in _depths(context)]


def _passes_table(context: TableContext, least: MethodRuns, deeper: MethodRuns, measures: list[Measure]) -> Table:
    notes, columns = Footnotes(), ["min-max entropy"]
    lines = [
        [f"passes {method.passes}{context.name(method, notes).removeprefix(method.title)}"]
        for method in (least, deeper)
    ]
    lines += [[f"passes {deeper.passes} - passes {least.passes}"], ["p (two-sided)"]]
    for measure in measures:
        columns.append(title_of_measure(measure))
        both = [context.cell(method, measure, notes) for method in (least, deeper)]
        for line, cell in zip(lines, (*both, *_cells(context, deeper, least, measure, notes)), strict=True):
            line.append(cell)
        values = [context.published(method, measure) for method in (least, deeper)]
        if context.has_published and any(value is not None for value in values):
            columns.append(PUBLISHED_COLUMN)
            first, second = values
            change = "" if first is None or second is None else f"{100 * (second - first):+.2f}"
            for line, cell in zip(lines, (*map(percent, values), change, ""), strict=True):
                line.append(cell)
    cells = "the same seeds, folds and images" if least.runs.keys() == deeper.runs.keys() else "the runs both have"
    under = (
        *notes.lines(),
        *context.interval_notes(),
        f"the difference is paired: {cells}, the same draws of them",
        *context.published_notes(),
    )
    where = f"on {least.backbone or 'no backbone'} (n = {deeper.n_images}, {count(len(deeper.seeds), 'seed')})"
    title = f"Table 2. Recursive erasing, passes {least.passes} and {deeper.passes}, {where}"
    return Table(title, tuple(columns), tuple(map(tuple, lines)), under)


def passes_records(context: TableContext) -> list[dict[str, Any]]:
    """One record per depth and measure, `PASSES_COLUMNS`; the differences stand with the deeper one."""
    records, seen = [], set()
    for least, deeper in _depths(context):
        for method in (least, deeper):
            if method.key in seen:  # the shallowest is compared with every other one
                continue
            seen.add(method.key)
            for measure in (m for m in context.shown() if m.key in _MAIN):
                found = context.estimate(method, measure)
                record = context.where() | measure_entries(measure)
                record |= {"trunk": method.trunk, "pretrained": method.pretrained, "passes": method.passes}
                record |= {"published": context.published(method, measure)}
                if found is not None:
                    record |= {"value": found.value, "lo": found.lo, "hi": found.hi}
                change = context.difference(method, least, measure) if method is deeper else None
                if change is not None:
                    record |= {"against_passes": least.passes, "difference": change.value, "p": change.p}
                    record |= {"difference_lo": change.lo, "difference_hi": change.hi}
                records.append(record)
    return records
