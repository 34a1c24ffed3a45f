# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Makes table 1 (methods by measures) and the oracle table, and lists in what recipes differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from glas_wsol.bundle.methods import METHODS, UNTRAINED, title_of
from glas_wsol.experiments.published import PASSES, PUBLISHED_MEASURES
from glas_wsol.experiments.tables.groups import MethodRuns
from glas_wsol.experiments.tables.layout import Footnotes, Table
from glas_wsol.experiments.tables.recipes import unshared_settings
from glas_wsol.experiments.tables.table_cells import (
    PUBLISHED_COLUMN,
    TableContext,
    measure_entries,
    percent,
    title_of_measure,
)
from glas_wsol.metrics.measures import Measure

__all__ = ["METHOD_COLUMNS", "method_records", "method_tables", "not_run", "oracle_table", "recipe_notes"]

_REGIONS = ("f1_foreground", "f1_background", "pixel_average_precision")
_FILES_ONLY = ("calibration_error", "mask_calibration_error")  # in table1.csv: these tables are wide enough
_ERASING = ("minmax", "minmax_refined")
_BY_SEED = ("f1_foreground", "f1_background")
ORACLE_SENTENCE = (
    "For these measures a threshold was chosen on the evaluated images themselves, with their pixel labels, separately "
    "for every method. No method can know it: they show what its scores might reach, and are no results of image "
    "labels. F1+ and F1- share the threshold with the best mean of both: either alone may be better at 0.5."
)
METHOD_COLUMNS = (
    *("dataset", "synthetic", "split", "method", "passes", "title", "supervision", "trunk", "pretrained"),
    *("images", "seeds", "folds", "runs", "runs_missing", "measure", "unit", "higher_is_better"),
    *("value", "lo", "hi", "interval", "images_measured", "published", "worst_seed", "best_seed"),
)


def method_tables(context: TableContext) -> list[Table]:
    """Table 1 in three blocks, each narrow enough for a terminal: image class, regions, objects and boxes.

    How well the confidences are calibrated stands in the files only.
    """
    shown = [measure for measure in context.shown() if measure.key not in _FILES_ONLY]
    blocks = {
        "the class of the image": [m for m in shown if m.needs == "class"],
        "regions": [m for m in shown if m.needs != "class" and m.key in _REGIONS],
        "objects and boxes": [m for m in shown if m.needs != "class" and m.key not in _REGIONS],
    }
    letters = iter("abc")
    return [
        _block(context, f"Table 1{next(letters)}. Methods, {name}", measures, with_data=i == 0)
        for i, (name, measures) in enumerate(blocks.items())
        if measures
    ]


def oracle_table(context: TableContext) -> Table:
    """The measures whose threshold was chosen with pixel labels, under a sentence that states this."""
    table = _block(context, "Oracle thresholds", context.shown(oracle=True), with_data=True)
    return replace(table, lead=ORACLE_SENTENCE)


def _block(context: TableContext, title: str, measures: Sequence[Measure], with_data: bool) -> Table:
    notes, columns = Footnotes(), ["method"]
    if with_data:
        columns += ["backbone", "n", "seeds", "folds"]
    for measure in measures:
        columns.append(title_of_measure(measure))
        columns += [PUBLISHED_COLUMN] if _has_published(context, measure) else []
        columns += ["worst to best seed"] if _has_seeds(context, measure) else []
    rows = []
    for method in context.group.methods:
        cells = [context.name(method, notes, full=not with_data)]
        if with_data:
            seeds = "" if method.supervision == UNTRAINED else str(len(method.seeds))
            cells += [method.backbone, str(method.n_images), seeds, str(len(method.folds))]
        for measure in measures:
            cells.append(context.cell(method, measure, notes))
            cells += [percent(context.published(method, measure))] if _has_published(context, measure) else []
            cells += [_seeds(context, method, measure)] if _has_seeds(context, measure) else []
        rows.append(tuple(cells))
    published = context.published_notes() if any(_has_published(context, measure) for measure in measures) else ()
    random = any(method.backbone.endswith("(random)") for method in context.group.methods)
    backbone = (
        ("(random): the backbone began from random weights, not pretrained ones",) if with_data and random else ()
    )
    under = (*context.mark_notes(), *notes.lines(), *context.interval_notes(), *published, *backbone)
    under += _explained(context) if with_data else (context.data_note(),)
    return Table(title, tuple(columns), tuple(rows), under, words=("backbone",))


