# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read CUB-200-2011: birds of 200 species, and CUB5, the five species of the paper."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from glas_wsol.data.distributed_files import Bring, Distributed
from glas_wsol.data.files import existing, is_file
from glas_wsol.data.phantom.folder import MANIFEST
from glas_wsol.data.spelling import spelling_key, spelt_twice
from glas_wsol.data.splits import Datalist, Item, folds_said, parse_fold, split_by_fold
from glas_wsol.errors import ConfigError, DatalistError, SplitError

__all__ = ["CUB5_CLASSES", "CUB5_VALID", "CUB_DISTRIBUTED", "cub_datalist", "find_cub"]

CUB5_CLASSES: tuple[str, ...] = (
    "019.Gray_Catbird",
    "171.Myrtle_Warbler",
    "108.White_necked_Raven",
    "099.Ovenbird",
    "178.Swainson_Warbler",
)
# The paper's validation images by class. Their files are matched by these trailing numbers, because the case of a name
# differs between a folder and its files (White_necked_Raven, White_Necked_Raven).
CUB5_VALID = {
    species: tuple(numbers.split())
    for species, numbers in zip(
        CUB5_CLASSES,
        (
            "0118_20476 0127_20034 0134_20596 0023_20668 0100_20674 0091_20416",
            "0103_166963 0059_166946 0043_166708 0007_166897 0101_166942 0107_166917",
            "0027_797355 0053_797360 0063_797361 0010_797350 0020_102730 0018_102746",
            "0035_92785 0059_92470 0027_93086 0137_92639 0077_92590 0064_93208",
            "0004_794874 0039_794859 0019_174692 0048_794887 0047_794870 0034_794890",
        ),
        strict=True,
    )
}
_ALL_IMAGES = 11_788  # of CUB-200-2011; its published figures hold for no other set
_TABLES = ("classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt")


def find_cub(dataset_dir: str | Path) -> Path | None:
    """The folder with ``images.txt`` and ``classes.txt``: this one or ``CUB_200_2011`` in it; None without either."""
    root = Path(dataset_dir)
    for place in (root, root / "CUB_200_2011"):
        if is_file(place / "images.txt") and is_file(place / "classes.txt"):
            return place
    return None


def cub_datalist(
    dataset_dir: str | Path, classes: str | Sequence[str] = "cub5", fold: str = "paper", seed: int = 0
) -> Datalist:
    """Read CUB-200-2011 as it is distributed. Masks are in ``segmentations/``, in this folder or beside it.

    Args:
        dataset_dir: the folder ``CUB_200_2011``, or the one that holds it.
        classes: ``"cub5"``, the paper's five in its order; ``"all"``, in the order of ``classes.txt``; or names, with
            or without their number, in label order.
        fold: ``"paper"``: for CUB5 the paper's 120 + 30 images, otherwise ``"stratified-0"``; ``"stratified-0"`` to
            ``"stratified-4"``: a fifth of the official training images is the validation.

    Returns:
        Splits train, valid and test, the last of which is the official test split (145 images for CUB5). It is named
        ``"CUB5"`` where the classes are the paper's, ``"CUB200"`` where they are all, after them where images lack.

    Raises:
        ConfigError: if there is no such fold or class.
        DatalistError: every fault of the folder at once.
        SplitError: if the folder cannot give this fold; it names those that it can give.
    """
    root = find_cub(existing(dataset_dir))
    if root is None:
        looked = "neither here nor in CUB_200_2011/ are images.txt and classes.txt"
        raise DatalistError(dataset_dir, [looked], "point at the folder CUB_200_2011")
    parse_fold(fold)
    faults = [f"{name} is missing" for name in _TABLES if not is_file(root / name)]
    if faults:
        raise DatalistError(root, faults, "unpack the data set again")
    titles, files, labels, uses = (_numbered(root / name, faults) for name in _TABLES)
    faults += [f"images.txt: image {number} has no class" for number in files if number not in labels]
    faults += [f"images.txt: image {number} is in no split" for number in files if uses.get(number) not in ("0", "1")]
    faults += [
        f"image_class_labels.txt: no class {n!r} in classes.txt" for n in sorted({*labels.values()} - {*titles, ""})
    ]
    faults += spelt_twice([(name, f"classes.txt class {n}") for n, name in titles.items()], "classes", "class")
    if faults:
        raise DatalistError(root, faults, "unpack the data set again")

    chosen = _chosen(classes, titles, root)
    homes = [place for place in (root / "segmentations", root.parent / "segmentations") if place.is_dir()]
    parts: dict[str, list[Item]] = {"0": [], "1": []}
    for number, file in files.items():
        if labels[number] not in chosen:
            continue
        image = root / "images" / file
        if not is_file(image):
            faults.append(f"images/{file} is missing")
            continue
        mask = next((place / Path(file).with_suffix(".png") for place in homes), None)
        label = chosen.index(labels[number])
        parts[uses[number]].append(Item(image, label, image.stem, mask if mask and is_file(mask) else None))
    repeated = Counter(item.name for part in parts.values() for item in part)
    faults += [f"{count} images are named {name}" for name, count in repeated.items() if count > 1]
    if faults:
        raise DatalistError(root, faults, "unpack the data set again")
    names = tuple(titles[number] for number in chosen)
    official, warnings = parts["1"], []
    # Five other birds are not CUB5: its published figures do not hold for them.
    title = {CUB5_CLASSES: "CUB5"}.get(names, "CUB200" if len(names) == 200 else f"CUB ({len(names)} classes)")
    if len(files) != _ALL_IMAGES:
        title = f"{root.name} (layout of {title})"
    if classes == "cub5" and fold == "paper":
        valid = [
            item
            for item in official
            if "_".join(item.name.split("_")[-2:]) in CUB5_VALID[names[cast("int", item.label)]]
        ]
        wanted = sum(map(len, CUB5_VALID.values()))
        drawn = is_file(root / MANIFEST)  # a phantom of any size can be used
        if drawn and len(valid) < wanted:
            warnings.append(f"the paper has {wanted} validation images, this phantom {len(valid)} of their names")
        elif len(valid) != wanted:
            what = f"{len(valid)} of the paper's {wanted} validation images are among the training images"
            raise SplitError(what, root, folds_said(official, names, seed))
        held = set(valid)
        splits = {"train": tuple(item for item in official if item not in held), "valid": tuple(valid)}
    else:
        splits = split_by_fold(official, names, fold, seed, root)
    return Datalist(title, names, splits | {"test": tuple(parts["0"])}, str(root), tuple(warnings))


