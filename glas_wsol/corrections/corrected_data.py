# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Lay corrected masks on a data set: they are truth for training, and their patients are not evaluated."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from glas_wsol.data.damage import damaged
from glas_wsol.data.files import MASK_SUFFIXES, log_warnings, natural_key
from glas_wsol.data.pairs import mask_stems
from glas_wsol.data.spelling import spelling_key
from glas_wsol.data.splits import Datalist, Item
from glas_wsol.errors import DatalistError, count
from glas_wsol.utils.digests import sha256_of

__all__ = ["corrected_datalist", "correction_digests"]


def corrected_datalist(datalist: Datalist, corrections: str | Path) -> Datalist:
    """The data set whose training images have masks where these are corrected, and no others.

    Args:
        datalist: images with labels; masks of its training images are left out.
        corrections: folder of masks, of outlines or pixels, each named after its training image (``name.geojson``), as
            the files of results are, or after the image's file.

    Returns:
        With how many images are corrected. In the other splits, images of patients with a corrected
        image are left out, which is a warning.

    Raises:
        DatalistError: if there is no correction, or any that is damaged, of no training image, or of one that has two.
        SplitError: see :class:`~glas_wsol.data.splits.Datalist`.
    """
    root = Path(corrections)
    if not root.is_dir():
        raise DatalistError(corrections, ["there is no such folder"], "give the folder of the corrected masks")
    found = sorted(path for path in root.iterdir() if path.name.lower().endswith(MASK_SUFFIXES))
    if not found:
        raise DatalistError(root, ["no corrected mask is in it"], "put NAME.geojson there, or use train without any")
    masks, faults = _matched(datalist, found)
    train = [replace(item, mask=masks.get(item.name)) for item in datalist.splits["train"]]
    faults += damaged([(item.image, item.mask) for item in train if item.mask])
    if faults:
        raise DatalistError(root, faults, "correct, rename or delete these files")
    patients = {spelling_key(item.group) for item in train if item.mask and item.group}
    splits, left_out = {"train": tuple(train)}, []
    for split, items in datalist.splits.items():
        if split != "train":
            splits[split] = tuple(item for item in items if not item.group or spelling_key(item.group) not in patients)
            left_out += [f"{len(items) - len(splits[split])} of {split}"] if len(items) > len(splits[split]) else []
    said = count(len(masks), "corrected tile")
    warnings = [f"{said}: images of their patients are not evaluated ({', '.join(left_out)})"] if left_out else []
    if not patients:
        warnings = [f"{said}: their patients are not known, so images of the same patients may be evaluated"]
    log_warnings(root, warnings)
    said_before = datalist.warnings
    common = datalist.name, datalist.classes, splits, datalist.source, (*said_before, *warnings), datalist.synthetic
    return Datalist(*common, corrected=len(masks))


def correction_digests(datalist: Datalist) -> dict[str, str]:
    """SHA-256 of the corrected mask's file of every image that has one, by its name."""
    return {item.name: sha256_of(item.mask) for item in datalist.splits["train"] if item.mask}


def _matched(datalist: Datalist, found: list[Path]) -> tuple[dict[str, Path], list[str]]:
    known: dict[str, list[tuple[str, Item]]] = defaultdict(list)
    for split, items in datalist.splits.items():
        for item in items:
            for key in {item.name.casefold(), item.image.stem.casefold()}:
                known[key].append((split, item))
    masks: dict[str, Path] = {}
    faults = []
    for path in sorted(found, key=lambda path: natural_key(path.name)):
        owners = {item.name: split for stem in mask_stems(path) for split, item in known.get(stem.casefold(), [])}
        others = sorted({split for split in owners.values() if split != "train"})
        trained = [name for name, split in owners.items() if split == "train"]
        if not owners:
            faults.append(f"{path.name} is named after no image")
        elif others and not trained:
            faults.append(
                f"{path.name} is of an image of {others[0]}, which is evaluated: choose a fold that trains on it"
            )
        elif len(owners) > 1:
            faults.append(f"{path.name} may be of {len(owners)} images: name it {trained[0]}{path.suffix}")
        elif trained[0] in masks:
            faults.append(f"{path.name} and {masks[trained[0]].name} are of one image: keep one")
        else:
            masks[trained[0]] = path
    return masks, faults
