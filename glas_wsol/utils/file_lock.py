# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""One run at a time writes a set of files."""

from __future__ import annotations

import atexit
import os
import socket
from contextlib import suppress
from pathlib import Path

from glas_wsol.errors import FIX_ROOM, OutputError

try:
    import fcntl
except ImportError:  # a system without these locks runs without one
    fcntl = None  # type: ignore[assignment]

__all__ = ["claim", "release"]

_HELD: dict[tuple[int, Path], int] = {}  # by process: a child does not hold what its parent does


def claim(file: str | Path) -> bool:
    """Keep a file for this process until it is released, or the process ends, in whatever way.

    What is locked is a hidden file beside it, ``.NAME.lock``, which a killed process may leave; it locks nothing then.
    The workers of a loader do not hold it. In one process the same file may be claimed again. On a file system without
    locks nothing is claimed.

    Args:
        file: what is to be written; its folder must exist.

    Returns:
        Whether this process has it now; False where there are no locks.

    Raises:
        OutputError: if another process has claimed it, or the folder cannot be written.
    """
    file = Path(file).absolute()
    lock = file.with_name(f".{file.name}.lock")
    if fcntl is None:
        return False
    if (os.getpid(), lock) in _HELD:
        return True
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            what = f"cannot be written ({error.strerror})"
            raise OutputError(what, file.parent, FIX_ROOM) from error
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, it is not inherited by children
        except (BlockingIOError, PermissionError):
            holder = os.read(handle, 200).decode(errors="replace").strip()
            os.close(handle)
            what = f"another run is at work here ({holder or 'of whom nothing is known'})"
            raise OutputError(what, file.parent, "wait for its end, or choose another output_dir") from None
        except OSError:  # a file system without locks
            os.close(handle)
            return False
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), lock.stat()):
                break
        os.close(handle)  # its holder has removed it meanwhile
    _HELD[os.getpid(), lock] = handle
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return True


def release(file: str | Path) -> None:
    """Give up what :func:`claim` got; nothing where it got nothing.

    Args:
        file: as it was claimed.
    """
    file = Path(file).absolute()
    _release(file.with_name(f".{file.name}.lock"))


def _release(lock: Path) -> None:
    handle = _HELD.pop((os.getpid(), lock), None)
    if handle is not None:
        with suppress(OSError):
            lock.unlink(missing_ok=True)  # before it is unlocked: who comes between finds another file, and tries again
        os.close(handle)


@atexit.register
def _release_all() -> None:
    for owner, lock in list(_HELD):
        if owner == os.getpid():
            _release(lock)
