# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read a CSV table of labelled images: ``image,label[,mask][,group][,split][,source][,mpp]``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from glas_wsol.data.files import distinct_names, existing, is_file, natural_key
from glas_wsol.data.pairs import mask_stem
from glas_wsol.data.rows import Row, image_path, listed_mpp, read_rows
from glas_wsol.data.spelling import clean, shown, spelling_key, spelt_twice, split_word
from glas_wsol.data.splits import Datalist, Item, parse_fold, split_by_fold, with_validation
from glas_wsol.errors import ConfigError, DatalistError
from glas_wsol.utils.labels import SEPARATOR, check_multi_label

__all__ = ["TABLE_NAMES", "class_order", "find_table", "table_datalist"]

TABLE_NAMES = ("datalist.csv", "index.csv")


def table_datalist(
    source: str | Path,
    fold: str = "paper",
    seed: int = 0,
    label_names: Sequence[str] | None = None,
    multi_label: bool = False,
) -> Datalist:
    """Read a CSV of images with labels.

    The columns are image and label and, where there are any, mask, group (the patient), split (train, valid or test),
    mpp (micrometres per pixel) and source (the laboratory); their titles are those of `COLUMNS`, in any order and among
    others. Paths are absolute or relative to the table's folder, with ``/`` or with backslashes; a mask may be blank.
    Comma, semicolon, tab or ``|`` delimit cells. Names are `distinct_names` of the image paths. A class, group or
    source that is spelt in two ways is a fault.

    With ``multi_label=True`` a label names one class or more, joined by ``;`` (in quotes where that separates
    the cells): ``stroma;tumour``. Otherwise a ``;`` in a label is a fault.

    Args:
        source: the table, or a folder with a ``datalist.csv``, an ``index.csv`` or one single ``.csv``.
        fold: ignored where the table has images for train and for valid. Otherwise ``"paper"`` is fold 0: by groups
            where the table has a group column (no group is on both sides), stratified by class where it has none;
            ``"patient-0"`` to ``"patient-4"`` and ``"stratified-0"`` to ``"stratified-4"`` name one of five.
        label_names: the classes in label order; other labels are faults. Default: the labels that occur, sorted.
        multi_label: False (default) for one class per image, True for several.

    Raises:
        ConfigError: if there is no such fold, or ``multi_label`` is not a truth value.
        DatalistError: every fault of the table at once, with line numbers.
        SplitError: if the table cannot give this fold, or a class has no training or validation image.
    """
    check_multi_label(multi_label, "table")
    path = find_table(existing(source))
    if path is None:
        looked = f"no table here: looked for {', '.join(TABLE_NAMES)} or one single .csv"
        raise DatalistError(source, [looked], "point at a .csv with the columns image and label")
    parse_fold(fold)
    faults: list[str] = []
    warnings: list[str] = []
    rows = read_rows(path, ("image", "label"), faults, warnings=warnings)
    images = [image_path(path, row, "image", faults) for row in rows]
    masks = [image_path(path, row, "mask", faults) if row.get("mask") else None for row in rows]
    sizes = [listed_mpp(row, faults) for row in rows]
    for row in rows:
        row.labels = _named_classes(row, multi_label, faults)
    faults += spelt_twice([(name, row.place) for row in rows for name in row.labels], "labels", "class")
    for row in rows:
        row.labels = tuple(dict.fromkeys(map(clean, row.labels)))
    classes = class_order(label_names, [name for row in rows for name in row.labels])
    _check_labels(rows, classes, faults)
    has_splits = any(row.get("split") for row in rows)
    for key, one in (("group", "patient"), ("source", "laboratory")):
        if any(row.get(key) for row in rows):
            faults += [f"{row.place}: blank {key}" for row in rows if not row[key]]
            faults += spelt_twice([(row[key], row.place) for row in rows if row[key]], f"{key}s", one)
    for row in rows if has_splits else ():
        row.home = split_word(row["split"]) or ""
        if not row.home:
            fault = f"{shown(row['split'])} is not a split (give train, valid or test)"
            faults.append(f"{row.place}: {fault if row['split'] else 'blank split'}")
    _check_repeats(rows, images, faults)
    _check_masks(rows, images, faults)
    if has_splits:
        _check_split_labels(rows, faults)
    if faults:
        raise DatalistError(path, faults)

    found = [image for image in images if image is not None]  # all of them: a missing one is a fault
    items = [
        Item(image, _label(row, classes, multi_label), name, mask, _known(row, "group"), mpp, _known(row, "source"))
        for row, image, mask, name, mpp in zip(
            rows, found, masks, distinct_names(found, path.parent), sizes, strict=True
        )
    ]
    if has_splits:
        parts: dict[str, list[Item]] = defaultdict(list)
        for row, item in zip(rows, items, strict=True):
            parts[row.home].append(item)
        splits, more = with_validation(parts, classes, fold, seed, path)
        return Datalist(path.name, classes, splits, str(path), (*warnings, *more))
    splits = split_by_fold(items, classes, fold, seed, path)
    return Datalist(path.name, classes, splits, str(path), tuple(warnings))


