# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Real small and read-only disks, which are gone with the process, and a machine without a network."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["give_up_rights", "mount_read_only", "mount_small", "offline", "own_mounts", "unmount"]

_NEW_MOUNTS, _NEW_USER, _NEW_NETWORK = 0x20000, 0x10000000, 0x40000000


def own_mounts() -> bool:
    """Let what this process mounts from now on be seen by it and its children only; False where it may not mount.

    Where the user is not root it becomes root of a name space of its own, which may mount. It must be called before a
    second thread is started.
    """
    user, group, libc = os.geteuid(), os.getegid(), ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS if user == 0 else _NEW_MOUNTS | _NEW_USER):
        return False
    if user:
        for file, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path(f"/proc/self/{file}").write_text(line)
    return _run("mount", "--make-rprivate", "/")


def mount_small(folder: Path, size: int) -> None:
    """Put an empty disk of so many bytes there."""
    folder.mkdir(parents=True, exist_ok=True)
    assert _run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder))


def mount_read_only(folder: Path) -> None:
    """Let nothing be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    assert _run("mount", "--bind", str(folder), str(folder))
    assert _run("mount", "-o", "remount,bind,ro", str(folder))


def unmount(folder: Path) -> None:
    """Undo either."""
    assert _run("umount", str(folder))


def _run(*command: str) -> bool:
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True).returncode == 0


def give_up_rights() -> None:
    """Take from this process what root may do and others may not: read and write what permissions forbid."""
    if os.geteuid() == 0:
        version, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(version, data) == 0


def offline(command: Sequence[str]) -> list[str]:
    """The command, run where there is no network but that of the machine with itself; it fails where that cannot be."""
    start = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    return [*start, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
