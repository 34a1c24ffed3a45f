# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Write files atomically: they appear whole under their name, or not at all."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import IO, Any

from glas_wsol.errors import FIX_FILES, FIX_ROOM, OutputError

__all__ = ["atomic_write", "remove_unfinished"]

_PART = re.compile(r"\.[0-9a-f]{32}\.part")


@contextmanager
def atomic_write(
    path: str | PathLike[str], mode: str = "wb", encoding: str | None = None, newline: str | None = None
) -> Iterator[IO[Any]]:
    r"""Open a file that takes its name only when the block ends without an exception; an older file stays until then.

    It is written under a temporary name in the same folder, flushed to the disk and renamed. After an exception the
    temporary file is gone and the older one untouched. Example::

        with atomic_write("cases.csv", "w", newline="\n") as file:
            file.write("case,class\n")

    Args:
        path: where the file is to be; its folder must exist.
        mode: ``"wb"`` for bytes or ``"w"`` for text.
        encoding: of text; UTF-8 where none is given, whatever the locale.

    Raises:
        OutputError: if making, writing (a full disk) or renaming the file fails.
        ValueError: on another mode.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"mode must be 'w' or 'wb', got {mode!r}")
    path = Path(path)
    # Not made from the final name, which may be as long as the file system allows already.
    temporary = path.parent / f".{uuid.uuid4().hex}.part"
    if mode == "w":
        encoding = encoding or "utf-8"
    try:
        with temporary.open(mode.replace("w", "x"), encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", path, _fix(path, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # after the renaming there is none


def remove_unfinished(folder: str | PathLike[str]) -> None:
    """Remove what a killed process was writing in a folder that nobody else writes into, or directly below it."""
    for path in (*Path(folder).glob(".*.part"), *Path(folder).glob("*/.*.part")):
        if _PART.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


def _fix(path: Path, error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return FIX_FILES
    with suppress(OSError):
        if not path.parent.is_dir():
            return "make the folder first"
        if path.is_dir():
            return "choose another name, this is a folder"
    return FIX_ROOM


def _sync_folder(folder: Path) -> None:
    # The renaming reaches the disk with the folder; Windows opens no folders, and some network disks cannot sync.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
