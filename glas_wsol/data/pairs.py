# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Sort the files of a folder: which are images, which are masks of them, and which are neither."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glas_wsol.data.files import IMAGE_SUFFIXES, natural_key
from glas_wsol.errors import DatalistError, count

__all__ = ["Files", "files_of", "is_mask_folder", "mask_stem", "others_said", "such_as"]

# The first words never name an image; the others may, where there is no image that they would be the mask of.
_SURE = r"masks?|anno|annotations?"
_WORD = rf"(?P<sure>{_SURE})|segm?|segmentations?|gt|ground[ _-]?truth"
_AFTER = re.compile(rf"(?P<base>.+?)[ _.-]+({_WORD})[ _.-]?\d*", re.IGNORECASE)
_BEFORE = re.compile(rf"({_WORD})[ _.-]+(?P<base>.+)", re.IGNORECASE)
_FOLDER = re.compile(rf"{_SURE}|segm?|segmentations?|gt|ground[ _-]?truth", re.IGNORECASE)
_IMAGE_WORD = re.compile(r"[ _.-]+(image|img)$", re.IGNORECASE)
_SYSTEM = ("thumbs.db", "desktop.ini")


@dataclass
class Files:
    """The files of a folder.

    Attributes:
        images: in natural order.
        masks: the masks beside each image.
        strays: files named like masks, without an image.
        doubtful: images that are named like masks, but lie beside no image that they would belong to.
        others: files that are no images.
    """

    images: list[Path] = field(default_factory=list)
    masks: dict[Path, list[Path]] = field(default_factory=dict)
    strays: list[Path] = field(default_factory=list)
    doubtful: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)

    def add(self, more: Files) -> None:
        """Add the files of another folder.

        Args:
            more: those files.
        """
        self.masks |= more.masks
        for name in ("images", "strays", "doubtful", "others"):
            getattr(self, name).extend(getattr(more, name))

    def warnings(self, root: Path) -> list[str]:
        """Warnings about these files, but for the others, in words.

        Args:
            root: the folder that names are given below.
        """
        said = []
        if self.strays:
            said.append(f"{such_as(self.strays, 'mask', root)} without an image of that name passed over")
        if self.doubtful:
            which = such_as(self.doubtful, "file", root)
            said.append(f"{which} named like a mask and taken as an image: if it is a mask, move it to another folder")
        stems = defaultdict(list)
        for path in self.images:
            stems[path.with_suffix("")].append(path)
        same = [paths for paths in stems.values() if len(paths) > 1]
        if same:
            names = " and ".join(path.relative_to(root).as_posix() for path in same[0])
            more = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
            said.append(f"{names} are taken as two images{more}: if one is a mask, move it to another folder")
        return said


def such_as(paths: Sequence[Path], noun: str, root: Path) -> str:
    """How many files, and the name of the first.

    Args:
        paths: at least one.
        noun: what they are, in the singular.
        root: the folder that names are given below.
    """
    path = paths[0]
    name = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
    return f"{count(len(paths), noun)},{' such as' if len(paths) > 1 else ''} {name},"


def others_said(others: Sequence[Path]) -> list[str]:
    """A sentence on files that are no images; none where there are none.

    Args:
        others: those files.
    """
    if not others:
        return []
    kinds = [suffix for suffix, _ in Counter(path.suffix.lower() or "no suffix" for path in others).most_common()]
    more = ", ..." if len(kinds) > 6 else ""
    return [f"{count(len(others), 'other file')} passed over ({', '.join(kinds[:6])}{more})"]


def mask_stem(stem: str) -> tuple[str, bool] | None:
    """From a mask's name without suffix, that of its image, and whether no image would be named so; None for others.

    ``x_mask``, ``x-anno``, ``x.seg``, ``x gt``, ``x_mask_2`` and ``mask_x`` are named like masks of ``x``.

    Args:
        stem: a file's name without suffix.
    """
    found = _AFTER.fullmatch(stem) or _BEFORE.fullmatch(stem)
    return (found["base"], found["sure"] is not None) if found else None


def is_mask_folder(name: str) -> bool:
    """Whether a folder of this name holds masks: ``masks``, ``annotations``, ``segmentation``, ``gt`` and the like.

    Args:
        name: of the folder.
    """
    return _FOLDER.fullmatch(name.strip()) is not None


def files_of(folder: Path, recursive: bool = False, leave_out: Path | None = None) -> Files:
    """Look at the files of a folder, without hidden ones.

    A link that leads nowhere is an image too: to leave it out would lose an image in silence.

    Args:
        folder: the folder.
        recursive: whether to look into the folders below too, but not into folders of masks.
        leave_out: a folder to leave out.

    Raises:
        DatalistError: if a folder cannot be read.
    """

    def refuse(error: OSError) -> None:  # by default, os.walk skips what it cannot read
        raise DatalistError(error.filename, [f"it cannot be read ({error.strerror})"], "change its permissions")

    found = Files()
    for above, folders, names in os.walk(folder, onerror=refuse):
        here = [Path(above, name) for name in names if name[0] != "." and name.lower() not in _SYSTEM]
        folders[:] = [name for name in folders if recursive and name[0] != "."]
        if leave_out is not None:
            folders[:] = [name for name in folders if Path(above, name).resolve() != leave_out]
        if above != str(folder) and any(is_mask_folder(part) for part in Path(above).relative_to(folder).parts):
            found.strays += [path for path in here if path.name.lower().endswith(IMAGE_SUFFIXES)]
            continue
        _sort_into(found, here)
    for paths in (found.images, found.strays, found.doubtful, found.others):
        paths.sort(key=lambda path: natural_key(path.relative_to(folder).as_posix()))
    return found


def _sort_into(found: Files, paths: Iterable[Path]) -> None:
    images = [path for path in paths if path.name.lower().endswith(IMAGE_SUFFIXES)]
    found.others += [path for path in paths if not path.name.lower().endswith(IMAGE_SUFFIXES)]
    named: dict[str, list[Path]] = defaultdict(list)
    for path in images:
        for stem in {path.stem.casefold(), _IMAGE_WORD.sub("", path.stem.casefold())}:
            named[stem].append(path)
    for path in images:
        base, sure = mask_stem(path.stem) or ("", False)
        owners = named.get(base.casefold(), []) if base else []
        for owner in owners:
            found.masks.setdefault(owner, []).append(path)
        if base and sure and not owners:
            found.strays.append(path)
        elif not owners:
            found.images.append(path)
            found.doubtful += [path] if base else []
