# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Define the datalist that every reader returns, and the folds that divide its training images for validation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from glas_wsol.data.spelling import split_word
from glas_wsol.errors import ConfigError, SplitError, count, readable
from glas_wsol.utils.digests import digest_of
from glas_wsol.utils.labels import multi_hot

__all__ = [
    "BOX",
    "FOLDS",
    "SPLITS",
    "Datalist",
    "Item",
    "folds_said",
    "parse_fold",
    "possible_folds",
    "split_by_fold",
    "with_validation",
]

FOLDS = 5
SPLITS = ("train", "valid", "test")
BOX = "box"
"""Key of an item: its official box."""
_COLUMNS_SHOWN = 8  # summary() counts class by class up to this many classes


@dataclass(frozen=True)
class Item:
    """One image with its label; ``mask``, ``box``, ``group`` (a patient), ``mpp``, ``source`` (laboratory) where known.

    The label is a class index; where an image may have several classes, the tuple of their indices, rising. ``mpp`` are
    micrometres per pixel, which count before those that the image's file records. ``box`` is the official one around
    the object: left, top, right and bottom edge, px.
    """

    image: Path
    label: int | tuple[int, ...]
    name: str
    mask: Path | None = None
    group: str | None = None
    mpp: float | None = None
    source: str | None = None
    box: tuple[float, float, float, float] | None = None

    @property
    def labels(self) -> tuple[int, ...]:
        """Indices of the classes the image has, one or several."""
        return self.label if isinstance(self.label, tuple) else (self.label,)


