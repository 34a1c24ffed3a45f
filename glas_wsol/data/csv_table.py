# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A table of one's own images: ``image,label[,mask][,group][,split]``, in any of the dialects spreadsheets write."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from glas_wsol.data.files import distinct_names, existing, folded, is_file, natural_key
from glas_wsol.data.splits import SPLIT_WORDS, Datalist, Item, parse_fold, split_by_fold
from glas_wsol.errors import ConfigError, DatalistError
from glas_wsol.utils.csv_cells import unescape_cell
from glas_wsol.utils.labels import SEPARATOR, is_several

__all__ = ["COLUMNS", "TABLE_NAMES", "Row", "class_order", "find_table", "image_path", "read_rows", "table_datalist"]

TABLE_NAMES = ("datalist.csv", "index.csv")
# Titles of each column, the best first: a patient is kept together before a case, which may be one of several.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": ("image",),
    "label": ("label",),
    "mask": ("mask",),
    "group": ("group", "patient", "patient_id", "case", "case_id"),
    "split": ("split",),
}


class Row(dict):
    """The cells of one row by meaning, each trimmed and ``""`` where blank, and the line the row starts on.

    ``labels`` are the classes its label names: one, or several; none where it is blank or not a label.
    """

    def __init__(self, line: int, cells: Mapping[str, str]) -> None:
        super().__init__(cells)
        self.line = line
        self.labels: tuple[str, ...] = ()


def table_datalist(
    source: str | Path,
    fold: str = "paper",
    seed: int = 0,
    label_names: Sequence[str] | None = None,
    classes_per_image: str = "one",
) -> Datalist:
    """Read a CSV of images with labels.

    The columns are ``image`` and ``label`` and, where there are any, ``mask``, ``group`` (or ``patient``,
    ``patient_id``, ``case``, ``case_id``: the first of these) and ``split`` (train, valid or test, spelt as in
    `SPLIT_WORDS`), in any order and among others. Paths are absolute or relative to the table's folder; a mask may be
    blank. Comma, semicolon and tab part the cells. Names are `distinct_names` of the image paths.

    With ``classes_per_image="several"`` a label names one class or more, joined by ``;`` (in quotes where that parts
    the cells): ``stroma;tumour``. Otherwise a ``;`` in a label is a fault.

    Args:
        source: the table, or a folder with a ``datalist.csv``, an ``index.csv`` or one single ``.csv``.
        fold: ignored where the table has a ``split`` column. Otherwise ``"paper"`` is fold 0: by groups where the
            table has a group column (no group is on both sides), stratified by class where it has none;
            ``"patient-0"`` to ``"patient-4"`` and ``"stratified-0"`` to ``"stratified-4"`` name one of five.
        seed: of the folds.
        label_names: the classes in label order; other labels are faults. Default: the labels that occur, sorted.
        classes_per_image: ``"one"`` (default) or ``"several"``.

    Raises:
        ConfigError: if there is no such fold, or ``classes_per_image`` is another word.
        DatalistError: every fault of the table at once, with line numbers.
        SplitError: if the table cannot give this fold, or a class has no training or validation image.
    """
    several = is_several(classes_per_image, "table")
    path = find_table(existing(source))
    if path is None:
        looked = f"no table here: looked for {', '.join(TABLE_NAMES)} or one single .csv"
        raise DatalistError(source, [looked], "point at a .csv with the columns image and label")
    parse_fold(fold)
    faults: list[str] = []
    rows = read_rows(path, ("image", "label"), faults)
    images = [image_path(path, row, "image", faults) for row in rows]
    masks = [image_path(path, row, "mask", faults) if row.get("mask") else None for row in rows]
    for row in rows:
        row.labels = _named_classes(row, several, faults)
    classes = class_order(label_names, [name for row in rows for name in row.labels])
    _check_labels(rows, classes, faults)
    has_groups, has_splits = (any(row.get(key) for row in rows) for key in ("group", "split"))
    if has_groups:
        faults += [f"line {row.line}: blank group" for row in rows if not row["group"]]
    for row in rows if has_splits else ():
        word, row["split"] = row["split"], SPLIT_WORDS.get(row["split"].lower(), "")
        if not row["split"]:
            faults.append(f"line {row.line}: {word!r} is no split" if word else f"line {row.line}: blank split")
    _check_repeats(rows, images, faults)
    if has_splits:
        _check_split_labels(rows, faults)
    if faults:
        raise DatalistError(path, faults)

    found = [image for image in images if image is not None]  # all of them: a missing one is a fault
    items = [
        Item(image, _label(row, classes, several), name, mask, row.get("group") or None)
        for row, image, mask, name in zip(rows, found, masks, distinct_names(found, path.parent), strict=True)
    ]
    if has_splits:
        parts: dict[str, list[Item]] = defaultdict(list)
        for row, item in zip(rows, items, strict=True):
            parts[row["split"]].append(item)
        return Datalist(path.name, classes, {split: tuple(part) for split, part in parts.items()}, str(path))
    return Datalist(path.name, classes, split_by_fold(items, classes, fold, seed, path), str(path))


