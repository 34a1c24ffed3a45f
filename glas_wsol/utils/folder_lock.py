# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""One study at a time in one folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glas_wsol.errors import OutputError

try:
    import fcntl
except ImportError:  # a system without these locks runs without one
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "locked"]

LOCK = ".study.lock"


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a folder for this process, and for the children that inherit the descriptor, until the last has ended.

    The system lets go of the lock with the processes, however they end: none is ever left behind. The file stays.

    Args:
        folder: made if absent.

    Yields:
        The lock's file descriptor, to be passed on to children.

    Raises:
        OutputError: if the folder cannot be written, or another study holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        what = f"the study's folder cannot be written ({error.strerror})"
        raise OutputError(what, folder, "choose another folder") from error
    try:
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace").strip()
            what = f"a study, or a run that one has left behind, is at work here ({holder})"
            raise OutputError(what, folder, "wait for its end, or choose another folder") from None
        except OSError:  # a file system without locks
            pass
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield handle
    finally:
        os.close(handle)
