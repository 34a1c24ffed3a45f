# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""One door to every kind of data: which kind a folder is, folders of classes, and plain images to run on."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from glas_wsol.data.csv_table import TABLE_NAMES, class_order, image_path, read_rows, table_datalist
from glas_wsol.data.cub import cub_datalist, find_cub
from glas_wsol.data.files import IMAGE_SUFFIXES, distinct_names, existing, is_file, natural_key
from glas_wsol.data.glas import find_glas, glas_datalist
from glas_wsol.data.phantom.folder import phantom_kind
from glas_wsol.data.splits import SPLIT_WORDS, Datalist, Item, parse_fold, split_by_fold
from glas_wsol.errors import ConfigError, DatalistError, ImageFileError
from glas_wsol.utils.labels import is_several

__all__ = ["Datalist", "Item", "folder_datalist", "images_datalist", "load_datalist"]

_SUFFIXES_SAID = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)


def load_datalist(
    dataset_dir: str | Path,
    fold: str = "paper",
    seed: int = 0,
    kind: str = "auto",
    classes: str | Sequence[str] = "cub5",
    label_names: Sequence[str] | None = None,
    classes_per_image: str = "one",
) -> Datalist:
    """Read a data set of any kind.

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
        fix = "set classes_per_image=one, or point 'dataset_dir' at a table"
        raise ConfigError("only a table's labels can name several classes", root, fix)
    if kind == "glas":
        found = glas_datalist(root, fold, seed)
    elif kind == "cub":
        found = cub_datalist(root, classes, fold, seed)
    elif kind == "table":
        found = table_datalist(root, fold, seed, label_names, classes_per_image)
    else:
        found = folder_datalist(root, fold, seed, label_names)
    return _said_if_drawn(found)


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
    if _class_images(root):
        return "folder"
    faults = [
        "no Grade.csv (GlaS)",
        "no images.txt with classes.txt (CUB-200-2011)",
        f"no {' or '.join(TABLE_NAMES)} (table)",
        f"no sub-folders with {_SUFFIXES_SAID} images (folder of classes)",
    ]
    raise DatalistError(root, faults, "point 'dataset_dir' at one of these")


def folder_datalist(
    dataset_dir: str | Path, fold: str = "paper", seed: int = 0, label_names: Sequence[str] | None = None
) -> Datalist:
    """Read a folder with one sub-folder of images per class, such as ``benign/a.png`` and ``malignant/b.png``.

    The class folders may also lie in ``images/``, and in ``train/``, ``valid/`` and ``test/`` (spelt as in
    `SPLIT_WORDS`), which then are the splits. The mask of ``benign/a.png`` is ``masks/benign/a.png``, of any image
    suffix; the tree ``masks/`` may be missing or incomplete. Hidden folders and files are left out.

    Args:
        dataset_dir: the folder.
        fold: ignored where there are split folders; otherwise ``"stratified-0"`` to ``"stratified-4"``, and
            ``"paper"`` is the first of them.
        seed: of the folds.
        label_names: class folders in label order; other folders with images are faults. Default: sorted.

    Raises:
        ConfigError: if there is no such fold.
        DatalistError: every fault of the folder at once.
        SplitError: if the folder cannot give this fold, or a class has no training or validation image.
    """
    root = existing(dataset_dir)
    parse_fold(fold)
    found = _class_images(root)
    lost = [path for path, _ in found if not is_file(path)]
    found = [(path, split) for path, split in found if path not in lost]
    present = class_order(None, [path.parent.name for path, _ in found])
    faults = [] if found else [f"no sub-folders with {_SUFFIXES_SAID} images"]
    classes = class_order(label_names, present)
    faults += [f"{path.relative_to(root)} is not a file" for path in lost]
    faults += [f"folder {name!r} is none of {', '.join(classes)}" for name in present if name not in classes]
    if len(classes) == 1:
        faults.append(f"the only class folder is {present[0]!r}: learning needs two classes at least")
    first: dict[Path, Path] = {}
    twins = [(first[path.resolve()], path) for path, _ in found if first.setdefault(path.resolve(), path) != path]
    faults += [f"{two.relative_to(root)} is {one.relative_to(root)} once more" for one, two in twins]
    trained = {path.parent.name for path, split in found if split == "train"}
    for split in ("valid", "test") if trained else ():
        strange = {path.parent.name for path, where in found if where == split} - trained
        faults += [f"class folder {name!r} is in {split} and not in train" for name in sorted(strange)]
    if faults:
        raise DatalistError(root, faults, "make one sub-folder of images per class")

    base = root / "images" if found[0][0].is_relative_to(root / "images") else root
    names = distinct_names([path for path, _ in found], base)
    parts: dict[str, list[Item]] = defaultdict(list)
    for (path, split), name in zip(found, names, strict=True):
        mask = root / "masks" / path.relative_to(base)
        masks = [mask, *(mask.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)]
        kept = next((mask for mask in masks if is_file(mask)), None)
        parts[split].append(Item(path, classes.index(path.parent.name), name, kept))
    if "" in parts:
        return Datalist(root.name, classes, split_by_fold(parts[""], classes, fold, seed, root), str(root))
    return Datalist(root.name, classes, {split: tuple(part) for split, part in parts.items()}, str(root))


def _class_images(root: Path) -> list[tuple[Path, str]]:
    """Images of class folders, each with its split (``""`` where the folders have none)."""
    base = root / "images" if any(_folders(root / "images")) else root
    splits = [folder for folder in _folders(base) if folder.name.lower() in SPLIT_WORDS and any(_folders(folder))]
    homes = [(folder, SPLIT_WORDS[folder.name.lower()]) for folder in splits] or [(base, "")]
    return [
        (path, split)
        for home, split in homes
        for folder in _folders(home)
        if not (home == root and folder.name == "masks")
        for path in _images(folder)
    ]


def _folders(root: Path) -> list[Path]:
    found = [path for path in root.iterdir() if path.is_dir() and path.name[0] != "."] if root.is_dir() else []
    return sorted(found, key=lambda path: natural_key(path.name))


def _images(folder: Path, recursive: bool = False) -> list[Path]:
    """Images of a folder in natural order, without hidden files and folders and without GlaS annotations.

    Links that lead nowhere are among them: to leave them out would lose an image in silence.
    """
    found: list[Path] = []

    def refuse(error: OSError) -> None:  # by default, os.walk passes over what it cannot read
        raise DatalistError(error.filename, [f"it cannot be read ({error.strerror})"], "change its permissions")

    for above, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if recursive and name[0] != "."]
        found += [Path(above, name) for name in files if name[0] != "." and name.lower().endswith(IMAGE_SUFFIXES)]
    found = [path for path in found if not path.stem.endswith("_anno")]
    return sorted(found, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def images_datalist(source: str | Path, recursive: bool = False, exclude: str | Path | None = None) -> list[dict]:
    """List images to run on; labels and masks are neither needed nor read.

    Args:
        source: an image; a folder of bmp, png, jpg, jpeg, tif and tiff images, in natural order, without hidden files
            and without GlaS annotations (``*_anno.bmp``); or a ``.csv`` with a column ``image`` of paths, absolute or
            relative to it, in its order.
        recursive: whether to list the folders below too.
        exclude: a folder to leave out, such as that of the results; no matter if ``source`` itself lies in it.

    Returns:
        ``{"image": str, "name": str}`` each. Names are distinct, also where case is ignored: the path below the folder
        (of the table) without suffix, folders joined by ``__``. Only ``a.png`` and ``a.tif`` side by side keep theirs.

    Raises:
        ConfigError: if ``exclude`` is the folder itself: the results of one run would be images of the next.
        DatalistError: if there is no image; every fault of a table at once.
        ImageFileError: if ``source`` is a file of another kind.
    """
    root = existing(source)
    if root.is_dir():
        if exclude is not None and root.resolve() == Path(exclude).resolve():
            raise ConfigError("the results would lie among the images", root, "choose another output_dir")
        images, home = _images(root, recursive), root
        if exclude is not None and not root.resolve().is_relative_to(Path(exclude).resolve()):
            there = Path(exclude).resolve()
            images = [image for image in images if not (is_file(image) and image.resolve().is_relative_to(there))]
        if not images:
            where = "in it or below" if recursive else "directly in it"
            fix = "point at the images" if recursive else "point at the images, or set 'recursive'"
            raise DatalistError(root, [f"no {_SUFFIXES_SAID} image {where}"], fix)
    elif root.suffix.lower() == ".csv":
        images, home = _listed(root), root.parent
    elif root.suffix.lower() in IMAGE_SUFFIXES:
        images, home = [root], root.parent
    else:
        raise ImageFileError("not a known kind of image", root, f"use {_SUFFIXES_SAID}, a folder or a .csv")
    names = distinct_names(images, home)
    return [{"image": str(image), "name": name} for image, name in zip(images, names, strict=True)]


def _listed(table: Path) -> list[Path]:
    faults: list[str] = []
    first: dict[Path, int] = {}
    images = []
    for row in read_rows(table, ("image",), faults):
        image = image_path(table, row, "image", faults)
        if image is None:
            continue
        images.append(image)
        if first.setdefault(image.resolve(), row.line) != row.line:
            faults.append(f"line {row.line}: image {row['image']!r} again, after line {first[image.resolve()]}")
    if faults:
        raise DatalistError(table, faults)
    return images
