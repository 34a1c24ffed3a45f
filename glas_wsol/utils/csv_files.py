# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Write and read tables of results as CSV, with no cell that a spreadsheet would execute."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from glas_wsol.errors import OutputError
from glas_wsol.utils.atomic_files import atomic_write

__all__ = ["escape_cell", "read_table", "unescape_cell", "write_csv"]

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_SIGNS = r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"  # the last are the first four in full width
_EXECUTED = re.compile(f"'*{_SIGNS}")
_ESCAPED = re.compile(f"'+{_SIGNS}")


def escape_cell(value: Any) -> Any:
    r"""Put an apostrophe before a text that a spreadsheet would take for a formula.

    These are texts that begin with ``=``, ``+``, ``-``, ``@``, in full width too, a tab or a line end and are no
    numbers. One that
    begins with apostrophes and then such a sign gets one more, so that :func:`unescape_cell` gives every text back.

    Args:
        value: of a cell; what is no text is returned as it is.
    """
    if isinstance(value, str) and _EXECUTED.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def unescape_cell(text: str) -> str:
    """The text that :func:`escape_cell` was given."""
    return text[1:] if _ESCAPED.match(text) else text


def read_table(
    path: Path, what: str = "this table cannot be read", fix: str = "", errors: str = "strict"
) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table that :func:`write_csv` wrote: its columns, and its rows by column, unescaped.

    Args:
        errors: what to do about bytes that are not UTF-8, as in `open`.

    Raises:
        OutputError: that says ``what`` and ``fix`` if it cannot be read.
    """
    try:
        with path.open(encoding="utf-8", errors=errors, newline="") as file:
            reader = csv.reader(file)
            titles = [unescape_cell(title) for title in next(reader, [])]
            return titles, [dict(zip(titles, map(unescape_cell, cells), strict=False)) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OutputError(what, path, fix) from error


def write_csv(path: Path, rows: list[dict[str, Any]], columns: Iterable[str] = ("path",)) -> None:
    """Write rows that all have the same columns; the file appears whole or not at all.

    Args:
        rows: one mapping from column to value per line; texts are escaped, see :func:`escape_cell`.
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
