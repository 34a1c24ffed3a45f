# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""One door to every kind of labelled data: which kind a folder is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from glas_wsol.data.class_folders import IMAGE_KINDS, find_classes, folder_datalist
from glas_wsol.data.csv_table import TABLE_NAMES, table_datalist
from glas_wsol.data.cub import cub_datalist, find_cub
from glas_wsol.data.files import existing, is_file, log_warnings
from glas_wsol.data.glas import find_glas, glas_datalist
from glas_wsol.data.phantom.folder import phantom_kind
from glas_wsol.data.splits import Datalist, Item
from glas_wsol.errors import ConfigError, DatalistError
from glas_wsol.utils.labels import is_several

__all__ = ["Datalist", "Item", "load_datalist"]


def load_datalist(
    dataset_dir: str | Path,
    fold: str = "paper",
    seed: int = 0,
    kind: str = "auto",
    classes: str | Sequence[str] = "cub5",
    label_names: Sequence[str] | None = None,
    classes_per_image: str = "one",
    log: bool = True,
) -> Datalist:
    """Read a data set of any kind; training, evaluation, ``data`` and ``doctor`` all read it here.

    Args:
        dataset_dir: GlaS, CUB-200-2011, a table or a folder of class folders.
        fold: ``"paper"``, ``"patient-0"`` to ``"patient-4"`` or ``"stratified-0"`` to ``"stratified-4"``. Ignored where
            the data says itself which image is in which split.
        seed: of the folds that are drawn.
        kind: ``"glas"``, ``"cub"``, ``"table"``, ``"folder"``, or ``"auto"``: the first of these that is recognised,
            by Grade.csv, by images.txt and classes.txt, by a .csv (in a folder: datalist.csv or index.csv), by
            sub-folders with images.
        classes: which classes of CUB-200-2011; see `cub_datalist`.
        label_names: classes of a table or folder in label order; see `table_datalist`.
        classes_per_image: ``"one"`` (default), or ``"several"``: only a table can say so; see `table_datalist`.
        log: whether to log the datalist's warnings. Defaults to True.

    Raises:
        ConfigError: if a setting has no such value, or several classes per image are wanted of another kind of data.
        DatalistError: if nothing is recognised, saying what was looked for; every fault of the data at once.
        SplitError: if the data cannot give this fold.
    """
    if kind not in ("auto", "glas", "cub", "table", "folder"):
        raise ConfigError(f"there is no kind {kind!r}", "kind", "use one of auto, glas, cub, table, folder")
    root = existing(dataset_dir)
    if kind == "auto":
        kind = _kind(root)
    if is_several(classes_per_image, "data set") and kind != "table":
        fix = "set classes_per_image=one, or give a table"
        raise ConfigError("only a table's labels can name several classes", root, fix)
    if kind == "glas":
        found = glas_datalist(root, fold, seed)
    elif kind == "cub":
        found = cub_datalist(root, classes, fold, seed)
    elif kind == "table":
        found = table_datalist(root, fold, seed, label_names, classes_per_image)
    else:
        found = folder_datalist(root, fold, seed, label_names)
    found = _said_if_drawn(replace(found, warnings=(*found.warnings, *found.shared_groups())))
    if log:
        log_warnings(root, found.warnings)
    return found


def _said_if_drawn(found: Datalist) -> Datalist:
    """The same, called a phantom where images lie in one: whatever its layout imitates, and whoever lists them."""
    folders = {item.image.parent for items in found.splits.values() for item in items}
    kinds = sorted({kind for folder in folders if (kind := phantom_kind(folder))})
    if not kinds:
        return found
    return replace(found, name=f"phantom (synthetic {' and '.join(kinds)})", synthetic=" and ".join(kinds))


def _kind(root: Path) -> str:
    if find_glas(root):
        return "glas"
    if find_cub(root):
        return "cub"
    if is_file(root) or any(is_file(root / name) for name in TABLE_NAMES):
        return "table"
    if find_classes(root):
        return "folder"
    faults = [
        "no Grade.csv (GlaS)",
        "no images.txt with classes.txt (CUB-200-2011)",
        f"no {' or '.join(TABLE_NAMES)} (table)",
        f"no sub-folders with {IMAGE_KINDS} images (folder of classes)",
    ]
    tables = sorted(root.glob("*.csv"))
    fix = f"give the table, {tables[0]}" if tables else "give a folder or a table of one of these kinds"
    raise DatalistError(root, faults, fix)
