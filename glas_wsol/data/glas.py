# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read GlaS, "Warwick QU Dataset (Released 2016_07_08)": 85 training and 80 test images of colon glands, two grades."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from glas_wsol.data.distributed_files import Bring, Distributed
from glas_wsol.data.files import IMAGE_SUFFIXES, existing, is_file, natural_key
from glas_wsol.data.pairs import mask_stem, others_said
from glas_wsol.data.phantom.folder import MANIFEST
from glas_wsol.data.rows import Row, read_rows
from glas_wsol.data.spelling import clean, spelling_key, spelt_twice
from glas_wsol.data.splits import Datalist, Item, folds_said, parse_fold, possible_folds, split_by_fold
from glas_wsol.errors import DatalistError, SplitError, count
from glas_wsol.transforms.reading.spacing import pixel_size
from glas_wsol.utils.digests import digest_of

__all__ = ["GLAS_CLASSES", "GLAS_DISTRIBUTED", "GLAS_VALID", "find_glas", "glas_datalist", "glas_files"]

GLAS_CLASSES = ("benign", "malignant")
_MPP = 0.62  # of a Zeiss MIRAX MIDI at 20x; the files as distributed do not record it
_NAME = re.compile(r"(train|testA|testB)_[0-9]+")
# The validation images of the paper's fold 0, numbers of train_<n>; the other 67 are for training.
GLAS_VALID = {"malignant": (24, 54, 5, 36, 26, 77, 74, 18, 83, 68), "benign": (38, 72, 65, 51, 12, 63, 2, 52)}
_PAPER_VALID = frozenset(f"train_{number}" for numbers in GLAS_VALID.values() for number in numbers)
_GRADES_SHA256 = [  # of names and labels of the other 67, and of these 18
    "3df7a6bdc5dbc4447b4f73ffd6d5477879e4e2847b5c0791e23ba2616498f45a",
    "2bf181cdd66d1edbad6cceedc30f23073ed375477e18b0060abfd5612452f01a",
]
_PAPER_NAMES = frozenset(f"train_{number}" for number in range(1, 86))


def find_glas(dataset_dir: str | Path) -> Path | None:
    """The folder with ``Grade.csv``: this one, or the only sub-folder that has one; None where there is neither."""
    root = Path(dataset_dir)
    if is_file(root / "Grade.csv"):
        return root
    below = list(root.glob("*/Grade.csv")) if root.is_dir() else []
    return below[0].parent if len(below) == 1 else None


def glas_datalist(dataset_dir: str | Path, fold: str = "paper", seed: int = 0) -> Datalist:
    """Read GlaS as it is distributed: ``train_1.bmp``, ``train_1_anno.bmp``, ..., ``Grade.csv`` in one folder.

    Args:
        dataset_dir: that folder, or the one that holds it.
        fold: ``"paper"``: the 67 + 18 images of the paper's fold 0, which has some patients on both sides;
            ``"patient-0"`` to ``"patient-4"``: no patient is on both sides; ``"stratified-0"`` to ``"stratified-4"``.
        seed: for all folds but the paper's.

    Returns:
        Splits train, valid and, if there are test images, test (testA, then testB). The group is the patient; the
        test split is the challenge's own whatever the fold, and may share patients with training. The images of GlaS
        itself have 0.62 um per pixel where their files do not say another size.

    Raises:
        ConfigError: if there is no such fold.
        DatalistError: every fault of the folder and ``Grade.csv`` at once.
        SplitError: if the folder cannot give this fold; it names those that it can give.
    """
    root = find_glas(existing(dataset_dir))
    if root is None:
        raise DatalistError(dataset_dir, ["no Grade.csv here or in one folder below"], "point at the GlaS folder")
    scheme, _ = parse_fold(fold)
    faults: list[str] = []
    images, masks = glas_files(root, faults)
    known = {*images.values(), *masks.values(), root / "Grade.csv", root / MANIFEST}
    others = [path for path in sorted(root.iterdir()) if path.is_file() and path not in known and path.name[0] != "."]
    grades = _grades(root / "Grade.csv", faults)
    # Test grades without any test image are how the data looks before the test part is fetched.
    tested = any(name.startswith("test") for name in images)
    missing = [name for name in grades if name not in images and (tested or name.startswith("train"))]
    faults += [f"Grade.csv line {grades[name].line}: no image of {name}" for name in missing]
    faults += [f"{images[name].name} has no grade in Grade.csv" for name in images if name not in grades]
    if not images:
        faults = ["no image named train_1.bmp, testA_1.bmp or the like"]
    if faults:
        raise DatalistError(root, faults, "compare the folder with the data set as it was distributed")

    found = [
        Item(
            image,
            GLAS_CLASSES.index(grades[name]["grade"]),
            name,
            masks.get(name),
            clean(grades[name].get("patient", "")) or None,
        )
        for name, image in images.items()
    ]
    train = [item for item in found if item.name.startswith("train")]
    splits: dict[str, tuple[Item, ...]] = {"test": tuple(item for item in found if not item.name.startswith("train"))}
    said = others_said(others)
    whole = {item.name for item in train} == _PAPER_NAMES
    if train and scheme == "paper" and not whole and is_file(root / MANIFEST):  # a phantom of any size can be used
        fold = next(iter(possible_folds(train, GLAS_CLASSES, seed)), "stratified-0")
        scheme = ""
        said.append(f"the paper's fold is of 85 tiles, this phantom has {len(train)}: fold {fold} is taken")
    if train and scheme == "paper":
        if not whole:
            lacking = sorted(_PAPER_NAMES - {item.name for item in train}, key=natural_key)
            which = f"there are {len(train)}"
            if lacking:
                which = f"{count(len(lacking), 'of them is', 'of them are')} missing, such as {lacking[0]}"
            what = f"the paper's fold is made of train_1 to train_85, and {which}"
            raise SplitError(what, root, folds_said(train, GLAS_CLASSES, seed))
        splits["train"] = tuple(item for item in train if item.name not in _PAPER_VALID)
        splits["valid"] = tuple(item for item in train if item.name in _PAPER_VALID)
    elif train:
        splits |= split_by_fold(train, GLAS_CLASSES, fold, seed, root)
    name = _name(train, root)
    if name == "GlaS":
        splits = {split: tuple(map(_sized, items)) for split, items in splits.items()}
    return Datalist(name, GLAS_CLASSES, splits, str(root), tuple(said))


