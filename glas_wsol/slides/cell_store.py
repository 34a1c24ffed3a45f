# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Keep stitched scores on disk, with a journal of finished cells: a run that was killed goes on after the last."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glas_wsol.slides.cells import Cell, Grid

__all__ = ["NOTHING", "CellStore"]

NOTHING = -20.0
"""Score where no cell was wanted: R+ is 2e-9."""
_ROWS = 256


class CellStore:
    """Scores of a slide as an array file, and a line of a journal for each cell that is in it.

    Args:
        folder: of this slide's unfinished work; made if absent. What other settings left in it is replaced.
        grid: of the slide.
        made_with: what the scores depend on, JSON values.

    Attributes:
        finished: what the journal says of each finished cell, by its row and column.
    """

    def __init__(self, folder: Path, grid: Grid, made_with: Mapping[str, Any]) -> None:
        self.folder, self.grid = folder, grid
        self.scores_file, self._journal = folder / "scores.npy", folder / "cells.jsonl"
        self._first = json.dumps(made_with, sort_keys=True)
        self.finished: dict[tuple[int, int], Any] = {}
        self.note: Any = None
        """What the journal is to say of the next cell that is kept."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = self._journal.read_text(encoding="utf-8").split("\n") if self._journal.is_file() else []
        if self.scores_file.is_file() and lines and lines[0] == self._first:
            for line in lines[1:-1]:  # what follows the last line end was being written when the run was killed
                row, column, note = json.loads(line)
                self.finished[row, column] = note
            self._write_journal()
        else:
            self.scores_file.unlink(missing_ok=True)
            self._journal.unlink(missing_ok=True)

    def open(self, shape: tuple[int, int]) -> None:
        """Make the file, unless an earlier run has; ``shape``: of the scores of the padded slide."""
        if self.scores_file.is_file():
            return
        part = self.scores_file.with_suffix(".part")
        scores = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
        for top in range(0, shape[0], _ROWS):
            scores[top : top + _ROWS] = NOTHING
        scores.flush()
        part.replace(self.scores_file)
        self._write_journal()

    def put(self, cell: Cell, top: int, left: int, values: np.ndarray) -> None:
        """Keep a cell: first its scores, then its line."""
        scores = np.load(self.scores_file, mmap_mode="r+")
        scores[top : top + values.shape[0], left : left + values.shape[1]] = values
        scores.flush()
        self.finished[cell.row, cell.column] = self.note
        with self._journal.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps([cell.row, cell.column, self.note]) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _write_journal(self) -> None:
        lines = [self._first, *(json.dumps([*place, note]) for place, note in self.finished.items())]
        part = self._journal.with_suffix(".part")
        part.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        part.replace(self._journal)
