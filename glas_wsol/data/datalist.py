# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read labelled data of any kind: recognise which kind a folder or table is, and call its reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from glas_wsol.data.class_folders import IMAGE_KINDS, find_classes, folder_datalist
from glas_wsol.data.csv_table import TABLE_NAMES, class_order, table_datalist
from glas_wsol.data.cub import CUB_DISTRIBUTED, cub_datalist, find_cub
from glas_wsol.data.distributed_files import Distributed
from glas_wsol.data.files import existing, is_file, is_image, log_warnings
from glas_wsol.data.glas import GLAS_DISTRIBUTED, find_glas, glas_datalist
from glas_wsol.data.leaks import leaks
from glas_wsol.data.phantom.folder import phantom_kind
from glas_wsol.data.splits import Datalist, Item
from glas_wsol.errors import ConfigError, DatalistError
from glas_wsol.utils.labels import check_multi_label

__all__ = ["DATA_SETS", "DataSet", "Datalist", "Item", "Reading", "load_datalist"]


@dataclass(frozen=True)
class Reading:
    """How a data set is to be read, see :func:`load_datalist`."""

    fold: str = "paper"
    seed: int = 0
    classes: str | Sequence[str] = "cub5"
    label_names: Sequence[str] | None = None
    multi_label: bool = False


@dataclass(frozen=True)
class DataSet:
    """A kind of labelled data.

    Attributes:
        looked_for: what it is recognised by, in words.
        find: whether a path is of this kind.
        read: the data at a path.
        multi_label: whether its labels can name several classes of an image.
        distributed: what its authors distribute, for the command ``prepare``; None for other kinds.
    """

    looked_for: str
    find: Callable[[Path], object]
    read: Callable[[Path, Reading], Datalist]
    multi_label: bool = False
    distributed: Distributed | None = None


DATA_SETS: Mapping[str, DataSet] = {
    "glas": DataSet(
        "Grade.csv (GlaS)",
        find_glas,
        lambda root, how: glas_datalist(root, how.fold, how.seed),
        distributed=GLAS_DISTRIBUTED,
    ),
    "cub": DataSet(
        "images.txt with classes.txt (CUB-200-2011)",
        find_cub,
        lambda root, how: cub_datalist(root, how.classes, how.fold, how.seed),
        distributed=CUB_DISTRIBUTED,
    ),
    "table": DataSet(
        f"{' or '.join(TABLE_NAMES)} (table)",
        lambda root: is_file(root) or any(is_file(root / name) for name in TABLE_NAMES),
        lambda root, how: table_datalist(root, how.fold, how.seed, how.label_names, how.multi_label),
        multi_label=True,
    ),
    "folder": DataSet(
        f"sub-folders with {IMAGE_KINDS} images (folder of classes)",
        find_classes,
        lambda root, how: folder_datalist(root, how.fold, how.seed, how.label_names),
    ),
}
"""Every kind of data by its name; the first whose ``find`` recognises a path is taken."""


def load_datalist(
    dataset_dir: str | Path,
    fold: str = "paper",
    seed: int = 0,
    kind: str = "auto",
    classes: str | Sequence[str] = "cub5",
    label_names: Sequence[str] | None = None,
    multi_label: bool = False,
    log: bool = True,
) -> Datalist:
    """Read a data set of any kind; training, evaluation, ``data`` and ``doctor`` all read it here.

    Args:
        dataset_dir: GlaS, CUB-200-2011, a table or a folder of class folders.
        fold: ``"paper"``, ``"patient-0"`` to ``"patient-4"`` or ``"stratified-0"`` to ``"stratified-4"``. Ignored where
            the data define which image is in which split.
        kind: ``"glas"``, ``"cub"``, ``"table"``, ``"folder"``, or ``"auto"``: the first of these that is recognised,
            by Grade.csv, by images.txt and classes.txt, by a .csv (in a folder: datalist.csv or index.csv), by
            sub-folders with images.
        classes: which classes of CUB-200-2011; see `cub_datalist`.
        label_names: classes of a table or folder in label order; see `table_datalist`.
        multi_label: whether an image may have several classes; only of a table, see `table_datalist`. Defaults
            to False.

    Raises:
        ConfigError: if a setting has no such value, or several classes per image are set for another kind of data.
        DatalistError: if nothing is recognised, with what was looked for; every fault of the data at once.
        SplitError: if the data cannot give this fold.
    """
    if kind not in ("auto", *DATA_SETS):
        raise ConfigError(f"there is no kind {kind!r}", "kind", f"use one of {', '.join(('auto', *DATA_SETS))}")
    class_order(label_names, ())
    root = existing(dataset_dir)
    if is_image(root):
        fix = "give the folder of the images, with a sub-folder for each class, or a table of them"
        raise DatalistError(root, ["this is one image, and no data set"], fix)
    if kind == "auto":
        kind = _kind(root)
    data_set = DATA_SETS[kind]
    if check_multi_label(multi_label, "data set") and not data_set.multi_label:
        fix = "set multi_label=false, or give a table"
        raise ConfigError("only a table's labels can name several classes", root, fix)
    found = data_set.read(root, Reading(fold, seed, classes, label_names, multi_label))
    found = _said_if_drawn(replace(found, warnings=(*found.warnings, *leaks(found))))
    if log:
        log_warnings(root, found.warnings)
    return found


def _said_if_drawn(found: Datalist) -> Datalist:
    """The same, named a phantom where its images lie in one: whatever layout it imitates."""
    folders = {item.image.parent for items in found.splits.values() for item in items}
    kinds = sorted({kind for folder in folders if (kind := phantom_kind(folder))})
    if not kinds:
        return found
    return replace(found, name=f"phantom (synthetic {' and '.join(kinds)})", synthetic=" and ".join(kinds))


def _kind(root: Path) -> str:
    found = next((name for name, one in DATA_SETS.items() if one.find(root)), None)
    if found is not None:
        return found
    faults = [f"no {one.looked_for}" for one in DATA_SETS.values()]
    tables = sorted(root.glob("*.csv"))
    fix = f"give the table, {tables[0]}" if tables else "give a folder or a table of one of these kinds"
    raise DatalistError(root, faults, fix)
