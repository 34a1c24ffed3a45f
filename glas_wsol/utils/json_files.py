# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read untrusted JSON files, and write the text of our own configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from glas_wsol.utils.atomic_files import atomic_write

__all__ = ["RECORD", "RESULTS", "format_config", "read_json", "write_json"]

RECORD = "finished.jsonl"
"""Name of the file that a run of inference locks and writes, see :class:`~glas_wsol.handlers.RunRecord`."""

_LONG = 30  # entries

RESULTS = 1_000_000_000
"""Bytes of the largest file of results: of some hundred thousand images."""


def read_json(path: str | Path, largest: int = 10_000_000) -> Any:
    """What a JSON file holds: mappings, lists, texts, numbers.

    Args:
        largest: bytes that it may have.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it is not JSON, too large, or nested more deeply than Python's own stack.
    """
    path = Path(path)
    if path.stat().st_size > largest:
        raise ValueError(f"more than {largest} bytes")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def write_json(path: str | Path, value: Any, allow_nan: bool = True) -> None:
    """Write a JSON file; it appears whole or not at all.

    Raises:
        OutputError: if it cannot be written.
        ValueError: if a number is not finite and ``allow_nan`` is off.
    """
    with atomic_write(path, "w") as file:
        file.write(json.dumps(value, indent=4, allow_nan=allow_nan) + "\n")


def format_config(value: Any, width: int = 120) -> str:
    """A config as text: four spaces, an object or a list on one line where it fits, else one entry per line.

    Of a long list of plain entries, such as a table of settings, as many as fit share a line.

    Args:
        width: characters of a line that holds a whole object or list.
    """

    def text(one: Any, indent: int, used: int) -> str:
        line = json.dumps(one, ensure_ascii=False)
        if used + len(line) <= width or not isinstance(one, (dict, list)) or not one:
            return line
        pad, inner = " " * indent, " " * (indent + 4)
        keys = [f"{json.dumps(key, ensure_ascii=False)}: " for key in one] if isinstance(one, dict) else [""] * len(one)
        parts = one.values() if isinstance(one, dict) else one
        lines = [f"{inner}{k}{text(v, indent + 4, indent + 5 + len(k))}" for k, v in zip(keys, parts, strict=True)]
        if len(lines) > _LONG and not any(isinstance(part, (dict, list)) for part in parts):
            rows = [inner + lines[0].strip()]
            for line in map(str.strip, lines[1:]):
                if len(rows[-1]) + len(line) + 3 <= width:
                    rows[-1] += f", {line}"
                else:
                    rows.append(inner + line)
            lines = rows
        left, right = "{}" if isinstance(one, dict) else "[]"
        return f"{left}\n" + ",\n".join(lines) + f"\n{pad}{right}"

    return text(value, 0, 0) + "\n"
