# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs a model on slides, in one process or several, and writes the tables of the run: results and failures."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from glas_wsol.cohorts.slide_jobs import FOLDER, SlideJob, SlideResult, run_slide
from glas_wsol.engines.fault_tolerant_evaluator import Failure
from glas_wsol.errors import ConfigError, OutputError, count, readable
from glas_wsol.loading import load_localizer
from glas_wsol.slides.localize_slide import CORE, HALO, SlideModel
from glas_wsol.transforms.pixel_size import check_mpp
from glas_wsol.transforms.reading.slide_formats import require_openslide
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.csv_files import read_table, write_csv
from glas_wsol.workers.processes import DIED, Executor, in_processes
from glas_wsol.writers.slide_files import check_slide_formats

__all__ = ["SlideRun", "failed_table", "plan_slides", "run_slides", "start_failures", "summary"]

logger = logging.getLogger(__name__)

_OF_MODEL = ("stain", "fill_holes", "drop_specks", "threshold")
_OF_RUN = ("device", "mpp", "formats", "overlays", "resume", "recursive", "cell", "halo")
_FAILED = ("image", "stage", "what", "fix")


@dataclass(frozen=True)
class SlideRun:
    """Slides, and how they are done.

    Attributes:
        slides: in their order.
        model: weights' file, output folder of a training, or exported bundle.
        load: what :func:`glas_wsol.load` takes besides.
        cell: side of a cell, px of the model.
        halo: px beyond it.
        jobs: how many processes of this machine.
        shard: which part of all slides these are, and of how many; None where they are all.
    """

    slides: tuple[SlideJob, ...]
    model: str
    output: Path
    load: Mapping[str, Any] = field(default_factory=dict)
    formats: tuple[str, ...] = ()
    overlays: bool = True
    resume: bool = True
    cell: int = CORE
    halo: int = HALO
    jobs: int = 1
    shard: tuple[int, int] | None = None

    def one(self, job: SlideJob, model: SlideModel, progress: bool = False) -> SlideResult:
        """Do one slide, see :func:`~glas_wsol.cohorts.slide_jobs.run_slide`."""
        return run_slide(
            job,
            model,
            self.output,
            self.formats,
            core=self.cell,
            halo=self.halo,
            overlay=self.overlays,
            resume=self.resume,
            progress=progress,
        )

    def loaded(self) -> SlideModel:
        """The model, which is loaded once a process."""
        return load_localizer(self.model, **self.load).for_slides()


def plan_slides(
    slides: Sequence[Mapping[str, Any]],
    model: Sequence[str | Path],
    output: str | Path,
    settings: Mapping[str, Any],
    jobs: int = 1,
    shard: tuple[int, int] | None = None,
) -> SlideRun:
    """Check what is wanted of slides before the first is opened.

    Args:
        slides: of :func:`~glas_wsol.data.slide_list.split_slides`.
        model: one model.
        output: receives the results.
        settings: ids of ``inference.json`` with their values, and ``cell``: those that make sense on a slide.
        jobs: how many processes.
        shard: which part of the slides is done here, from 1, and of how many. Defaults to None: all.

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
    check_mpp(given)
    wanted = slides if shard is None else slides[shard[0] - 1 :: shard[1]]
    items = tuple(SlideJob(one["image"], one["name"], given or one.get("mpp")) for one in wanted)
    formats = check_slide_formats(settings.get("formats"))
    return SlideRun(
        slides=items,
        model=str(model[0]),
        output=Path(output),
        load=load,
        formats=formats,
        overlays=bool(settings.get("overlays", True)),
        resume=bool(settings.get("resume", True)),
        cell=cells["cell"],
        halo=cells["halo"],
        jobs=min(jobs, len(items) or 1),
        shard=shard,
    )


def run_slides(
    run: SlideRun, model: SlideModel | None = None, progress: bool = True, executor: Executor | None = None
) -> list[SlideResult]:
    """Do the slides that are not done, in their order; one that fails does not stop the others.

    Writes ``slides.csv``, ``slides.json`` and, where a slide failed, its row of ``failed.csv``.

    Args:
        model: loaded already; None (default) to load it.
        progress: whether to show bars.
        executor: where the slides are done. None (default): the run's own processes, or this one.
    """
    found: dict[int, SlideResult] = {}
    with tqdm(total=len(run.slides), unit="slide", disable=not progress or len(run.slides) == 1) as bar:
        for number, result in _done(run, model, progress and len(run.slides) == 1, executor):
            failure = result.failure
            if failure is not None:
                logger.warning("no result of %s", readable(f"{failure.image}: {failure.what}: {failure.fix}"))
            found[number] = result
            bar.update()
    results = [found[number] for number in sorted(found)]
    _write_tables(run.output, results, run.shard)
    return results


def _done(
    run: SlideRun, model: SlideModel | None, progress: bool, executor: Executor | None
) -> Iterator[tuple[int, SlideResult]]:
    """The results as they come, each with the number of its slide."""
    if executor is None and (run.jobs == 1 or len(run.slides) < 2):
        model = run.loaded() if model is None else model
        for number, job in enumerate(run.slides):
            yield number, run.one(job, model, progress)
        return
    executor = executor or partial(in_processes, jobs=run.jobs)
    for number, result in executor(_work, run.slides, _start, (replace(run, slides=()),)):
        job = run.slides[number]
        died = Failure(job.path, job.name, "localize", DIED, f"give --cell {max(256, run.cell // 2)}, or fewer --jobs")
        yield number, SlideResult(failure=died) if result is None else result


_worker: dict[str, Any] = {}


def _start(number: int, run: SlideRun) -> None:
    """In process ``number`` of several: load the model once, on a device of its own where there are several."""
    torch.set_num_threads(max(1, torch.get_num_threads() // run.jobs))
    device = str(run.load.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device == "cuda" and torch.cuda.device_count() > 1:
        run = replace(run, load={**run.load, "device": f"cuda:{number % torch.cuda.device_count()}"})
    _worker.update(run=run, model=run.loaded())


def _work(job: SlideJob) -> SlideResult:
    return _worker["run"].one(job, _worker["model"])


def _write_tables(output: Path, results: Sequence[SlideResult], shard: tuple[int, int] | None) -> None:
    """The tables of a run: of slides with a result, and of those without; a part of a cohort has names of its own.

    Raises:
        OutputError: if a file of such a name is no earlier result, or cannot be written.
    """
    done = [result for result in results if result.failure is None]
    rows = [{**result.row, "seconds": f"{result.seconds:.1f}"} for result in done]
    part = _part(shard)
    write_csv(output / f"slides{part}.csv", rows)
    with atomic_write(output / f"slides{part}.json", "w", newline="\n") as file:
        entries = [{**result.entry, "folder": f"{FOLDER}/{result.entry['name']}"} for result in done]
        json.dump(entries, file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")
    failures = [
        {key: str(getattr(result.failure, key)) for key in _FAILED} for result in results if result.failure is not None
    ]
    if failures:  # behind those of the tiles, if there were any
        table = failed_table(output, shard)
        write_csv(table, [*(_read_failures(table) if table.exists() else ()), *failures])


def failed_table(output: Path, shard: tuple[int, int] | None) -> Path:
    """Where the failures of a run, or of a part of a cohort, are listed."""
    return output / f"failed{_part(shard)}.csv"


def _part(shard: tuple[int, int] | None) -> str:
    return f"_{shard[0]}_of_{shard[1]}" if shard else ""


def start_failures(table: Path) -> None:
    """Remove the failures of an earlier run, if there were any, where no run on tiles does.

    Raises:
        OutputError: if the file is none.
    """
    if table.exists():
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
