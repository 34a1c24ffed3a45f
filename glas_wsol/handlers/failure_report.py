# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Lists the images of a run that have no result, and sets the exit status accordingly."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from glas_wsol.engines.fault_tolerant_evaluator import Failure
from glas_wsol.errors import IncompleteError, OutputError, count, readable
from glas_wsol.utils.csv_files import read_table, write_csv

__all__ = ["FailureReport"]

logger = logging.getLogger(__name__)

_COLUMNS = ("image", "stage", "what", "fix")


class FailureReport:
    """Writes ``failed.csv`` where an image failed: its file, the stage, what is wrong and how to repair it.

    The table's column ``image`` makes it a list of images to run on. That of an earlier run is replaced, or removed
    where nothing failed.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.file = Path(output_dir) / "failed.csv"
        self.failures: list[Failure] = []
        self.total = 0

    def attach(self, engine: Engine) -> None:
        """Attach to a :class:`~glas_wsol.engines.fault_tolerant_evaluator.TolerantEvaluator`."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Any) -> None:
        self.failures.clear()
        self.total = len(engine.state.dataloader.dataset)
        if self.file.exists():
            what, fix = "this file is not one of earlier results", "choose another output_dir"
            if tuple(read_table(self.file, what, fix)[0]) != _COLUMNS:
                raise OutputError(what, self.file, fix)
            self.file.unlink()

    def _collect(self, engine: Any) -> None:
        while engine.state.failures:
            failure = engine.state.failures.pop(0)
            self.failures.append(failure)
            logger.warning("no result of %s", readable(f"{failure.image}: {failure.what}: {failure.fix}"))

    def _write(self, engine: Any) -> None:
        self._collect(engine)  # what was written last may have failed after the last iteration
        if self.failures:
            places = {item["name"]: place for place, item in enumerate(engine.state.dataloader.dataset.data)}
            self.failures.sort(key=lambda failure: places[failure.name])
            rows = [{key: _printable(getattr(failure, key)) for key in _COLUMNS} for failure in self.failures]
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_csv(self.file, rows)

    def conclude(self) -> None:
        """After the run raise an IncompleteError if some images have no result."""
        if self.failures:
            what = f"{len(self.failures)} of {count(self.total, 'image')} failed, the others are done"
            raise IncompleteError(what, self.file, "repair these images, or leave them out, and run again")


def _printable(text: str) -> str:
    """A file name that is not UTF-8 with its bytes spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()
