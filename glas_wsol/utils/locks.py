# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Lock a file for one run at a time (children do not hold it), and a folder for one study at a time (they do)."""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glas_wsol.errors import FIX_ROOM, BusyError, OutputError

try:
    import fcntl
except ImportError:  # a system without these locks runs without one
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "claim", "lock_with_children", "release"]

LOCK = ".study.lock"
"""File of a folder that :func:`lock_with_children` holds."""

_HELD: dict[tuple[int, Path], int] = {}  # by process: a child does not hold what its parent does


def claim(file: str | Path) -> bool:
    """Reserve a file for this process until it is released, or the process ends, in whatever way.

    What is locked is a hidden file beside it, ``.NAME.lock``, which a killed process may leave; it locks nothing then.
    The workers of a loader do not hold it. In one process the same file may be claimed again. On a file system without
    locks nothing is claimed.

    Args:
        file: what is to be written; its folder must exist.

    Returns:
        Whether this process has it now; False where there are no locks.

    Raises:
        BusyError: if another process has claimed it.
        OutputError: if the folder cannot be written.
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
            holder = _holder(handle)
            os.close(handle)
            what = f"another run is at work here ({holder or 'unknown process'})"
            raise BusyError(what, file.parent, "wait for its end, or choose another output_dir") from None
        except OSError:  # a file system without locks
            os.close(handle)
            return False
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), lock.stat()):
                break
        os.close(handle)  # its holder has removed it meanwhile
    _HELD[os.getpid(), lock] = handle
    _sign(handle)
    return True


def release(file: str | Path) -> None:
    """Give up what :func:`claim` got; nothing where it got nothing."""
    file = Path(file).absolute()
    _release(file.with_name(f".{file.name}.lock"))


def _release(lock: Path) -> None:
    handle = _HELD.pop((os.getpid(), lock), None)
    if handle is not None:
        with suppress(OSError):
            lock.unlink(missing_ok=True)  # before unlocking: a process in between finds another file and retries
        os.close(handle)


@atexit.register
def _release_all() -> None:
    for owner, lock in list(_HELD):
        if owner == os.getpid():
            _release(lock)


@contextmanager
def lock_with_children(folder: Path) -> Iterator[int]:
    """Hold a folder for this process, and for the children that inherit the descriptor, until the last has ended.

    The system releases the lock with the processes, however they end: none is ever left behind. The file stays.

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
            what = f"a study, or a run that one has left behind, is at work here ({_holder(handle)})"
            raise OutputError(what, folder, "wait for its end, or choose another folder") from None
        except OSError:  # a file system without locks
            pass
        _sign(handle)
        yield handle
    finally:
        os.close(handle)


def _holder(handle: int) -> str:
    return os.read(handle, 200).decode(errors="replace").strip()


def _sign(handle: int) -> None:
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
