# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Makes table 3: training times, and the cost of recursive erasing."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from glas_wsol.bundle.methods import UNTRAINED, title_of
from glas_wsol.experiments.published import PUBLISHED_TIME_RATIO
from glas_wsol.experiments.tables.groups import MethodRuns
from glas_wsol.experiments.tables.layout import Footnotes, Table
from glas_wsol.experiments.tables.table_cells import PUBLISHED_COLUMN, TableContext

__all__ = ["TIME_COLUMNS", "time_records", "time_table"]

_BASE, _DEEP = 0, 4  # passes of the published ratio
_NO_TIME = "the time of its training was not recorded, or is of several devices or numbers of threads"
TIME_COLUMNS = (
    *("dataset", "synthetic", "split", "method", "passes", "title", "trunk", "pretrained", "runs", "epochs"),
    *("seconds", "seconds_min", "seconds_max", "cpu_seconds", "device", "threads"),
    *("ratio", "ratio_min", "ratio_max", "cpu_ratio", "runs_compared", "published"),
)


def time_table(context: TableContext) -> Table | None:
    """Training times with their ratio to min-max entropy without erasing; None where no run has its time."""
    records = time_records(context)
    if not any("seconds" in record for record in records):
        return None
    published = any(record.get("published") is not None for record in records)
    notes, lines = Footnotes(), []
    for method, record in zip(context.group.methods, records, strict=True):
        cells = [context.name(method), method.backbone]
        if "seconds" in record:
            spread = f"{record['seconds_min']:.1f} to {record['seconds_max']:.1f}" if record["runs"] > 1 else ""
            cells += [str(record["runs"]), str(record["epochs"]), f"{record['seconds']:.1f}", spread]
            cells += [f"{record['cpu_seconds']:.1f}", str(record["device"]), str(record["threads"]), _ratio(record)]
        else:
            cells += ["-" + notes.mark(_reason(method)), *[""] * 7]
        cells.append(f"{record['cpu_ratio']:.2f}" if "cpu_ratio" in record else "")
        if "seconds" in record and not cells[-2]:
            cells[-2] = "-" + notes.mark(
                "no run of min-max entropy, passes 0 on this backbone with the same seed and fold, on the same device "
                "and threads"
            )
        value = record.get("published")
        cells += ["" if value is None else f"{value:.2f}"] if published else []
        lines.append(tuple(cells))
    columns = ["method", "backbone", "runs", "epochs", "time (s)", "min to max", "CPU time (s)", "device", "threads"]
    columns += ["ratio", "CPU ratio", *([PUBLISHED_COLUMN] if published else [])]
    under = [
        *context.mark_notes(),
        *notes.lines(),
        "time and CPU time: of all optimiser steps of a training, without its validations; mean over the runs",
        "ratio: of the times to those of min-max entropy, passes 0 with the same seed and fold, mean of the ratios "
        "(least to largest)",
        "CPU time: of all threads of the process; beside other programs its ratio is the steadier one. On a GPU it is "
        "not the work done",
    ]
    if len({record["epochs"] for record in records if "epochs" in record}) > 1:
        under.append("the methods were not trained for the same number of epochs: their times are not of equal work")
    if published:
        under.append(
            f"{PUBLISHED_COLUMN}: the paper's table 3, one run each of 400 epochs of resnet101 on a V100, validations "
            "and reading of images included"
        )
    return Table("Table 3. Training time", tuple(columns), tuple(lines), tuple(under), ("backbone", "device"))


def _reason(method: MethodRuns) -> str:
    if method.supervision == UNTRAINED:
        return "not trained"
    return f"trained as {title_of(method.trained_as)}" if method.trained_as else _NO_TIME


def _ratio(record: dict[str, Any]) -> str:
    if "ratio" not in record:
        return ""
    spread = f" ({record['ratio_min']:.2f} to {record['ratio_max']:.2f})" if record["runs_compared"] > 1 else ""
    return f"{record['ratio']:.2f}{spread if record['ratio_min'] != record['ratio_max'] else ''}"


def time_records(context: TableContext) -> list[dict[str, Any]]:
    """One record per method, `TIME_COLUMNS`: times in seconds.

    Times taken on another device or with another number of threads are not divided by one another.
    """
    records = []
    for method in context.group.methods:
        parts = zip(("method", "passes", "trunk", "pretrained"), method.key, strict=True)
        record = context.where() | dict(parts) | {"title": method.title}
        trained = [run.facts["training"] for run in method.runs.values() if run.facts["training"] is not None]
        record["runs"] = len(trained)
        if trained:
            seconds = [float(one["seconds"]) for one in trained]
            record |= {"seconds": fmean(seconds), "seconds_min": min(seconds), "seconds_max": max(seconds)}
            record["cpu_seconds"] = fmean(float(one["cpu_seconds"]) for one in trained)
            record |= {name: _said(one[name] for one in trained) for name in ("epochs", "device", "threads")}
        ratios, of_cpu = (_ratios(context, method, name) for name in ("seconds", "cpu_seconds"))
        if ratios:
            record |= {"ratio": fmean(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
            record["runs_compared"] = len(ratios)
        if of_cpu:
            record["cpu_ratio"] = fmean(of_cpu)
        if context.has_published and (method.name, method.passes) == ("minmax", _DEEP):
            record["published"] = PUBLISHED_TIME_RATIO.get(context.group.dataset)
        records.append(record)
    return records


def _ratios(context: TableContext, method: MethodRuns, time: str) -> list[float]:
    same = ("minmax", _BASE, method.trunk, method.pretrained)
    base = next((other for other in context.group.methods if other.key == same), None)
    if base is None:
        return []
    ratios = []
    for cell in sorted(method.runs.keys() & base.runs.keys()):
        mine, its = method.runs[cell].facts["training"], base.runs[cell].facts["training"]
        if mine and its and all(mine[name] == its[name] for name in ("device", "threads")) and its[time] > 0:
            ratios.append(mine[time] / its[time])
    return ratios


def _said(values: Iterable[Any]) -> Any:
    """The value if there is one only, else all of them as text."""
    different = sorted(set(values))
    return different[0] if len(different) == 1 else ", ".join(map(str, different))