def _explained(context: TableContext) -> tuple[str, ...]:
    whose: dict[str, list[str]] = {}
    for method in context.group.methods:
        if method.trained_as is not None:
            whose.setdefault(method.trained_as, []).append(context.group.label(method))
    return tuple(
        f"not networks of their own: {', '.join(labels)} (of {title_of(key)})" for key, labels in whose.items()
    )


def _has_published(context: TableContext, measure: Measure) -> bool:
    return context.has_published and measure.key in PUBLISHED_MEASURES


def _has_seeds(context: TableContext, measure: Measure) -> bool:
    return context.most_seeds > 1 and measure.key in _BY_SEED


def _seeds(context: TableContext, method: MethodRuns, measure: Measure) -> str:
    extremes = _worst_and_best(context, method, measure)
    return "" if extremes is None else f"{percent(extremes[0], 1)} to {percent(extremes[1], 1)}"


def _worst_and_best(context: TableContext, method: MethodRuns, measure: Measure) -> tuple[float, float] | None:
    estimate = context.estimate(method, measure)
    if estimate is None or len(estimate.by_seed) < 2 or method.supervision == UNTRAINED:
        return None
    low, high = min(estimate.by_seed.values()), max(estimate.by_seed.values())
    return (low, high) if measure.higher_is_better else (high, low)


def method_records(context: TableContext, oracle: bool = False) -> list[dict[str, Any]]:
    """One record per method and (oracle) measure, `METHOD_COLUMNS`: shares in [0, 1], pixels in px, nothing rounded."""
    records = []
    for method in context.group.methods:
        start = context.where() | {
            "method": method.name,
            "passes": method.passes,
            "title": method.title,
            "supervision": method.supervision,
            "trunk": method.trunk,
            "pretrained": method.pretrained,
            "images": method.n_images,
            "seeds": len(method.seeds),
            "folds": len(method.folds),
            "runs": len(method.runs),
            "runs_missing": len(context.group.missing(method)),
        }
        for measure in context.shown(oracle):
            found, extremes = context.estimate(method, measure), _worst_and_best(context, method, measure)
            record = start | measure_entries(measure) | {"published": context.published(method, measure)}
            if found is not None:
                record |= {"value": found.value, "lo": found.lo, "hi": found.hi}
                record |= {"interval": found.method, "images_measured": found.n}
            if extremes is not None:
                record |= dict(zip(("worst_seed", "best_seed"), extremes, strict=True))
            records.append(record)
    return records


def not_run(context: TableContext) -> list[str]:
    """Titles of the methods that the paper's comparison has and this group does not."""
    wanted = [(key, passes) for key in METHODS for passes in (PASSES if key in _ERASING else (None,))]
    present = {(method.name, method.passes) for method in context.group.methods}
    return [title_of(*one) for one in wanted if one not in present]


def recipe_notes(context: TableContext) -> list[str]:
    """What the trained methods' recipes do not share, one line per setting."""
    differ, own = unshared_settings({context.group.label(method): method.first for method in context.group.methods})
    lines = []
    for name, values in differ.items():
        # The commonest value first; "the others" is shorter than a list of most methods.
        values = sorted(values, key=lambda item: -len(item[1]))
        said = [f"{value} ({' / '.join(labels)})" for value, labels in values]
        if name not in own and len(values[0][1]) > 3 and len(values) > 1:
            said = [*said[1:], f"{values[0][0]} (all others)"]
        lines.append(f"`{name}`: {'; '.join(said)}")
    by_rows: dict[tuple[str, ...], list[str]] = {}
    for name, labels in own.items():
        if name not in differ:
            by_rows.setdefault(tuple(labels), []).append(f"`{name}`")
    lines += [f"settings only of {' / '.join(labels)}: {', '.join(names)}" for labels, names in by_rows.items()]
    return lines
