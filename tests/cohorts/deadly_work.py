# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Work for processes that are started anew: this module imports nothing that takes time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def start(number: int, folder: Path) -> None:
    """Once in every process."""
    assert number in (0, 1)
    os.environ["STARTED_IN"] = str(folder)


def slow_start(number: int, folder: Path) -> None:
    """As long as a model takes: dask gives up a worker that dies before its nanny has heard of it."""
    time.sleep(2)
    start(number, folder)


def work(item: tuple[int, Path]) -> int:
    """Squares; 3 always kills its process, 5 the first time."""
    number, folder = item
    assert os.environ["STARTED_IN"] == str(folder)
    if number == 3 or (number == 5 and not (folder / "killed").exists()):
        if number == 5:
            (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number
