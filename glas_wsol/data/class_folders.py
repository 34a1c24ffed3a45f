# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read a folder with one sub-folder of images per class, with splits and masks where it has them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from glas_wsol.data.csv_table import class_order
from glas_wsol.data.files import IMAGE_SUFFIXES, distinct_names, existing, is_file, natural_key
from glas_wsol.data.pairs import Files, files_of, is_mask_folder, mask_stem, others_said, such_as
from glas_wsol.data.spelling import clean, shown, spelt_twice, split_word
from glas_wsol.data.splits import Datalist, Item, parse_fold, split_by_fold, with_validation
from glas_wsol.errors import DatalistError

__all__ = ["IMAGE_KINDS", "find_classes", "folder_datalist", "folders_in"]

IMAGE_KINDS = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
"""The images that are read, in words."""


def find_classes(dataset_dir: str | Path) -> bool:
    """Whether a folder has class folders with images.

    Args:
        dataset_dir: the folder.
    """
    return any(files_of(folder).images for _, folder, _ in _class_folders(Path(dataset_dir)))


def folder_datalist(
    dataset_dir: str | Path, fold: str = "paper", seed: int = 0, label_names: Sequence[str] | None = None
) -> Datalist:
    """Read a folder with one sub-folder of images per class, such as ``benign/a.png`` and ``malignant/b.png``.

    The class folders may also lie in ``images/``, and in folders for train, valid and test (spelt as in `SPLIT_WORDS`),
    which then are the splits. The mask of ``benign/a.png`` is ``a_mask.png`` beside it (or ``a_anno.png`` and the like,
    see `mask_stem`), or lies in a folder of masks: ``masks/benign/a.png``, ``train/masks/benign/a.png`` or
    ``benign/masks/a.png``, of any image suffix. Masks may be missing. Hidden folders and files are left out; whatever
    else is left out is in the warnings.

    Args:
        dataset_dir: the folder.
        fold: ignored where there are folders for train and for valid; otherwise ``"stratified-0"`` to
            ``"stratified-4"``, and ``"paper"`` is the first of them.
        seed: of the folds.
        label_names: class folders in label order; other folders with images are faults. Default: sorted.

    Raises:
        ConfigError: if there is no such fold.
        DatalistError: every fault of the folder at once.
        SplitError: if the folder cannot give this fold, or a class has no training or validation image.
    """
    root = existing(dataset_dir)
    parse_fold(fold)
    homes = _class_folders(root)
    files = {folder: files_of(folder) for _, folder, _ in homes}
    homes = [one for one in homes if files[one[1]].images]
    found = [(path, split) for split, folder, _ in homes for path in files[folder].images]
    lost = [path for path, _ in found if not is_file(path)]
    found = [(path, split) for path, split in found if path not in lost]
    faults = [f"{path.relative_to(root)} is not a file" for path in lost]
    layout = [] if found else [f"no sub-folders with {IMAGE_KINDS} images"]
    places = [(folder.name, folder.relative_to(root).as_posix()) for _, folder, _ in homes]
    faults += spelt_twice([(name, f"folder {shown(place)}") for name, place in places], "class folders", "class")
    present = class_order(None, [clean(name) for name, _ in places])
    classes = class_order(label_names, present)
    if len(homes) > 1 and all(split == "" and split_word(folder.name) for split, folder, _ in homes):
        layout.append(f"the folders {' and '.join(map(repr, present))} are splits and hold no class folders")
    faults += [f"folder {name!r} is none of {', '.join(classes)}" for name in present if name not in classes]
    if len(classes) == 1:
        layout.append(f"the only class folder is {present[0]!r}: learning needs two classes at least")
    first: dict[Path, Path] = {}
    twins = [(first[path.resolve()], path) for path, _ in found if first.setdefault(path.resolve(), path) != path]
    faults += [f"{two.relative_to(root)} is {one.relative_to(root)} once more" for one, two in twins]
    trained = {clean(path.parent.name) for path, split in found if split == "train"}
    for split in ("valid", "test") if trained else ():
        strange = {clean(path.parent.name) for path, where in found if where == split} - trained
        faults += [f"class folder {name!r} is in {split} and not in train" for name in sorted(strange)]
    masks, unused = _masks(root, homes, files)
    for path, _ in found:
        if len(masks[path]) > 1:
            names = " and ".join(str(mask.relative_to(root)) for mask in masks[path])
            faults.append(f"{path.relative_to(root)} has {len(masks[path])} masks, {names}: keep one")
    if faults or layout:
        fix = "make one sub-folder of images per class" if layout else "correct these files and folders"
        raise DatalistError(root, [*layout, *faults], fix)

    base = root / "images" if found[0][0].is_relative_to(root / "images") else root
    names = distinct_names([path for path, _ in found], base)
    parts: dict[str, list[Item]] = defaultdict(list)
    for (path, split), name in zip(found, names, strict=True):
        mask = next(iter(masks[path]), None)
        parts[split].append(Item(path, classes.index(clean(path.parent.name)), name, mask))
    warnings = _passed_over(root, [*files.values()], unused)
    if "" in parts:
        splits = split_by_fold(parts[""], classes, fold, seed, root)
    else:
        splits, more = with_validation(parts, classes, fold, seed, root)
        warnings += more
    return Datalist(root.name, classes, splits, str(root), tuple(warnings))


