# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Tables of results as CSV, with no cell that a spreadsheet would execute."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.csv_cells import escape_cell

__all__ = ["write_csv"]


def write_csv(path: Path, rows: list[dict[str, Any]], columns: Iterable[str] = ("path",)) -> None:
    """Write rows that all have the same columns; the file appears whole or not at all.

    Args:
        path: the file.
        rows: one mapping from column to value per line; texts are escaped, see
            :func:`~glas_wsol.utils.csv_cells.escape_cell`.
        columns: the header where there are no rows. Defaults to the one column ``path``.
    """
    with atomic_write(path, "w", newline="") as file:
        titles = list(rows[0]) if rows else list(columns)
        writer = csv.DictWriter(_Lines(file), fieldnames=[escape_cell(title) for title in titles])
        writer.writeheader()
        writer.writerows({escape_cell(key): escape_cell(value) for key, value in row.items()} for row in rows)


class _Lines:
    """Ends lines with a line feed; the csv module quotes a carriage return only where it may end a line itself."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def write(self, row: str) -> None:
        self.file.write(row.removesuffix("\r\n") + "\n")