def find_table(source: str | Path) -> Path | None:
    """The table that ``source`` is or holds; None where there is none or more than one."""
    path = Path(source)
    if not path.is_dir():
        return path if is_file(path) else None
    named = [path / name for name in TABLE_NAMES if is_file(path / name)]
    found = named or [table for table in path.glob("*.csv") if is_file(table) and not table.name.startswith(".")]
    return found[0] if named or len(found) == 1 else None


def _columns(titles: list[str]) -> dict[str, int]:
    titles = [re.sub(r"[\s_-]+", "_", title) for title in titles]
    known = {key: [name for name in names if name in titles] for key, names in COLUMNS.items()}
    return {key: titles.index(names[0]) for key, names in known.items() if names}


def _misspelt(titles: list[str], columns: Mapping[str, int]) -> list[str]:
    """Titles like that of an optional column that is absent: unread, patients would come to stand on both sides."""
    absent = [name for key, names in COLUMNS.items() if key not in columns for name in names]
    unread = [title for column, title in enumerate(titles) if column not in columns.values()]
    near = {title: difflib.get_close_matches(title, absent, n=1, cutoff=0.7) for title in unread}
    return [f"column {title!r} is not known: did you mean {names[0]!r}?" for title, names in near.items() if names]


def read_rows(
    path: Path,
    required: Sequence[str],
    faults: list[str],
    meaning: Callable[[list[str]], dict[str, int]] = _columns,
    where: str = "",
) -> list[Row]:
    """Read a table: UTF-8 with or without byte order mark, any line ends; blank rows are left out.

    Args:
        path: the table.
        required: the columns it must have, with no blank cell.
        faults: receives the faults of single rows.
        meaning: finds the columns among trimmed lower-case titles.
        where: what to put before ``line N`` in a fault.

    Raises:
        DatalistError: if the table as a whole cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatalistError(path, ["it is not UTF-8 text"], "save the table as CSV UTF-8") from error
    except OSError as error:
        raise DatalistError(path, [f"it cannot be read ({error.strerror})"], "check the file") from error
    if not text.strip():
        raise DatalistError(path, ["it is empty"], "write a header and one row per image")
    try:
        # The delimiter is the one that makes most known columns: guessing it from all cells trips over commas in names.
        headers = {delimiter: next(_rows(text, delimiter, strict=False), (1, [""]))[1] for delimiter in ",;\t"}
        headers = {key: [title.strip().lower() for title in titles] for key, titles in headers.items()}
        delimiter = max(headers, key=lambda key: len(set(meaning(headers[key]).values())))
        rows = list(_rows(text, delimiter))[1:]
    except csv.Error as error:
        raise DatalistError(path, [f"it is not a table ({error})"], "check its quotes") from error
    titles = headers[delimiter]
    columns = meaning(titles)
    said = ", ".join(titles)
    missing = [f"there is no column {key!r} (the columns are {said})" for key in required if key not in columns]
    twice = sorted({titles[column] for column in columns.values() if titles.count(titles[column]) > 1})
    missing += [f"column {title!r} is there twice" for title in twice]
    missing += ["it has a header and no rows"] if not rows else []
    missing += _misspelt(titles, columns) if meaning is _columns else []
    if missing:
        raise DatalistError(path, missing, "correct the table")
    read = []
    for line, cells in rows:
        if len(cells) > len(titles) and any(cells[len(titles) :]):
            faults.append(f"{where}line {line}: {len(cells)} cells under {len(titles)} titles (quote what has commas)")
            continue
        texts = [unescape_cell(cell.strip()) for cell in cells]
        row = Row(line, {key: texts[column] if column < len(cells) else "" for key, column in columns.items()})
        faults += [f"{where}line {line}: blank {key}" for key in required if not row[key]]
        read.append(row)
    return read


def _rows(text: str, delimiter: str, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the line it starts on: a quoted cell may hold line ends."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=strict)
    line = 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield line, cells
        line = reader.line_num + 1


def image_path(table: Path, row: Row, key: str, faults: list[str]) -> Path | None:
    """The file a cell names, absolute or relative to the table's folder; a fault and None where there is none."""
    if not row[key]:
        return None  # reported as blank
    path = table.parent / row[key]
    if is_file(path):
        return path
    faults.append(f"line {row.line}: {key} {row[key]!r} is not a file")
    return None