def _class_folders(root: Path) -> list[tuple[str, Path, Path]]:
    """Folders of classes, each with its split (``""`` where the folders have none) and the folder it lies in."""
    base = root / "images" if any(folders_in(root / "images")) else root
    splits = [folder for folder in folders_in(base) if split_word(folder.name) and any(folders_in(folder))]
    homes = [(split_word(folder.name) or "", folder) for folder in splits] or [("", base)]
    return [(split, folder, home) for split, home in homes for folder in folders_in(home)]


def folders_in(root: Path, masks: bool = False) -> list[Path]:
    """The folders in a folder, without hidden ones and results of runs.

    Args:
        root: the folder.
        masks: whether to list those of masks, or all others.
    """
    found = [path for path in root.iterdir() if path.is_dir() and path.name[0] != "."] if root.is_dir() else []
    found = [path for path in found if is_mask_folder(path.name) == masks and not _is_output(path)]
    return sorted(found, key=lambda path: natural_key(path.name))


def _is_output(folder: Path) -> bool:
    """Whether a run has written here: its pictures are not a class."""
    return any((folder / name).exists() for name in ("evaluation.json", "predictions.csv", "models"))


def _masks(
    root: Path, homes: Sequence[tuple[str, Path, Path]], files: dict[Path, Files]
) -> tuple[dict[Path, list[Path]], list[Path]]:
    """The masks of each image, beside it and in folders of masks, and the files in those that are of no image."""
    base = root / "images" if homes and homes[0][1].is_relative_to(root / "images") else root
    masks: dict[Path, list[Path]] = defaultdict(list)
    for one in files.values():
        masks.update(one.masks)
    places = {folder: folder for _, folder, _ in homes} | {home: home for _, _, home in homes} | {root: base}
    kept: dict[Path, list[Path]] = defaultdict(list)
    for place, beside in places.items():
        for folder in folders_in(place, masks=True):
            below = files_of(folder, recursive=True)
            for path in (*below.images, *below.strays, *(mask for paths in below.masks.values() for mask in paths)):
                above = beside / path.relative_to(folder).parent
                for stem in {path.stem, (mask_stem(path.stem) or ("",))[0]} - {""}:
                    kept[above / stem].append(path)
    used = set()
    for _, folder, _ in homes:
        for image in files[folder].images:
            found = kept.get(image.with_suffix(""), [])
            masks[image] = [*masks[image], *found]
            used.update(found)
    return masks, sorted({path for paths in kept.values() for path in paths} - used)


def _passed_over(root: Path, files: Sequence[Files], unused: Sequence[Path]) -> list[str]:
    """What lies in a folder of classes and is not read, in words."""
    whole = Files()
    for one in files:
        whole.add(one)
    known = {path for paths in whole.masks.values() for path in paths} | {*whole.images, *whole.strays}
    everything = files_of(root, recursive=True)
    loose = [path for path in (*everything.images, *everything.strays) if path not in known]
    loose = [path for path in loose if not any(map(is_mask_folder, path.relative_to(root).parts[:-1]))]
    said = whole.warnings(root)
    if unused:
        said.append(f"{such_as(unused, 'mask', root)} of no image passed over")
    if loose:
        said.append(f"{such_as(loose, 'image', root)} not directly in a class folder passed over")
    tables = [path for path in everything.others if path.parent == root and path.suffix.lower() == ".csv"]
    if tables:
        said.append(f"{such_as(tables, 'table', root)} not read: to use it, give its path in the place of the folder's")
    return said + others_said(everything.others)
