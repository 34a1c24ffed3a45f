# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs a study's commands on the workers of a dask cluster instead of on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from glas_wsol.experiments.study.runner import Children
from glas_wsol.workers.dask_commands import run_on_worker
from glas_wsol.workers.dask_workers import Dask

__all__ = ["DaskChildren"]


class DaskChildren(Children):
    """Commands as child processes of workers, in the workers' own environment."""

    def __init__(self, cluster: Dask) -> None:
        super().__init__({})
        from distributed import Event

        self.cluster, self.name = cluster, f"glas_wsol-{os.urandom(8).hex()}"
        self.event: Any = Event(self.name, client=cluster.client)

    def __call__(self, command: Sequence[str], log: IO[bytes]) -> int:
        """Run one command to its end, its output to a log; its exit status, or -1 when no more may be started."""
        if self.stopped:
            return -1
        return run_on_worker(self.cluster, command, Path(log.name), self.name)

    def stop(self) -> None:
        """Start no more commands, and end those that run."""
        self.stopped = True
        self.event.set()
