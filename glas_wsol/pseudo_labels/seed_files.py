# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Reads and writes seeds: a folder per round, a picture per image, and a record of how they were made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glas_wsol.errors import OutputError
from glas_wsol.pseudo_labels.seeds import SEEDS
from glas_wsol.utils import distributed
from glas_wsol.utils.digests import digest_of
from glas_wsol.utils.json_files import read_json, write_json
from glas_wsol.utils.settings import Fingerprint, as_json
from glas_wsol.writers.drawing import write_png

__all__ = ["MADE_WITH", "made_once", "read_record", "require_same", "with_seeds", "write_record", "write_seeds"]

logger = logging.getLogger(__name__)

MADE_WITH = "made_with"
"""Entry of a record: the settings that the seeds depend on."""

_RECORD = "seeds.json"


def made_once(
    folder: Path,
    items: Sequence[Mapping[str, Any]],
    made_with: Mapping[str, Any],
    make: Callable[[], tuple[Sequence[np.ndarray], Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """The items with their seeds, which are made unless they are there. Of several processes the first makes them.

    Args:
        folder: of the round.
        items: with ``name`` and ``label``.
        made_with: the settings that the seeds depend on; the items' names, labels and sources are added.
        make: the seeds of the items, and what else is to be recorded.

    Raises:
        OutputError: if seeds made with other settings are there.
    """
    listed = [[str(item["name"]), np.asarray(item["label"]).tolist(), item.get("source")] for item in items]
    settings = as_json({**made_with, "images": digest_of(listed)})

    def once() -> None:
        record = read_record(folder)
        if record is not None:
            require_same(folder, record, settings)
            logger.info("%s holds the seeds already", folder)
            return
        seeds, facts = make()
        write_seeds(folder, items, seeds, {MADE_WITH: settings, **facts})

    distributed.on_main(once)
    return with_seeds(items, folder)


def write_seeds(
    folder: Path, items: Sequence[Mapping[str, Any]], seeds: Sequence[np.ndarray], record: Mapping[str, Any]
) -> None:
    """Write the seeds of a round, its record last: where that is, they are whole.

    Args:
        items: with ``name``.
        seeds: of each, as :func:`~glas_wsol.pseudo_labels.seeds.pick_seeds` gives them.
        record: :data:`MADE_WITH`, and what else is known, JSON values only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _RECORD).unlink(missing_ok=True)  # an older one would call a half of these whole
    for item, one in zip(items, seeds, strict=True):
        write_png(folder / f"{item['name']}.png", one)
    write_record(folder, record)


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write or replace a round's record."""
    write_json(folder / _RECORD, record, allow_nan=False)


def read_record(folder: Path) -> dict[str, Any] | None:
    """A round's record; None if the round has no seeds, or not all of them."""
    path = folder / _RECORD
    if not path.is_file():
        return None
    try:
        record = dict(read_json(path))
        record[MADE_WITH] = dict(record[MADE_WITH])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputError("the record of these seeds is damaged", path, "choose another output_dir") from error
    return record


def require_same(folder: Path, record: Mapping[str, Any], made_with: Mapping[str, Any]) -> None:
    """Refuse seeds that were made with other settings: an OutputError names what has changed."""
    changed = Fingerprint(record[MADE_WITH]).changes(made_with)
    if changed:
        fix = "restore the settings, or choose another output_dir"
        raise OutputError(f"seeds made with other settings are here: {', '.join(changed)}", folder, fix)


def with_seeds(items: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """The items, each with the file of its seeds."""
    return [{**item, SEEDS: str(folder / f"{item['name']}.png")} for item in items]
