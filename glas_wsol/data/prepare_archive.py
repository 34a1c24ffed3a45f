# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A downloaded GlaS or CUB-200-2011 made ready: unpacked, compared with what was distributed, laid out; or nothing."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glas_wsol.data.archives import extract
from glas_wsol.data.cub import cub_datalist
from glas_wsol.data.damage import damaged
from glas_wsol.data.files import is_file, natural_key
from glas_wsol.data.glas import glas_datalist, glas_files
from glas_wsol.data.splits import Datalist
from glas_wsol.errors import FIX_ROOM, ArchiveError, DatalistError, OutputError

__all__ = ["DISTRIBUTED", "Distributed", "prepare"]


@dataclass(frozen=True)
class Distributed:
    """A data set as its authors give it.

    Attributes:
        name: of the data set.
        page: where it is had, in words.
        counts: how many images it has, by part.
        marks: the files by which its folder is known.
    """

    name: str
    page: str
    counts: dict[str, int]
    marks: tuple[str, ...]


DISTRIBUTED = {
    "glas": Distributed(
        "GlaS",
        'University of Warwick, TIA Centre, page "GlaS@MICCAI\'2015: Gland Segmentation Challenge Contest": '
        "Warwick QU Dataset (Released 2016_07_08), one zip",
        {"train": 85, "testA": 60, "testB": 20},
        ("Grade.csv",),
    ),
    "cub": Distributed(
        "CUB-200-2011",
        'California Institute of Technology, page "Caltech-UCSD Birds-200-2011": CUB_200_2011.tgz and, for the masks, '
        "segmentations.tgz",
        {"training images": 5994, "test images": 5794, "classes": 200},
        ("images.txt", "classes.txt"),
    ),
}
_AGAIN = "download it again, from its authors"


def prepare(
    kind: str,
    sources: Sequence[str | Path],
    output: str | Path,
    sha256: str = "",
    progress: bool = False,
    distributed: Distributed | None = None,
) -> tuple[Datalist, bool]:
    """Lay out a data set that was downloaded; what is there already is looked at and left as it is.

    Args:
        kind: ``"glas"`` or ``"cub"``.
        sources: archives, or folders that somebody unpacked, which are copied. CUB-200-2011 comes in two.
        output: the folder to make; it appears when everything is there and was found good.
        sha256: digest that the archive must have; only with one.
        progress: show a bar with the time left.
        distributed: what must be in it. None (default) for what its authors distribute.

    Returns:
        The data set, and whether it was laid out now (False: it was there).

    Raises:
        ArchiveError: if an archive is missing, damaged or unsafe.
        DatalistError: every file that is missing or damaged, and everything else that is not as distributed.
        OutputError: if the folder holds something else, or cannot be written.
    """
    wanted, target = distributed or DISTRIBUTED[kind], Path(output).expanduser().absolute()
    check = {"glas": _glas_faults, "cub": _cub_faults}[kind]
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        if not target.is_dir() or not all(is_file(target / mark) for mark in wanted.marks):
            raise OutputError(f"something else than {wanted.name} is here", target, "name a new folder")
        _refuse(target, check(target, wanted), "name a new folder to prepare it in, or add what is missing")
        return _datalist(kind, target), False
    for source in map(Path, sources):
        if not source.exists():
            raise ArchiveError("nothing is here", source, f"{wanted.name} is had from: {wanted.page}")
        if source.is_dir() and target.is_relative_to(source.absolute()):
            raise OutputError("the new folder lies in the one it is made from", target, "name a folder outside")
        if sha256 and (source.is_dir() or len(sources) > 1):
            raise ArchiveError("a digest is of one archive", source, "leave --sha256 out, or name one archive")
    draft = target.parent / f".{uuid.uuid4().hex}.part"
    try:
        places = [_unpacked(Path(source), draft / str(n), sha256, progress) for n, source in enumerate(sources)]
        whole = _laid_out(kind, wanted, places, draft, sources)
        _refuse(sources[0], [*check(whole, wanted), *_damaged(whole, kind, progress)], _AGAIN)
        try:
            if target.exists():
                target.rmdir()
            whole.rename(target)
        except OSError as error:
            raise OutputError(f"cannot be written ({error.strerror})", target, "choose another folder") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return _datalist(kind, target), True


