# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Tables of results as CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from glas_wsol.writers.atomic import atomic_write

__all__ = ["write_csv"]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows that all have the same columns; the file appears whole or not at all.

    Args:
        path: the file.
        rows: one mapping from column to value per line; without any, the file has the one column ``path``.
    """
    with atomic_write(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["path"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
