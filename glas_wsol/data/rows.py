# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read the rows of a table, in any dialect that spreadsheets write, by the meaning of their columns."""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from glas_wsol.data.files import is_file
from glas_wsol.data.spelling import MISSING, clean, shown, spelling_key
from glas_wsol.errors import ConfigError, DatalistError
from glas_wsol.transforms.pixel_size import MPP_RANGE, check_mpp
from glas_wsol.utils.csv_files import unescape_cell

__all__ = ["COLUMNS", "Row", "image_path", "listed_mpp", "read_rows"]

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "image_path", "image_file", "image_name", "img", "file", "file_name", "file_path", "path"),
    "label": ("label", "class", "class_name", "diagnosis", "category", "target"),
    "mask": ("mask", "mask_path", "mask_file", "annotation", "segmentation"),
    "group": (
        *("group", "patient", "patient_id", "patient_no", "patient_number", "patient_name", "subject", "subject_id"),
        *("case", "case_id"),
    ),
    "split": ("split", "set", "subset", "partition"),
    "source": ("source", "laboratory", "lab", "site", "centre", "center", "institution", "hospital", "scanner"),
    "mpp": ("mpp", "um_per_pixel", "um_per_px", "microns_per_pixel", "micrometres_per_pixel", "micrometers_per_pixel"),
}
"""Titles of each column, the best first: images are grouped by patient rather than by case (one of several).
Capitals, blanks, ``_`` and ``-`` in a title do not matter."""

_DELIMITERS = ",;\t|"


class Row(dict):
    """The cells of one row by meaning, each trimmed and ``""`` where blank, and the line the row starts on.

    ``labels`` are the classes its label names: one, or several; none where it is blank or not a label. ``home`` is the
    split it is in.
    """

    def __init__(self, line: int, cells: Mapping[str, str]) -> None:
        super().__init__(cells)
        self.line = line
        self.labels: tuple[str, ...] = ()
        self.home = ""

    @property
    def place(self) -> str:
        """Its line, in words."""
        return f"line {self.line}"


def _compact(title: str) -> str:
    return re.sub(r"[\s_-]+", "", spelling_key(title))


def _columns(titles: list[str]) -> dict[str, int]:
    titles = [_compact(title) for title in titles]
    known = {key: [_compact(name) for name in names] for key, names in COLUMNS.items()}
    found = {key: [name for name in names if name in titles] for key, names in known.items()}
    return {key: titles.index(names[0]) for key, names in found.items() if names}


def _misspelt(titles: list[str], columns: Mapping[str, int]) -> list[str]:
    """Titles like that of an optional column that is absent: unread, a patient could be on both sides."""
    absent = [name for key in ("mask", "group", "split") if key not in columns for name in COLUMNS[key]]
    unread = [title for column, title in enumerate(titles) if column not in columns.values()]
    near = {title: next((name for name in absent if _alike(title, name)), "") for title in unread}
    return [f"column {title!r} is not known: did you mean {name!r}?" for title, name in near.items() if name]


def _alike(title: str, name: str) -> bool:
    """Whether each word is nearly that of the name: a patient's age is not a patient."""
    words = [re.split(r"[\s_-]+", one) for one in (title, name)]
    return len(words[0]) == len(words[1]) and all(
        difflib.SequenceMatcher(None, one, other).ratio() >= 0.7 for one, other in zip(*words, strict=True)
    )