def _refuse(where: object, faults: list[str], fix: str) -> None:
    if faults:
        raise DatalistError(where, faults, fix)


def _datalist(kind: str, root: Path) -> Datalist:
    return glas_datalist(root) if kind == "glas" else cub_datalist(root, "all")


def _unpacked(source: Path, place: Path, sha256: str, progress: bool) -> Path:
    return source if source.is_dir() else extract(source, place, sha256, progress=progress)


def _laid_out(
    kind: str, wanted: Distributed, places: Sequence[Path], draft: Path, sources: Sequence[str | Path]
) -> Path:
    """The data set's files in one new folder: moved there from what was unpacked, copied from anybody's own."""
    roots = [path.parent for place in places for path in sorted(place.rglob(wanted.marks[0])) if _is_root(path, wanted)]
    if len(roots) != 1:
        said, marks = ", ".join(map(str, sources)), " and ".join(wanted.marks)
        if roots:
            raise DatalistError(said, [f"{len(roots)} folders have {marks}"], "name one of them")
        raise DatalistError(said, [f"no folder has {marks}"], f"{wanted.name} is had from: {wanted.page}")
    (root,), whole = roots, draft / "whole"
    bring = shutil.move if root.is_relative_to(draft) else _copy
    try:
        if kind == "glas":
            whole.mkdir(parents=True)
            images, masks = glas_files(root, [])
            for path in (root / "Grade.csv", *images.values(), *masks.values()):
                bring(str(path), str(whole / path.name))
            return whole
        draft.mkdir(parents=True, exist_ok=True)
        bring(str(root), str(whole))
        if not (whole / "segmentations").is_dir():
            masks = [path for place in places for path in sorted(place.rglob("segmentations")) if path.is_dir()]
            for path in masks[:1]:
                bring = shutil.move if path.is_relative_to(draft) else _copy
                bring(str(path), str(whole / "segmentations"))
    except OSError as error:
        what = f"the files cannot be laid out ({error.strerror or error})"
        raise OutputError(what, draft.parent, FIX_ROOM) from error
    return whole


def _is_root(path: Path, wanted: Distributed) -> bool:
    # a Mac's archives carry a shadow of every file
    return "__MACOSX" not in path.parts and all(is_file(path.parent / mark) for mark in wanted.marks)


def _copy(source: str, target: str) -> None:
    (shutil.copytree if Path(source).is_dir() else shutil.copy2)(source, target)


def _glas_faults(root: Path, wanted: Distributed) -> list[str]:
    faults: list[str] = []
    images, masks = glas_files(root, faults)
    names = [f"{part}_{number}" for part, count in wanted.counts.items() for number in range(1, count + 1)]
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


def _cub_faults(root: Path, wanted: Distributed) -> list[str]:
    try:
        found = cub_datalist(root, "all")
    except DatalistError as error:
        return list(error.faults)
    items = [item for split in found.splits.values() for item in split]
    test = len(found.splits.get("test", ()))
    counts = {"training images": len(items) - test, "test images": test, "classes": len(found.classes)}
    faults = [f"{part}: {counts[part]} instead of {n}" for part, n in wanted.counts.items() if counts[part] != n]
    if (root / "segmentations").is_dir():
        faults += [f"segmentations: no mask of {item.name}" for item in items if item.mask is None]
    return faults


def _damaged(root: Path, kind: str, progress: bool) -> list[str]:
    """Files that cannot be read, of those that are there, named below the data set's folder."""
    if kind == "glas":
        images, masks = glas_files(root, [])
        pairs = [(path, masks.get(name)) for name, path in images.items()]
    else:
        files = sorted((root / "images").rglob("*.jpg"))
        masks = [root / "segmentations" / path.relative_to(root / "images").with_suffix(".png") for path in files]
        pairs = [(path, mask if is_file(mask) else None) for path, mask in zip(files, masks, strict=True)]
    return [fault.replace(f"{root}/", "") for fault in damaged(pairs, progress)]