def _sized(item: Item) -> Item:
    return item if pixel_size(item.image).mpp else replace(item, mpp=_MPP)


def _name(train: Sequence[Item], root: Path) -> str:
    """``GlaS`` where the training images have the names and grades of GlaS: its figures hold for no other set."""
    parts = ([item for item in train if (item.name in _PAPER_VALID) == valid] for valid in (False, True))
    found = [digest_of([[item.name, item.label] for item in part]) for part in parts]
    return "GlaS" if found == _GRADES_SHA256 else f"{root.name} (layout of GlaS)"


def glas_files(root: Path, faults: list[str]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks by image name, in the order of their numbers; ``faults`` receives those that are there twice."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for path in sorted(root.iterdir(), key=lambda path: natural_key(path.name)):
        base = mask_stem(path.stem)
        name = base[0] if base else path.stem
        if path.suffix.lower() not in IMAGE_SUFFIXES or not _NAME.fullmatch(name) or not is_file(path):
            continue
        kept = images if name == path.stem else masks
        if name in kept:
            what = "the same image twice" if kept is images else "two masks of one image"
            faults.append(f"{kept[name].name} and {path.name} are {what}")
        kept[name] = path
    return {name: images[name] for name in sorted(images, key=natural_key)}, masks


def _grades(path: Path, faults: list[str]) -> Mapping[str, Row]:
    """Rows of Grade.csv by image name, with the keys ``name``, ``patient`` and ``grade`` (a class)."""

    def meaning(header: list[str]) -> dict[str, int]:
        # " grade (GlaS)" stands beside " grade (Sirinukunwattana et al. 2015)", which has other classes
        titles = ["" if "2015" in title else title for title in header]
        found = {key: [i for i, title in enumerate(titles) if key in title] for key in ("name", "patient", "grade")}
        return {"name": 0} | {key: columns[0] for key, columns in found.items() if columns}

    grades: dict[str, Row] = {}
    for row in read_rows(path, ("name", "grade"), faults, meaning=meaning, where="Grade.csv "):
        name = row["name"]
        name = name[: name.rindex(".")] if Path(name).suffix.lower() in IMAGE_SUFFIXES else name
        row["grade"] = spelling_key(row["grade"])
        if not name or not row["grade"]:
            continue  # reported as blank
        if not _NAME.fullmatch(name):
            faults.append(f"Grade.csv line {row.line}: {name!r} is not train_N, testA_N or testB_N")
        elif name in grades:
            faults.append(f"Grade.csv line {row.line}: {name} again, after line {grades[name].line}")
        elif row["grade"] not in GLAS_CLASSES:
            grades[name] = row
            faults.append(f"Grade.csv line {row.line}: grade {row['grade']!r} of {name} is not benign or malignant")
        else:
            grades[name] = row
    patients = [(row["patient"], f"Grade.csv {row.place}") for row in grades.values() if row.get("patient")]
    faults += spelt_twice(patients, "patients", "patient")
    return grades


def _glas_faults(root: Path, counts: Mapping[str, int]) -> list[str]:
    faults: list[str] = []
    images, masks = glas_files(root, faults)
    names = [f"{part}_{number}" for part, count in counts.items() for number in range(1, count + 1)]
    faults += [f"{name}.bmp is missing" for name in names if name not in images]
    faults += [f"{name}_anno.bmp is missing" for name in names if name not in masks]
    strange = sorted({*images, *masks} - {*names}, key=natural_key)
    faults += [f"{name} is none of the {len(names)} images" for name in strange]
    if not faults:
        try:
            glas_datalist(root)
        except DatalistError as error:
            faults += error.faults
    return faults


def _lay_out(root: Path, whole: Path, _: Sequence[Path], bring: Callable[[Path], Bring]) -> None:
    whole.mkdir(parents=True)
    images, masks = glas_files(root, [])
    for path in (root / "Grade.csv", *images.values(), *masks.values()):
        bring(path)(str(path), str(whole / path.name))


def _pairs(root: Path) -> list[tuple[Path, Path | None]]:
    images, masks = glas_files(root, [])
    return [(path, masks.get(name)) for name, path in images.items()]


GLAS_DISTRIBUTED = Distributed(
    "GlaS",
    'University of Warwick, TIA Centre, page "GlaS@MICCAI\'2015: Gland Segmentation Challenge Contest": '
    "Warwick QU Dataset (Released 2016_07_08), one zip",
    {"train": 85, "testA": 60, "testB": 20},
    ("Grade.csv",),
    _glas_faults,
    _lay_out,
    _pairs,
)
