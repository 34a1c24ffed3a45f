# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs commands as child processes of dask workers, which end with their worker, however that ends."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from glas_wsol.workers.dask_workers import Dask
from glas_wsol.workers.processes import DIED

__all__ = ["run_on_worker"]

_LOOK, _PATIENCE = 2.0, 20.0  # s between two looks whether to stop, and for a child to end by itself
_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # before a fork


def run_on_worker(cluster: Dask, command: Sequence[str], log: Path, stop: str) -> int:
    """Run a command on some worker, to its end.

    Args:
        log: receives what the command prints; the worker sees it under this path.
        stop: name of the dask event that ends the command when it is set.

    Returns:
        Its exit status; 1 where its worker died twice, which the log then says.
    """
    ((_, status),) = cluster(_run, [(list(command), str(log), stop)], _nothing, ())
    if status is None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"error: {DIED}\n")
        return 1
    return status


def _nothing(number: int) -> None:
    """Nothing is needed before a command."""


def _run(what: tuple[list[str], str, str]) -> int:
    from distributed import Event

    command, log, stop = what
    wanted = Event(stop)
    with Path(log).open("ab") as file:
        child = subprocess.Popen(  # noqa: S603 - the command was made by the plan, and there is no shell
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, preexec_fn=_end_with_parent
        )
    while True:
        try:
            return child.wait(_LOOK)
        except subprocess.TimeoutExpired:
            if not wanted.is_set():
                continue
        child.terminate()
        try:
            return child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()


def _end_with_parent() -> None:
    """In the child: be killed when its worker ends, so that another worker can go on with the same folder."""
    if _LIBC is not None:
        _LIBC.prctl(_DEATH_SIGNAL, signal.SIGKILL)
