# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``figure``: draw the masks of all methods on the same images, side by side."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glas_wsol.errors import ConfigError, ImageFileError, OutputError, count
from glas_wsol.utils.csv_files import read_table

if TYPE_CHECKING:
    import numpy as np

    from glas_wsol.experiments.tables.groups import Group
    from glas_wsol.experiments.tables.runs import EvaluatedRun
    from glas_wsol.visualize.comparison_figure import Column, Line

__all__ = ["choose_images", "register", "spaced"]

_AGAIN = "evaluate this run again"


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command to a parser's commands."""
    parser = commands.add_parser("figure", help="draw the masks of several methods on the same images, side by side")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="evaluated run, or a folder with such below it")
    parser.add_argument("--output", required=True, help="file to write, .png or .pdf")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--images", nargs="+", metavar="NAME", help="draw these images, in this order")
    which.add_argument("--count", type=int, default=4, metavar="N", help="how many images to choose (default: 4)")
    parser.add_argument("--split", help="leave out runs of another split")
    parser.add_argument("--fold", help="leave out runs of another fold")
    parser.set_defaults(command=_figure)


def _figure(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from glas_wsol.experiments.tables.runs import find_runs, read_run
    from glas_wsol.visualize.comparison_figure import check_suffix, draw_figure

    check_suffix(arguments.output)
    if arguments.count < 1:
        raise ConfigError(f"--count {arguments.count}", "figure", "give 1 or more")
    group = _one_group([read_run(folder, {}) for folder in find_runs(arguments.runs)], arguments.split, arguments.fold)
    shown = [method.runs[min(method.runs)] for method in group.methods]  # the lowest seed
    table = _table(shown[0])
    if arguments.images:
        names = _named(arguments.images, table)
        how = "The images were named by hand."
    else:
        names = choose_images(table, shown[0].facts["classes"], arguments.count)
        how = (
            "The images were not chosen by results: as many of each class as of any other, or one more, evenly spaced "
            "by name."
        )
    lines = [_line(table[name], shown) for name in tqdm(names, "reading masks", unit="image", leave=False)]
    columns = _columns(group)
    draw_figure(arguments.output, lines, columns, [_caption(group, shown), how])
    print(f"{count(len(lines), 'image')} and {count(len(columns), 'method')} in {arguments.output}")


def _one_group(runs: Sequence[EvaluatedRun], split: str | None, fold: str | None) -> Group:
    """The runs of one split and fold, of one data set, sorted into methods."""
    from glas_wsol.experiments.tables.groups import group_runs

    for option, wanted, of in (
        ("--split", split, lambda run: run.facts["split"]),
        ("--fold", fold, lambda run: run.fold),
    ):
        found = sorted({of(run) for run in runs})
        if wanted is None and len(found) > 1:
            examples = ", ".join(str(next(run.folder for run in runs if of(run) == value)) for value in found)
            what = f"the runs are of several {option[2:]}s: {', '.join(found)}"
            raise ConfigError(what, examples, f"choose one with {option}")
        if wanted is not None and wanted not in found:
            raise ConfigError(f"no run has {option} {wanted}", "figure", f"choose {' or '.join(found)}")
        runs = [run for run in runs if wanted is None or of(run) == wanted]
    groups = group_runs(runs)
    if len(groups) > 1:
        what = f"the runs are of different data: {'; '.join(group.heading for group in groups)}"
        folders = ", ".join(str(group.methods[0].first.folder) for group in groups)
        raise ConfigError(what, folders, "name runs of one data set")
    return groups[0]


def _table(run: EvaluatedRun) -> dict[str, dict[str, str]]:
    """Rows of ``evaluation.csv`` by name."""
    path, columns = run.folder / "evaluation.csv", {"name", "label", "image", "mask"}
    _, found = read_table(path, "the table of this evaluation cannot be read", _AGAIN)
    rows = {row.get("name", ""): row for row in found}
    if sorted(rows) != run.names.tolist() or not all(columns <= row.keys() for row in rows.values()):
        raise OutputError("this table is not that of evaluation.json beside it", path, _AGAIN)
    return rows


def _named(names: Iterable[str], table: Mapping[str, Any]) -> list[str]:
    for name in names:
        if name not in table:
            near = difflib.get_close_matches(name, table, n=1) or [min(table)]
            raise ConfigError(f"no evaluated image is named {name!r}", "--images", f"did you mean {near[0]!r}")
    return list(names)


def choose_images(table: Mapping[str, Mapping[str, str]], classes: Sequence[str], count: int) -> list[str]:
    """Choose images by class and name alone, never by how well anything did on them.

    Every class gives as many as any other, or one more where the count is not divisible; with fewer images than
    classes, the classes are evenly spaced too. Within a class the images are evenly spaced in the order of their
    names. Where some images have a true mask, only those are chosen from.

    Args:
        table: rows of ``evaluation.csv`` by name: their ``label`` and ``mask``.
        classes: in label order.
        count: how many images, at least 1.

    Returns:
        Names, class by class; fewer where a class has not enough.
    """
    from glas_wsol.data.files import natural_key

    masked = [name for name, row in table.items() if row["mask"]] or list(table)
    labels = [*classes, *sorted({table[n]["label"] for n in masked} - set(classes))]  # such as "a;b": several classes
    by_class = {label: sorted((n for n in masked if table[n]["label"] == label), key=natural_key) for label in labels}
    present = [label for label in labels if by_class[label]]
    each, more = divmod(count, len(present))
    extra = set(spaced(present, more))
    return [name for label in present for name in spaced(by_class[label], each + (label in extra))]


def spaced(values: Sequence[str], count: int) -> list[str]:
    """Evenly spaced values: the middle of each of ``count`` equal parts; all of them where there are no more."""
    count = min(count, len(values))
    return [values[(2 * part + 1) * len(values) // (2 * count)] for part in range(count)]


def _line(row: Mapping[str, str], runs: Sequence[EvaluatedRun]) -> Line:
    from glas_wsol.transforms import read_mask, read_rgb
    from glas_wsol.visualize.comparison_figure import Line

    def region(path: Path, above: float = 0) -> np.ndarray:
        found = read_mask(path) > above
        if found.shape != image.shape[:2]:
            what = f"this mask's size is {found.shape}, that of its image {image.shape[:2]}"
            raise ImageFileError(what, path, _AGAIN)
        return found

    image = read_rgb(row["image"])
    truth = region(Path(row["mask"]), runs[0].facts["mask_threshold"]) if row["mask"] else None
    masks = tuple(region(run.folder / run.facts["split"] / "masks" / f"{row['name']}.png") for run in runs)
    return Line(row["label"], row["name"], image, truth, masks)


def _columns(group: Group) -> list[Column]:
    from glas_wsol.bundle.methods import UNTRAINED
    from glas_wsol.visualize.comparison_figure import Column

    several_backbones = len({method.backbone for method in group.methods if method.backbone}) > 1
    return [
        Column(
            method.title,
            method.backbone if several_backbones else "",
            "untrained" if method.supervision == UNTRAINED else method.supervision,
        )
        for method in group.methods
    ]


def _caption(group: Group, shown: Sequence[EvaluatedRun]) -> str:
    thresholds: dict[float, list[str]] = {}
    for method, run in zip(group.methods, shown, strict=True):
        thresholds.setdefault(run.facts["threshold"], []).append(group.label(method))
    cut = (
        f"{next(iter(thresholds)):g}"
        if len(thresholds) == 1
        else "; ".join(f"{value:g} ({', '.join(labels)})" for value, labels in thresholds.items())
    )
    sentences = [
        f"{group.heading[:1].upper()}{group.heading[1:]}, fold {shown[0].fold}.",
        "Inside a mask the image is unchanged, outside it is faded, and a yellow line runs around it.",
        f"Threshold of the masks: {cut}.",
    ]
    backbones = {method.backbone for method in group.methods if method.backbone}
    if len(backbones) == 1:
        sentences.append(f"Backbone: {backbones.pop()}.")
    if any(len(method.seeds) > 1 for method in group.methods):
        sentences.append("Of several trainings of a method, the one of the lowest seed is shown, whatever it scored.")
    return " ".join(sentences)
