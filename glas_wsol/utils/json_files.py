# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""JSON files of strangers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["RECORD", "RESULTS", "read_json"]

RECORD = "finished.jsonl"
"""Name of what a run of inference locks and keeps, see :class:`~glas_wsol.handlers.RunRecord`."""

RESULTS = 1_000_000_000
"""Bytes of the largest file of results: of some hundred thousand images."""


def read_json(path: str | Path, largest: int = 10_000_000) -> Any:
    """What a JSON file holds: mappings, lists, texts, numbers.

    Args:
        path: the file, in UTF-8.
        largest: bytes that it may have.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it is no JSON, too large, or nested more deeply than Python's own stack.
    """
    path = Path(path)
    if path.stat().st_size > largest:
        raise ValueError(f"more than {largest} bytes")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
