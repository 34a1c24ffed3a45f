# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs on many tiles as several runs on some of them each, and makes one run's results of theirs."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from glas_wsol.bundle.bundle_runs import BundleRun
from glas_wsol.bundle.inference_run import Results, infer, plan_inference
from glas_wsol.errors import GlasWsolError, OutputError
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.json_files import RECORD
from glas_wsol.utils.locks import claim, release
from glas_wsol.workers.processes import DIED, Executor, in_processes

__all__ = ["TileRun", "end_tiles", "run_tiles", "take_in"]

logger = logging.getLogger(__name__)

_LEAST = 8
"""Tiles of a batch: to start a process takes as long as some of them."""


@dataclass(frozen=True)
class TileRun:
    """A run of ``inference.json`` on tiles, as :func:`~glas_wsol.bundle.inference_run.plan_inference` takes it.

    Attributes:
        tiles: that are run on, each with ``image``, ``name`` and perhaps ``mpp``.
    """

    tiles: tuple[Mapping[str, Any], ...]
    model: tuple[str, ...]
    output: Path
    bundle: str | None
    settings: Mapping[str, Any]

    def make(self, folder: Path, tiles: Sequence[Mapping[str, Any]]) -> Results:
        """Run on some of the tiles, under the names that they have among all, into a folder of their own."""
        if not tiles:
            return Results(0, 0)
        run = plan_inference([tiles[0]["image"]], self.model, folder, self.bundle, self.settings)
        return infer(replace(run, settings={**run.settings, "images": [dict(one) for one in tiles]}))

    @staticmethod
    def folder(output: Path, number: int, count: int) -> Path:
        """Of a part of all tiles, from 1, until they are taken in."""
        return output / f".tiles-{number}-of-{count}"

    def part(self, number: int, count: int) -> tuple[Mapping[str, Any], ...]:
        """Every so manyth tile, from 1, but for those that an earlier run finished: the run on all looks at these."""
        # MONAI would take such a text for an expression; the run on all gives it as a path
        plain = [one for one in self.tiles if not set("@$%") & set(f"{one['image']}{one['name']}")]
        record = self.output / RECORD
        lines = record.read_text(encoding="utf-8").split("\n")[1:] if record.is_file() else []
        done = {one["name"] for one in _entries(lines)} if self.settings.get("resume", True) else set()
        return tuple(one for one in plain[number - 1 :: count] if one["name"] not in done)


def run_tiles(run: TileRun, jobs: int, executor: Executor | None = None) -> None:
    """Do the tiles in several processes; what is left over is for a run on all of them, which writes the tables.

    Args:
        jobs: how many batches, each for a process.
        executor: where they are done. None (default): processes of this machine.
    """
    count = min(jobs, len(run.tiles) // _LEAST)
    if count < (2 if executor is None else 1):
        return
    work = [(run, number, count) for number in range(1, count + 1)]
    beside = count if executor is None else 1
    for number, said in (executor or partial(in_processes, jobs=count))(_batch, work, _start, (beside,)):
        if said is None or said:
            logger.warning("tiles %d of %d: %s; they are done again at the end", number + 1, count, said or "died")
    take_in(run.output)


def end_tiles(run: BundleRun, executor: Executor | None = None) -> Results:
    """The run on all tiles, which does what the batches left over and writes the tables.

    Args:
        executor: where it is made. None (default): in this process.

    Raises:
        GlasWsolError: as the run, or if its process died.
    """
    if executor is None:
        return infer(run)
    ((_, found),) = executor(infer, [run], _start, (1,))
    if found is None:
        raise GlasWsolError(DIED, run.settings["output_dir"], "run it again, with more memory for a worker")
    return found


def _start(number: int, beside: int) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads() // beside))


def _batch(work: tuple[TileRun, int, int]) -> str:
    """What is wrong with a whole batch; empty where it is done."""
    run, number, count = work
    try:
        run.make(run.folder(run.output, number, count), run.part(number, count))
    except GlasWsolError as error:
        return str(error)
    return ""


def take_in(output: Path) -> None:
    """Move the results of batches and parts of a cohort to the folder of all, as if one run had written them.

    Args:
        output: of the run on all tiles; a batch that another process is at work on is left.

    Raises:
        OutputError: if a file that no run wrote is in the way.
    """
    for folder in sorted(output.glob(".tiles-*-of-*")):
        record = folder / RECORD
        if not record.is_file():
            continue
        claim(record)
        try:
            first, *lines = record.read_text(encoding="utf-8").split("\n")
            _merge(output, folder, first, _entries(lines))
        finally:
            release(record)
        shutil.rmtree(folder)


def _merge(output: Path, folder: Path, first: str, entries: Sequence[Mapping[str, Any]]) -> None:
    record = output / RECORD
    lines: dict[str, Mapping[str, Any]] = {}
    known: set[str] = set()
    if record.is_file():
        then, *rest = record.read_text(encoding="utf-8").split("\n")
        earlier = _entries(rest)
        known = {file for entry in earlier for file in entry["files"]}
        lines = {entry["name"]: entry for entry in earlier} if then == first else {}
    for entry in entries:
        for name in entry["files"]:
            target = output / name
            if target.exists() and name not in known:
                raise OutputError("this file is not one of earlier results", target, "choose another --output")
            target.parent.mkdir(parents=True, exist_ok=True)
            if (folder / name).is_file():
                (folder / name).replace(target)
        lines[entry["name"]] = entry
    with atomic_write(record, "w", newline="\n") as file:
        file.write(f"{first}\n")
        file.writelines(json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in lines.values())


def _entries(lines: Sequence[str]) -> list[dict[str, Any]]:
    """What a record says; the last line of a run that was killed may not be whole."""
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found
