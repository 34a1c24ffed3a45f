# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Warn of patients and of image bytes that are where they make figures too good: in two splits, or in two classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

from glas_wsol.data.spelling import spelling_key
from glas_wsol.data.splits import Datalist, Item, possible_folds
from glas_wsol.errors import count
from glas_wsol.utils.digests import sha256_of

__all__ = ["leaks"]

_BLOCK = 4096  # bytes in the middle of a file, where images differ


def leaks(datalist: Datalist) -> list[str]:
    """A sentence for each kind of leak, with an example.

    Args:
        datalist: a patient in two of its splits, the same bytes in two splits, and the same bytes in two classes are
            looked for. Files are read only where their sizes are equal, and whole only where a block in them is too.
    """
    return [*_patients(datalist), *_bytes(datalist)]


def _patients(datalist: Datalist) -> list[str]:
    said = []
    for one, other in combinations(datalist.splits, 2):
        first, second = ({spelling_key(i.group): i for i in datalist.splits[s] if i.group} for s in (one, other))
        both = [(first[key], second[key]) for key in first if key in second]
        if not both:
            continue
        a, b = both[0]
        fix = ""
        if other == "valid":
            items = [*datalist.splits[one], *datalist.splits[other]]
            works = [fold for fold in possible_folds(items, datalist.classes) if fold.startswith("patient")]
            few = "; a class has too few patients for a fold by patient"
            fix = f": choose the fold {works[0]} (to {works[-1]})" if works else few
        what = f"{count(len(both), 'patient has', 'patients have')} images in both {one} and {other}"
        said.append(f"{what}, such as {a.group!r} ({a.name}, {b.name}), so figures of {other} are too good{fix}")
    return said


def _bytes(datalist: Datalist) -> list[str]:
    root = Path(datalist.source)
    root = root if root.is_dir() else root.parent
    found = [(split, item) for split, items in datalist.splits.items() for item in items]
    splits, classes = [], []
    for same in _same([item.image for _, item in found]):
        (one, a), *others = [found[index] for index in same]
        apart = next(((split, b) for split, b in others if split != one), None)
        if apart:
            splits.append(f"{_name(a, root)} (in {one}) and {_name(apart[1], root)} (in {apart[0]})")
        apart = next((b for _, b in others if b.label != a.label), None)
        if apart:
            named = [";".join(datalist.classes[label] for label in item.labels) for item in (a, apart)]
            classes.append(f"{_name(a, root)} ({named[0]}) and {_name(apart, root)} ({named[1]})")
    ends = ("in two splits, so figures are too good: keep one", "under two classes, of which one is wrong: keep one")
    said = []
    for pairs, end in zip((splits, classes), ends, strict=True):
        more = f" (and {count(len(pairs) - 1, 'more such pair')})" if len(pairs) > 1 else ""
        said += [f"{pairs[0]} are the same image, byte for byte{more}, {end}"] if pairs else []
    return said


def _name(item: Item, root: Path) -> str:
    return (item.image.relative_to(root) if item.image.is_relative_to(root) else item.image).as_posix()


def _same(paths: Sequence[Path]) -> list[list[int]]:
    """Positions of files with the same bytes, where there are two or more."""
    groups: list[list[int]] = [[*range(len(paths))]]
    for key in (_size, _block, sha256_of):
        groups = [more for group in groups for more in _parted(paths, group, key)]
    return groups


def _parted(paths: Sequence[Path], group: Sequence[int], key: Callable[[Path], Any]) -> list[list[int]]:
    parts: dict[Any, list[int]] = defaultdict(list)
    for index in group:
        with suppress(OSError):  # reading the images says what is wrong with it
            parts[key(paths[index])].append(index)
    return [part for found, part in parts.items() if found and len(part) > 1]  # an empty file is no image


def _size(path: Path) -> int:
    return path.stat().st_size


def _block(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, _size(path) - _BLOCK) // 2)
        return file.read(_BLOCK)