@dataclass(frozen=True)
class Datalist:
    """Images with labels, in splits.

    Args:
        name: the data set, such as ``"GlaS"``.
        classes: class names in label order.
        splits: the splits that exist, of ``"train"``, ``"valid"`` and ``"test"``.
        source: where it was read.
        warnings: what to know before using it, a sentence each; ignored in comparisons.
        synthetic: what drawn images show, ``"tissue"`` or ``"birds"``; empty (default) where they are not drawn.
        corrected: of how many training images a person has corrected the mask for training. Defaults to 0.

    Raises:
        SplitError: where a class has no training or no validation image (a small test split may lack one).
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Item, ...]]
    source: str
    warnings: tuple[str, ...] = field(default=(), compare=False)
    synthetic: str = ""
    corrected: int = 0

    def __post_init__(self) -> None:
        splits = {split: tuple(self.splits[split]) for split in SPLITS if self.splits.get(split)}
        for split in ("train", "valid"):
            absent = _absent(splits[split], self.classes) if split in splits else []
            if absent:
                what = f"the {split} split of {self.name} has no image of {', '.join(map(repr, absent))}"
                raise SplitError(what, self.source, "add such images, or choose another fold")
        object.__setattr__(self, "splits", MappingProxyType(splits))

    def __reduce__(self) -> tuple:  # a mapping proxy can be neither copied nor sent to a worker
        state = (self.name, self.classes, dict(self.splits), self.source, self.warnings, self.synthetic, self.corrected)
        return Datalist, state

    def select(self, split: str, masks: bool = False) -> list[dict]:
        """Items of one split as MONAI reads them.

        Args:
            split: ``"train"``, ``"valid"`` or ``"test"`` (or ``"val"``, ``"training"`` and the like).
            masks: whether to hand out masks and boxes. Off, no item has a ``"mask"`` or ``"box"`` key, so training
                cannot use a pixel label. On, an item has the keys that its image has.

        Returns:
            ``{"image": str, "label": int, "name": str}`` and, where known, ``"mask": str``, ``"box": [4]`` float64
            (left, top, right, bottom), ``"mpp": float``, ``"group": str`` and ``"source": str`` (the last two in all
            items of the split or in none). Where an image may have several classes, the label is a multi-hot array
            ``[c]``, float32.
        """
        items = self._items(split)
        known = [key for key in ("group", "source") if all(getattr(item, key) is not None for item in items)]
        return [
            {"image": str(item.image), "label": self._label(item), "name": item.name}
            | ({"mask": str(item.mask)} if masks and item.mask else {})
            | ({BOX: np.array(item.box)} if masks and item.box else {})
            | {key: getattr(item, key) for key in known}
            | ({"mpp": item.mpp} if item.mpp else {})
            for item in items
        ]

    def digest(self, split: str) -> str:
        """SHA-256 of a split's names and labels, in order: the same data in a moved folder has the same."""
        return digest_of([[item.name, item.label] for item in self._items(split)])

    def rows(self) -> list[list[str]]:
        """Titles, then a row per split: its name, images, images of each class, groups and masks."""
        every_class = len(self.classes) <= _COLUMNS_SHOWN
        rows = [["split", "n", *(self.classes if every_class else ["per class"]), "groups", "masks"]]
        boxed = any(item.box for items in self.splits.values() for item in items)
        rows[0] += ["boxes"] * boxed
        for split, items in self.splits.items():
            labels = Counter(label for item in items for label in item.labels)
            counts = [labels[label] for label in range(len(self.classes))]
            groups = len({item.group for item in items} - {None})
            truths = [sum(item.mask is not None for item in items)]
            truths += [sum(item.box is not None for item in items)] * boxed
            cells = map(str, counts) if every_class else [f"{min(counts)}-{max(counts)}"]
            kept = [{0: "no", len(items): "yes"}.get(some, f"{some} of {len(items)}") for some in truths]
            rows.append([split, str(len(items)), *cells, str(groups or "-"), *kept])
        return rows

    def summary(self) -> str:
        """:meth:`rows` as a short table, and the warnings."""
        rows = [[readable(cell) for cell in row] for row in self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        said = [f"warning: {readable(one)}" for one in self.warnings]
        return "\n".join([f"{self.name}, {len(self.classes)} classes, {self.source}", *lines, *said])

    def _items(self, split: str) -> tuple[Item, ...]:
        items = self.splits.get(split_word(split) or split)
        if items is None:
            fix = f"mark images of every class as {split} in the data, or choose of {', '.join(self.splits)}"
            raise SplitError(f"{self.name} has no {split!r} split", self.source, fix)
        return items

    def _label(self, item: Item) -> int | np.ndarray:
        return multi_hot(item.label, len(self.classes)) if isinstance(item.label, tuple) else item.label


def parse_fold(fold: str) -> tuple[str, int]:
    """Split a fold string: ``"paper"`` -> ``("paper", 0)``, ``"patient-3"`` -> ``("patient", 3)``."""
    scheme, _, number = str(fold).partition("-")
    if fold == "paper":
        return "paper", 0
    if scheme in ("patient", "stratified") and number in map(str, range(FOLDS)):
        return scheme, int(number)
    known = f"paper, patient-0 .. patient-{FOLDS - 1}, stratified-0 .. stratified-{FOLDS - 1}"
    raise ConfigError(f"there is no fold {fold!r}", "fold", f"use one of {known}")


def split_by_fold(
    items: Sequence[Item], classes: Sequence[str], fold: str, seed: int = 0, source: object = ""
) -> dict[str, tuple[Item, ...]]:
    """Divide training images into training and validation: fold k of five is the validation.

    Args:
        items: the images to divide, each name once.
        fold: ``"patient-k"``: no group is on both sides, and classes are balanced as well as the groups allow;
            ``"stratified-k"``: every class is divided evenly, groups disregarded; images of several classes as
            well as that can be;
            ``"paper"``: fold 0 by groups where all images have one, stratified otherwise.
        seed: another seed gives other folds; the order of ``items`` does not.

    Raises:
        ConfigError: if there is no such fold, or the seed is out of range.
        SplitError: if images have no group, or a class would be absent on either side.
    """
    scheme, index = parse_fold(fold)
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError(f"{seed!r} is not a valid seed", "seed", "use a whole number from 0 to 4294967295")
    if not items:
        raise SplitError("there is no training image to divide", source, "add images")
    loose = [item.name for item in items if item.group is None]
    if scheme == "patient" and loose:
        which = "the images have" if len(loose) == len(items) else count(len(loose), "image has", "images have")
        such = "" if len(loose) == len(items) else f", such as {loose[0]}"
        raise SplitError(f"{which} no group to keep together{such}", source, folds_said(items, classes, seed))
    grouped = scheme == "patient" or (scheme == "paper" and not loose)
    fold_of = (_grouped if grouped else _stratified)(items, len(classes), seed)
    splits = {
        "train": tuple(item for item in items if fold_of[item.name] != index),
        "valid": tuple(item for item in items if fold_of[item.name] == index),
    }
    for split, part in splits.items():
        absent = _absent(part, classes)
        if absent:
            what = f"the {split} split of fold {fold!r} has no image of {', '.join(map(repr, absent))}"
            one = {label: {item.group for item in items if label in item.labels} for label in range(len(classes))}
            if grouped and any(name in absent and len(one[label]) == 1 for label, name in enumerate(classes)):
                what += ", whose images are all of one patient"
            raise SplitError(what, source, folds_said(items, classes, seed))
    return splits


def with_validation(
    splits: Mapping[str, Sequence[Item]], classes: Sequence[str], fold: str, seed: int, source: object
) -> tuple[dict[str, tuple[Item, ...]], tuple[str, ...]]:
    """Splits that the data define; where they define train and not valid, a fold of the training images is valid.

    Returns:
        The splits, and warnings. Where the fold is not possible there is no validation, and a warning gives the reason.
    """
    said = {split: tuple(items) for split, items in splits.items()}
    if not said.get("train") or said.get("valid"):
        return said, ()
    try:
        said |= split_by_fold(said["train"], classes, fold, seed, source)
    except SplitError as error:
        return said, (f"no image is for validation, so nothing can be trained: {error.what}: {error.fix}",)
    taken = f"a fifth of the training images is taken ({len(said['valid'])}, fold {fold})"
    return said, (f"no image is for validation: {taken}; to choose yourself, mark images of every class as valid",)


def folds_said(items: Sequence[Item], classes: Sequence[str], seed: int = 0) -> str:
    """What to do when a fold is not possible: the ``patient-k`` and ``stratified-k`` with every class on both sides."""
    counts = Counter(label for item in items for label in item.labels)
    lone = [repr(name) for label, name in enumerate(classes) if counts[label] == 1]
    if lone:
        return f"add images of {', '.join(lone)}, which has one only: training and validation need one each"
    works = possible_folds(items, classes, seed)
    return f"set 'fold' to one of {', '.join(works)}" if works else "add images: no fold has every class on both sides"


def possible_folds(items: Sequence[Item], classes: Sequence[str], seed: int = 0) -> list[str]:
    """The folds with every class on both sides: ``patient-k`` (if every image has a patient), then ``stratified-k``."""
    schemes = {"stratified": _stratified}
    if items and all(item.group is not None for item in items):
        schemes = {"patient": _grouped} | schemes
    works = []
    for scheme, assign in schemes.items():
        fold_of = assign(items, len(classes), seed)
        has = np.zeros((FOLDS, len(classes)), dtype=int)
        for item in items:
            has[fold_of[item.name], list(item.labels)] += 1
        whole = ((has > 0) & (has.sum(axis=0) > has)).all(axis=1)
        works += [f"{scheme}-{index}" for index in np.flatnonzero(whole)]
    return works


def _absent(items: Sequence[Item], classes: Sequence[str]) -> list[str]:
    present = {label for item in items for label in item.labels}
    return [name for label, name in enumerate(classes) if label not in present]


def _stratified(items: Sequence[Item], classes: int, seed: int) -> dict[str, int]:
    """Deal out each class; `monai.data.partition_dataset_classes` does too, but refuses a class of fewer than five."""
    if any(isinstance(item.label, tuple) for item in items):  # no class can be dealt out by itself
        return _grouped([replace(item, group=item.name) for item in items], classes, seed)
    rng, fold_of, cursor = np.random.RandomState(seed), {}, 0
    for label in range(classes):
        names = sorted(item.name for item in items if item.label == label)
        # The deal goes on where the last class ended, so that folds are of one size; a class too small for all folds
        # starts at fold 0, so that the first folds have every class.
        start = cursor if len(names) >= FOLDS else 0
        for place, chosen in enumerate(rng.permutation(len(names))):
            fold_of[names[chosen]] = (start + place) % FOLDS
        cursor = (start + len(names)) % FOLDS
    return fold_of


def _grouped(items: Sequence[Item], classes: int, seed: int) -> dict[str, int]:
    """Deal out whole groups, the most uneven first, each to the fold that stays closest to a fifth of every class."""
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(classes + 1))
    for item in items:
        counts[str(item.group)][[*item.labels, classes]] += 1  # the last column counts images of any class
    groups = sorted(counts)
    share = np.stack([counts[group] for group in groups])
    share /= np.maximum(share.sum(axis=0), 1)
    order = np.random.RandomState(seed).permutation(len(groups))
    order = order[np.argsort(-(share[order] ** 2).sum(axis=1), kind="stable")]
    load, fold = np.zeros((FOLDS, classes + 1)), np.zeros(len(groups), dtype=int)
    for group in order:
        # (load + share)^2 summed over folds is least where load . share is; rounded, a tie goes to the first fold
        fold[group] = np.argmin(np.round(load @ share[group], 9))
        load[fold[group]] += share[group]
    placed = dict(zip(groups, fold.tolist(), strict=True))
    return {item.name: placed[str(item.group)] for item in items}