def _known(row: Row, key: str) -> str | None:
    return clean(row.get(key, "")) or None


def find_table(source: str | Path) -> Path | None:
    """The table that ``source`` is or holds; None where there is none or more than one."""
    path = Path(source)
    if not path.is_dir():
        return path if is_file(path) else None
    named = [path / name for name in TABLE_NAMES if is_file(path / name)]
    found = named or [table for table in path.glob("*.csv") if is_file(table) and not table.name.startswith(".")]
    return found[0] if named or len(found) == 1 else None


def class_order(label_names: Sequence[str] | None, present: Iterable[str]) -> tuple[str, ...]:
    """The classes in label order: as given, two or more (else a ConfigError), or those present, sorted."""
    if label_names is None:
        return tuple(sorted(set(present), key=natural_key))
    listed = isinstance(label_names, Sequence) and not isinstance(label_names, str)
    names = tuple(clean(str(name)) for name in label_names) if listed else ()
    if len(set(map(spelling_key, names))) != len(names) or len(names) < 2:
        raise ConfigError(f"{label_names!r} are not two or more different names", "label_names", "list the classes")
    return names


def _named_classes(row: Row, multi_label: bool, faults: list[str]) -> tuple[str, ...]:
    """The classes that a row's label names."""
    label = row["label"]
    if SEPARATOR not in label:
        return (label,) if label else ()
    if not multi_label:
        hint = "set multi_label=true if images may have several classes"
        faults.append(f"line {row.line}: label {label!r} has a {SEPARATOR!r}: {hint}")
        return ()
    names = tuple(name.strip() for name in label.split(SEPARATOR))
    if "" in names:
        faults.append(f"line {row.line}: label {label!r} has a blank class")
    faults += [
        f"line {row.line}: label {label!r} names {n!r} twice" for n in sorted(set(names) - {""}) if names.count(n) > 1
    ]
    return tuple(name for name in names if name)


def _label(row: Row, classes: Sequence[str], multi_label: bool) -> int | tuple[int, ...]:
    labels = tuple(sorted(classes.index(name) for name in row.labels))
    return labels if multi_label else labels[0]


def _check_labels(rows: Sequence[Row], classes: Sequence[str], faults: list[str]) -> None:
    if len(classes) == 1:
        faults.append(f"the only label is {classes[0]!r}: learning needs images of two classes at least")
    known = ", ".join(classes)
    strange = [(row, name) for row in rows for name in row.labels if name not in classes]
    faults += [f"line {row.line}: label {name!r} is none of {known}" for row, name in strange]


def _check_repeats(rows: Sequence[Row], images: Sequence[Path | None], faults: list[str]) -> None:
    first: dict[Path, Row] = {}
    homes: dict[str, Row] = {}
    for row, image in zip(rows, images, strict=True):
        if image is not None:
            other = first.setdefault(image.resolve(), row)
            if other is not row:
                leak = row.home and other.home and row.home != other.home
                both = f" (in {other.home} there, in {row.home} here)" if leak else ""
                faults.append(f"{row.place}: image {row['image']!r} again, after {other.place}{both}")
        if row.get("group") and row.home:
            other = homes.setdefault(spelling_key(row["group"]), row)
            if other.home and row.home != other.home:
                here = f"{row.home} and, on {other.place}, in {other.home}"
                faults.append(f"{row.place}: group {shown(row['group'])} is in {here}")


def _check_masks(rows: Sequence[Row], images: Sequence[Path | None], faults: list[str]) -> None:
    """Masks that a list of all files has among its images."""
    known = {(image.parent, image.stem.casefold()): row for row, image in zip(rows, images, strict=True) if image}
    for row, image in zip(rows, images, strict=True):
        base = mask_stem(image.stem) if image is not None else None
        other = known.get((image.parent, base[0].casefold())) if image is not None and base else None
        if other is not None:
            what = f"image {row['image']!r} is named like the mask of {other['image']!r} on {other.place}"
            faults.append(f"{row.place}: {what}: leave this row out, and name masks in the column mask")


def _check_split_labels(rows: Sequence[Row], faults: list[str]) -> None:
    labels: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        labels[row.home].update(row.labels)
    train = labels["train"]
    if len(train) == 1:
        faults.append(f"the only label in train is {next(iter(train))!r}")
    for split in ("valid", "test") if train else ():
        faults += [f"label {name!r} is in {split} and not in train" for name in sorted(labels[split] - train)]