def _numbered(path: Path, faults: list[str]) -> dict[str, str]:
    """Lines of ``<number> <text>``."""
    found: dict[str, str] = {}
    for line, text in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        number, _, rest = text.strip().partition(" ")
        if not text.strip():
            continue
        if not rest or number in found:
            fault = "comes twice" if rest else "is not a number and a value"
            faults.append(f"{path.name} line {line}: {number if rest else text!r} {fault}")
        found.setdefault(number, rest.strip())
    return found


def _chosen(classes: str | Sequence[str], titles: dict[str, str], root: Path) -> list[str]:
    """Numbers of the chosen classes, in label order."""
    if classes == "all":
        return list(titles)
    if isinstance(classes, str) and classes != "cub5":
        raise ConfigError(f"there are no classes {classes!r}", "classes", 'use "cub5", "all" or a list of names')
    known = {spelling_key(title): number for number, title in titles.items()}
    known |= {spelling_key(title.partition(".")[2]): number for number, title in titles.items() if "." in title}
    chosen = []
    for name in map(str, CUB5_CLASSES if classes == "cub5" else classes):
        if spelling_key(name) not in known:
            near = difflib.get_close_matches(spelling_key(name), known, n=1)
            hint = f"did you mean {titles[known[near[0]]]!r}?" if near else "choose names of classes.txt"
            raise ConfigError(f"there is no class {name!r}", root / "classes.txt", hint)
        chosen.append(known[spelling_key(name)])
    if len(set(chosen)) != len(chosen) or len(chosen) < 2:
        raise ConfigError("classes must be two or more different ones", "classes", "correct the list")
    return chosen


def _cub_faults(root: Path, wanted: Mapping[str, int]) -> list[str]:
    try:
        found = cub_datalist(root, "all")
    except DatalistError as error:
        return list(error.faults)
    items = [item for split in found.splits.values() for item in split]
    test = len(found.splits.get("test", ()))
    counts = {"training images": len(items) - test, "test images": test, "classes": len(found.classes)}
    faults = [f"{part}: {counts[part]} instead of {n}" for part, n in wanted.items() if counts[part] != n]
    if (root / "segmentations").is_dir():
        faults += [f"segmentations: no mask of {item.name}" for item in items if item.mask is None]
    return faults


def _lay_out(root: Path, whole: Path, places: Sequence[Path], bring: Callable[[Path], Bring]) -> None:
    whole.parent.mkdir(parents=True, exist_ok=True)
    bring(root)(str(root), str(whole))
    if not (whole / "segmentations").is_dir():
        masks = [path for place in places for path in sorted(place.rglob("segmentations")) if path.is_dir()]
        for path in masks[:1]:
            bring(path)(str(path), str(whole / "segmentations"))


def _pairs(root: Path) -> list[tuple[Path, Path | None]]:
    files = sorted((root / "images").rglob("*.jpg"))
    masks = [root / "segmentations" / path.relative_to(root / "images").with_suffix(".png") for path in files]
    return [(path, mask if is_file(mask) else None) for path, mask in zip(files, masks, strict=True)]


CUB_DISTRIBUTED = Distributed(
    "CUB-200-2011",
    'California Institute of Technology, page "Caltech-UCSD Birds-200-2011": CUB_200_2011.tgz and, for the masks, '
    "segmentations.tgz",
    {"training images": 5994, "test images": 5794, "classes": 200},
    ("images.txt", "classes.txt"),
    _cub_faults,
    _lay_out,
    _pairs,
)