def read_rows(
    path: Path,
    required: Sequence[str],
    faults: list[str],
    meaning: Callable[[list[str]], dict[str, int]] = _columns,
    where: str = "",
    warnings: list[str] | None = None,
) -> list[Row]:
    """Read a table: UTF-8 with or without byte order mark, any line ends; blank rows are left out.

    A first line such as ``sep=;`` names the separator of the cells, as spreadsheets write it.

    Args:
        path: the table.
        required: the columns it must have, with no blank cell.
        faults: receives the faults of single rows.
        meaning: finds the columns among trimmed lower-case titles.
        where: what to put before ``line N`` in a fault.
        warnings: receives a sentence on columns that are not read.

    Raises:
        DatalistError: if the table as a whole cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fix = "give a folder, or a table that is saved as CSV UTF-8"
        raise DatalistError(path, ["it is not UTF-8 text"], fix) from error
    except OSError as error:
        raise DatalistError(path, [f"it cannot be read ({error.strerror})"], "check the file") from error
    if not text.strip():
        raise DatalistError(path, ["it is empty"], "write a header and one row per image")
    said = re.match(r'\s*"?sep=([^\w"\'\s]|\t)"?[;,\t|]*[ ]*(?:\r\n|\r|\n)', text, re.IGNORECASE)
    start = 2 if said else 1
    text = text[said.end() :] if said else text
    try:
        # The delimiter is the one that makes most known columns: guessing it from all cells trips over commas in names.
        tried = said[1] if said else _DELIMITERS
        headers = {delimiter: next(_rows(text, delimiter, strict=False), (1, [""]))[1] for delimiter in tried}
        headers = {key: [clean(title).lower() for title in titles] for key, titles in headers.items()}
        delimiter = max(headers, key=lambda key: len(set(meaning(headers[key]).values())))
        rows = list(_rows(text, delimiter, start=start))[1:]
    except csv.Error as error:
        raise DatalistError(path, [f"it is not a table ({error})"], "check its quotes") from error
    titles = headers[delimiter]
    columns = meaning(titles)
    missing = []
    for key in required:
        if key not in columns:
            known = f" (or {', '.join(COLUMNS[key][1:])})" if meaning is _columns else ""
            missing.append(f"there is no column {key!r}{known}; the columns are {', '.join(titles)}")
    twice = sorted({titles[column] for column in columns.values() if titles.count(titles[column]) > 1})
    missing += [f"column {title!r} is there twice" for title in twice]
    missing += ["it has a header and no rows"] if not rows else []
    missing += _misspelt(titles, columns) if meaning is _columns else []
    if missing:
        raise DatalistError(path, missing, "correct the table")
    unread = [title for column, title in enumerate(titles) if title and column not in columns.values()]
    if unread and warnings is not None:
        warnings.append(f"columns that are not read: {', '.join(unread)}")
    read = []
    for line, cells in rows:
        if len(cells) > len(titles) and any(cells[len(titles) :]):
            faults.append(f"{where}line {line}: {len(cells)} cells under {len(titles)} titles (quote what has commas)")
            continue
        texts = [unescape_cell(cell.strip()) for cell in cells]
        row = Row(line, {key: texts[column] if column < len(cells) else "" for key, column in columns.items()})
        row.update({key: "" for key in row if key != "image" and row[key].lower() in MISSING})
        faults += [f"{where}line {line}: blank {key}" for key in required if not row[key]]
        read.append(row)
    return read


def _rows(text: str, delimiter: str, strict: bool = True, start: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the line it starts on: a quoted cell may hold line ends."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=strict)
    line = start
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield line, cells
        line = reader.line_num + start


def image_path(table: Path, row: Row, key: str, faults: list[str]) -> Path | None:
    """The file a cell names, absolute or relative to the table's folder; a fault and None where there is none.

    Backslashes separate folders on every system, as Windows writes them; letters with accents may be composed or not.
    """
    if not row[key]:
        return None  # reported as blank
    slashes = row[key].replace("\\", "/")
    for text in (row[key], slashes, unicodedata.normalize("NFC", slashes), unicodedata.normalize("NFD", slashes)):
        if is_file(table.parent / text):
            return table.parent / text
    why = ""
    if os.name != "nt" and re.match(r"[A-Za-z]:|\\\\", row[key]):
        why = ", a Windows path that does not exist on this machine: give paths relative to the table"
    faults.append(f"{row.place}: {key} {shown(row[key])} is not a file{why}")
    return None


def listed_mpp(row: Row, faults: list[str]) -> float | None:
    """The micrometres per pixel that a row gives, with a decimal point or comma; a fault where they are not valid."""
    text = row.get("mpp", "")
    if not text:
        return None
    try:
        size = check_mpp(float(text.replace(",", ".")))
    except (ValueError, ConfigError):
        low, high = MPP_RANGE
        faults.append(f"{row.place}: mpp {shown(text)} is no number of micrometres per pixel from {low:g} to {high:g}")
        return None
    return size[0] if size else None
