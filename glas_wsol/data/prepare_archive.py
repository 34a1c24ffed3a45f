# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Prepare a downloaded data set: unpack it, compare it with what was distributed, and lay it out; or do nothing."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from glas_wsol.data.archives import extract
from glas_wsol.data.damage import damaged
from glas_wsol.data.datalist import DATA_SETS, Reading
from glas_wsol.data.distributed_files import Distributed
from glas_wsol.data.files import is_file
from glas_wsol.data.splits import Datalist
from glas_wsol.errors import FIX_ROOM, ArchiveError, ConfigError, DatalistError, OutputError

__all__ = ["DISTRIBUTED", "prepare"]


DISTRIBUTED = {name: one.distributed for name, one in DATA_SETS.items() if one.distributed is not None}
_AGAIN = "download it again, from its authors"


def prepare(
    kind: str,
    sources: Sequence[str | Path],
    output: str | Path,
    sha256: str = "",
    progress: bool = False,
    distributed: Distributed | None = None,
) -> tuple[Datalist, bool]:
    """Lay out a data set that was downloaded; what is there already is checked and left as it is.

    Args:
        kind: of :data:`~glas_wsol.data.datalist.DATA_SETS`, one that is distributed: ``"glas"`` or ``"cub"``.
        sources: archives, or folders that somebody unpacked, which are copied. CUB-200-2011 comes in two.
        output: the folder to make; it appears when everything is there and was found correct.
        sha256: digest that the archive must have; only with one.
        distributed: what must be in it. None (default) for what its authors distribute.

    Returns:
        The data set, and whether it was laid out now (False: it was there).

    Raises:
        ConfigError: if no data set of that name is distributed.
        ArchiveError: if an archive is missing, damaged or unsafe.
        DatalistError: every file that is missing or damaged, and everything else that is not as distributed.
        OutputError: if the folder holds something else, or is not writable.
    """
    if kind not in DISTRIBUTED:
        raise ConfigError(f"no data set named {kind!r}", "prepare", f"use one of {', '.join(DISTRIBUTED)}")
    wanted, target = distributed or DISTRIBUTED[kind], Path(output).expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        if not target.is_dir() or not all(is_file(target / mark) for mark in wanted.marks):
            raise OutputError(f"something else than {wanted.name} is here", target, "name a new folder")
        _refuse(
            target, wanted.faults(target, wanted.counts), "name a new folder to prepare it in, or add what is missing"
        )
        return DATA_SETS[kind].read(target, Reading(classes="all")), False
    for source in map(Path, sources):
        if not source.exists():
            raise ArchiveError("nothing is here", source, f"{wanted.name} is available from: {wanted.page}")
        if source.is_dir() and target.is_relative_to(source.absolute()):
            raise OutputError("the new folder lies in the one it is made from", target, "name a folder outside")
        if sha256 and (source.is_dir() or len(sources) > 1):
            raise ArchiveError("a digest is of one archive", source, "leave --sha256 out, or name one archive")
    draft = target.parent / f".{uuid.uuid4().hex}.part"
    try:
        places = [_unpacked(Path(source), draft / str(n), sha256, progress) for n, source in enumerate(sources)]
        whole = _laid_out(wanted, places, draft, sources)
        _refuse(sources[0], [*wanted.faults(whole, wanted.counts), *_damaged(whole, wanted, progress)], _AGAIN)
        try:
            if target.exists():
                target.rmdir()
            whole.rename(target)
        except OSError as error:
            raise OutputError(f"cannot be written ({error.strerror})", target, "choose another folder") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return DATA_SETS[kind].read(target, Reading(classes="all")), True


def _refuse(where: object, faults: list[str], fix: str) -> None:
    if faults:
        raise DatalistError(where, faults, fix)


def _unpacked(source: Path, place: Path, sha256: str, progress: bool) -> Path:
    return source if source.is_dir() else extract(source, place, sha256, progress=progress)


def _laid_out(wanted: Distributed, places: Sequence[Path], draft: Path, sources: Sequence[str | Path]) -> Path:
    """The data set's files in one new folder: moved there from what was unpacked, copied from a user's folder."""
    roots = [path.parent for place in places for path in sorted(place.rglob(wanted.marks[0])) if _is_root(path, wanted)]
    if len(roots) != 1:
        said, marks = ", ".join(map(str, sources)), " and ".join(wanted.marks)
        if roots:
            raise DatalistError(said, [f"{len(roots)} folders have {marks}"], "name one of them")
        raise DatalistError(said, [f"no folder has {marks}"], f"{wanted.name} is available from: {wanted.page}")
    (root,), whole = roots, draft / "whole"
    try:
        wanted.lay_out(root, whole, places, lambda path: shutil.move if path.is_relative_to(draft) else _copy)
    except OSError as error:
        what = f"the files cannot be laid out ({error.strerror or error})"
        raise OutputError(what, draft.parent, FIX_ROOM) from error
    return whole


def _is_root(path: Path, wanted: Distributed) -> bool:
    # a Mac's archives carry a shadow of every file
    return "__MACOSX" not in path.parts and all(is_file(path.parent / mark) for mark in wanted.marks)


def _copy(source: str, target: str) -> None:
    (shutil.copytree if Path(source).is_dir() else shutil.copy2)(source, target)


def _damaged(root: Path, wanted: Distributed, progress: bool) -> list[str]:
    """Files that are there and cannot be read, named relative to the data set's folder."""
    return [fault.replace(f"{root}/", "") for fault in damaged(wanted.pairs(root), progress)]
