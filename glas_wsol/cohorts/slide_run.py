# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs a model on slides one after the other, and writes the tables of the run: results and failures."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glas_wsol.cohorts.slide_jobs import FOLDER, SlideJob, SlideResult, run_slide
from glas_wsol.errors import ConfigError, OutputError, count, readable
from glas_wsol.loading import load_localizer
from glas_wsol.slides.localize_slide import CORE, HALO, SlideModel
from glas_wsol.transforms.reading.slide_formats import require_openslide
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.csv_files import read_table, write_csv
from glas_wsol.writers.slide_files import check_slide_formats

__all__ = ["SlideRun", "plan_slides", "run_slides", "start_failures", "summary"]

logger = logging.getLogger(__name__)

_OF_MODEL = ("stain", "fill_holes", "drop_specks", "threshold")
_OF_RUN = ("device", "mpp", "formats", "resume", "recursive", "cell", "halo")
_FAILED = ("image", "stage", "what", "fix")


@dataclass(frozen=True)
class SlideRun:
    """Slides, and how they are done.

    Attributes:
        model: weights' file, output folder of a training, or exported bundle.
        load: what :func:`glas_wsol.load` takes besides.
        mpp: micrometres per pixel of all slides, or of its width and height; None as table or slide says.
        cell: side of a cell, px of the model.
    """

    jobs: tuple[SlideJob, ...]
    model: str
    output: Path
    load: Mapping[str, Any] = field(default_factory=dict)
    formats: tuple[str, ...] = ()
    resume: bool = True
    cell: int = CORE
    halo: int = HALO

    def loaded(self) -> SlideModel:
        """The model, which is loaded once a process."""
        return load_localizer(self.model, **self.load).for_slides()


def plan_slides(
    slides: Sequence[Mapping[str, Any]], model: Sequence[str | Path], output: str | Path, settings: Mapping[str, Any]
) -> SlideRun:
    """Check what is wanted of slides before the first is opened.

    Args:
        slides: of :func:`~glas_wsol.data.slide_files.split_slides`.
        model: one model.
        output: receives the results.
        settings: ids of ``inference.json`` with their values, and ``cell``: those that make sense on a slide.

    Raises:
        ConfigError: on any other setting, several models, or where OpenSlide is not installed.
    """
    require_openslide()
    wrong = [name for name in settings if name.rpartition("#")[2] not in (*_OF_MODEL, *_OF_RUN)]
    if wrong:
        raise ConfigError(f"--{wrong[0]} makes no sense on a slide", Path(slides[0]["image"]).name, "leave it out")
    if len(model) > 1:
        raise ConfigError("several models are not averaged on a slide", "--model", "give one")
    cells = {name: settings.get(name, usual) for name, usual in (("cell", CORE), ("halo", HALO))}
    for name, value in cells.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 32 or value % 32:
            raise ConfigError(f"{name}={value!r} is not a side of cells", f"--{name}", "give a multiple of 32, as 1024")
    load = {name.rpartition("#")[2]: value for name, value in settings.items() if name.rpartition("#")[2] in _OF_MODEL}
    if settings.get("device") is not None:
        load["device"] = settings["device"]
    given = settings.get("mpp")
    jobs = tuple(SlideJob(one["image"], one["name"], given or one.get("mpp")) for one in slides)
    formats = check_slide_formats(settings.get("formats"))
    return SlideRun(jobs, str(model[0]), Path(output), load, formats, bool(settings.get("resume", True)), **cells)


def run_slides(run: SlideRun, model: SlideModel | None = None, progress: bool = True) -> list[SlideResult]:
    """Do the slides that are not done, in their order; one that fails does not stop the others.

    Writes ``slides.csv``, ``slides.json`` and, where a slide failed, its row of ``failed.csv``.

    Args:
        model: loaded already; None (default) to load it.
        progress: whether to show bars.
    """
    model = run.loaded() if model is None else model
    results = []
    for job in run.jobs:
        result = run_slide(
            job,
            model,
            run.output,
            run.formats,
            core=run.cell,
            halo=run.halo,
            resume=run.resume,
            progress=progress,
        )
        if result.failure is not None:
            failure = result.failure
            logger.warning("no result of %s", readable(f"{failure.image}: {failure.what}: {failure.fix}"))
        results.append(result)
    _write_tables(run.output, results)
    return results


def _write_tables(output: Path, results: Sequence[SlideResult]) -> None:
    """The tables of a run: of slides with a result, and of those without.

    Raises:
        OutputError: if a file of such a name is no earlier result, or cannot be written.
    """
    done = [result for result in results if result.failure is None]
    rows = [{**result.row, "seconds": f"{result.seconds:.1f}"} for result in done]
    write_csv(output / "slides.csv", rows)
    with atomic_write(output / "slides.json", "w", newline="\n") as file:
        entries = [{**result.entry, "folder": f"{FOLDER}/{result.entry['name']}"} for result in done]
        json.dump(entries, file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")
    failures = [
        {key: str(getattr(result.failure, key)) for key in _FAILED} for result in results if result.failure is not None
    ]
    if failures:  # behind those of the tiles, if there were any
        table = output / "failed.csv"
        write_csv(table, [*(_read_failures(table) if table.exists() else ()), *failures])


def start_failures(table: Path) -> None:
    """Remove the failures of an earlier run, where no run on tiles does.

    Raises:
        OutputError: if the file is none.
    """
    _read_failures(table)
    table.unlink()


def _read_failures(table: Path) -> list[dict[str, str]]:
    what, fix = "this file is not one of earlier results", "choose another --output"
    columns, rows = read_table(table, what, fix)
    if tuple(columns) != _FAILED:
        raise OutputError(what, table, fix)
    return rows


def summary(results: Sequence[SlideResult], output: Path) -> str:
    """What became of the slides, in a sentence."""
    done = [result for result in results if result.failure is None]
    blank = sum(not result.entry["evidence"] for result in done)
    earlier = sum(result.earlier for result in done)
    before = f", {earlier} by an earlier run" if earlier else ""
    of = f"{len(done)} of {count(len(results), 'slide is', 'slides are')} done{before}"
    return f"{of} ({blank} show no evidence), in {output / FOLDER}"
