# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs several child processes at a time, each with its log, and ends all when the study is interrupted."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from glas_wsol.errors import GlasWsolError
from glas_wsol.experiments.study import manifest
from glas_wsol.experiments.study.manifest import Found
from glas_wsol.experiments.study.plan import Run
from glas_wsol.utils.processors import processors

__all__ = ["LOG", "Children", "Outcome", "environment", "execute"]

LOG = "log.txt"
_PATIENCE = 20.0  # s for a child to end by itself


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the seconds it took, and why it failed (None: it did not)."""

    run: Run
    seconds: float
    error: str | None = None


def environment(jobs: int) -> dict[str, str]:
    """This process's environment, with the processors shared out among the jobs unless the user has done so."""
    # threads that spin while waiting take the other core from those that work
    return {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(max(1, processors() // jobs)), **os.environ}


class Children:
    """Runs commands as child processes, which inherit file descriptors (of a lock, say), and can end them all."""

    def __init__(self, variables: Mapping[str, str], inherited: Sequence[int] = ()) -> None:
        self.variables = dict(variables)
        self.options: dict[str, Any] = {"pass_fds": tuple(inherited)} if sys.platform != "win32" else {}
        self.running: set[subprocess.Popen[Any]] = set()
        self.guard, self.stopped = threading.Lock(), False

    def __call__(self, command: Sequence[str], log: IO[bytes]) -> int:
        """Run one command to its end, its output to a log; its exit status, or -1 when no more may be started."""
        with self.guard:
            if self.stopped:
                return -1
            child = subprocess.Popen(  # noqa: S603 - the command was made by the plan, and there is no shell
                list(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.variables, **self.options
            )
            self.running.add(child)
        status = child.wait()
        with self.guard:
            self.running.discard(child)
        return status

    def stop(self) -> None:
        """Start no more children, send those that run SIGTERM, and kill them if they do not end."""
        with self.guard:
            self.stopped = True
            children = list(self.running)
        for child in children:
            child.terminate()
        deadline = time.monotonic() + _PATIENCE
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
                continue
            child.kill()
            child.wait()


def execute(
    todo: Sequence[tuple[Run, Found]],
    children: Children,
    ended: Callable[[Outcome], None],
    tick: Callable[[Sequence[tuple[Run, float]], Sequence[Run]], None] = lambda running, waiting: None,
    jobs: int = 1,
) -> None:
    """Run what is left to do, in order; a run that needs another's model waits for it, and fails with it.

    Args:
        todo: runs with what their folders hold; a needed run that is not among them is finished.
        children: run the commands; stopped when anything is raised here, as by an interruption.
        ended: called with each run's outcome as soon as it has ended.
        tick: called about every second with the runs that run, each with its seconds, and those that wait.
    """
    waiting = [run for run, _ in todo]
    found = {run.name: state for run, state in todo}
    failed: set[str] = set()
    running: dict[Future[Outcome], tuple[Run, float]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                unfinished = {run.name for run in waiting} | {run.name for run, _ in running.values()}
                for run in [run for run in waiting if run.needs not in unfinished]:
                    if run.needs in failed:
                        waiting.remove(run)
                        failed.add(run.name)
                        ended(Outcome(run, 0.0, f"it needs the model of {run.needs}"))
                    elif len(running) < jobs:
                        waiting.remove(run)
                        running[pool.submit(_perform, run, found[run.name], children)] = (run, time.monotonic())
                done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    if future.result().error is not None:
                        failed.add(future.result().run.name)
                    ended(future.result())
                now = time.monotonic()
                tick([(run, now - start) for run, start in running.values()], waiting)
        except BaseException:
            children.stop()  # or the pool would wait for them
            raise


def _perform(run: Run, found: Found, children: Children) -> Outcome:
    start = time.monotonic()
    error = None
    try:
        manifest.begin(run, found)
        for command in run.commands:
            error = _call(command, run.folder / LOG, children)
            if error is not None:
                break
        manifest.finish(run, time.monotonic() - start, finished=error is None)
    except GlasWsolError as raised:
        error = str(raised)
    except OSError as raised:
        error = f"{type(raised).__name__}: {raised}"
    return Outcome(run, time.monotonic() - start, error)


def _call(command: Sequence[str], path: Path, children: Children) -> str | None:
    """Why the command failed: its one-line error, else the last line it wrote; None if it did not."""
    with path.open("ab") as log:
        log.write(f"$ {shlex.join(command)}\n".encode())
        log.flush()
        start = log.tell()
        status = children(command, log)
    if status == 0:
        return None
    with path.open("rb") as log:
        log.seek(start)
        # a progress bar returns to the line's start
        lines = [line.strip() for line in log.read().decode(errors="replace").replace("\r", "\n").splitlines()]
    errors = [line for line in lines if line.startswith("error: ")]
    # MONAI wraps an exception once per level, and the first that Python prints is the cause
    causes = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)][:1]
    last = [line for line in lines if line][-1:]
    return (errors[-1:] or causes or last or [f"exit status {status}"])[0].removeprefix("error: ")