def class_order(label_names: Sequence[str] | None, present: Iterable[str]) -> tuple[str, ...]:
    """The classes in label order: as given, or else those present, sorted.

    Raises:
        ConfigError: if ``label_names`` are not two or more different names.
    """
    if label_names is None:
        return tuple(sorted(set(present), key=natural_key))
    names = tuple(map(str, label_names))
    if isinstance(label_names, str) or len(set(names)) != len(names) or len(names) < 2:
        raise ConfigError(f"{label_names!r} are not two or more different names", "label_names", "list the classes")
    return names


def _named_classes(row: Row, several: bool, faults: list[str]) -> tuple[str, ...]:
    """The classes that a row's label names."""
    label = row["label"]
    if SEPARATOR not in label:
        return (label,) if label else ()
    if not several:
        hint = "set classes_per_image=several if images may have several classes"
        faults.append(f"line {row.line}: label {label!r} has a {SEPARATOR!r}: {hint}")
        return ()
    names = tuple(name.strip() for name in label.split(SEPARATOR))
    if "" in names:
        faults.append(f"line {row.line}: label {label!r} has a blank class")
    faults += [
        f"line {row.line}: label {label!r} names {n!r} twice" for n in sorted(set(names) - {""}) if names.count(n) > 1
    ]
    return tuple(name for name in names if name)


def _label(row: Row, classes: Sequence[str], several: bool) -> int | tuple[int, ...]:
    labels = tuple(sorted(classes.index(name) for name in row.labels))
    return labels if several else labels[0]


def _check_labels(rows: Sequence[Row], classes: Sequence[str], faults: list[str]) -> None:
    if len(classes) == 1:
        faults.append(f"the only label is {classes[0]!r}: learning needs images of two classes at least")
    known = ", ".join(classes)
    strange = [(row, name) for row in rows for name in row.labels if name not in classes]
    faults += [f"line {row.line}: label {name!r} is none of {known}" for row, name in strange]
    spelt = {folded(name): name for name in reversed(classes)}
    twins = [(spelt[folded(name)], name) for name in classes if spelt[folded(name)] != name]
    faults += [f"labels {one!r} and {two!r} are one class spelt twice" for one, two in twins]


def _check_repeats(rows: Sequence[Row], images: Sequence[Path | None], faults: list[str]) -> None:
    first: dict[Path, Row] = {}
    homes: dict[str, Row] = {}
    for row, image in zip(rows, images, strict=True):
        if image is not None:
            other = first.setdefault(image.resolve(), row)
            if other is not row:
                leak = row.get("split") and other.get("split") and row["split"] != other["split"]
                both = f" (in {other['split']} there, in {row['split']} here)" if leak else ""
                faults.append(f"line {row.line}: image {row['image']!r} again, after line {other.line}{both}")
        if row.get("group") and row.get("split"):
            other = homes.setdefault(row["group"], row)
            if row["split"] != other["split"]:
                here = f"{row['split']} and, on line {other.line}, in {other['split']}"
                faults.append(f"line {row.line}: group {row['group']!r} is in {here}")


def _check_split_labels(rows: Sequence[Row], faults: list[str]) -> None:
    labels: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        labels[row["split"]].update(row.labels)
    train = labels["train"]
    if len(train) == 1:
        faults.append(f"the only label in train is {next(iter(train))!r}")
    for split in ("valid", "test") if train else ():
        faults += [f"label {name!r} is in {split} and not in train" for name in sorted(labels[split] - train)]
