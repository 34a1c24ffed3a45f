# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Makes the results of slides, each in a folder that appears whole; a run that was killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from glas_wsol.engines.fault_tolerant_evaluator import Failure, failure_of
from glas_wsol.errors import OutputError
from glas_wsol.slides.localize_slide import CORE, HALO, SlideModel, localize_slide
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.json_files import read_json
from glas_wsol.utils.locks import claim, release
from glas_wsol.version import __version__
from glas_wsol.writers.slide_files import check_slide, slide_entry, slide_row, write_slide

__all__ = ["FOLDER", "SlideJob", "SlideResult", "run_slide"]

FOLDER = "slides"
"""Below the output folder: a folder for each slide."""

_DONE, _ENDS = "done.json", 1 << 20


@dataclass(frozen=True)
class SlideJob:
    """A slide to be done.

    Attributes:
        path: its file.
        name: unique in its run: that of its folder.
        mpp: micrometres per pixel at level 0; None as the slide says.
    """

    path: str
    name: str
    mpp: float | Sequence[float] | None = None


@dataclass(frozen=True)
class SlideResult:
    """What became of a slide.

    Attributes:
        row: of the table of slides; empty where it failed.
        entry: of the report; empty where it failed.
        seconds: that it took.
        earlier: whether it was finished by an earlier run.
        failure: why there is no result; None where there is one.
    """

    row: Mapping[str, Any] = field(default_factory=dict)
    entry: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    earlier: bool = False
    failure: Failure | None = None


def run_slide(
    job: SlideJob,
    model: SlideModel,
    output: Path,
    formats: Sequence[str],
    *,
    core: int = CORE,
    halo: int = HALO,
    overlay: bool = True,
    resume: bool = True,
    progress: bool = False,
) -> SlideResult:
    """Localize a slide and write its result, unless an earlier run with the same model and settings has.

    Args:
        output: folder of the run; the result is in ``slides/NAME`` below it.
        formats: of :data:`~glas_wsol.writers.slide_files.SLIDE_FORMATS`.
        core: side of a cell, px of the model.
        halo: px beyond it.
        overlay: whether to draw the overlay.
        resume: False to do again what is finished.
        progress: whether to show a bar of cells.

    Returns:
        The result, or why there is none where the fault is the slide's.

    Raises:
        GlasWsolError: where the whole run is at fault, or another run is at work on this slide.
    """
    folder, work = output / FOLDER / job.name, output / FOLDER / f".{job.name}.part"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        claim(folder)
        try:
            return _claimed(job, model, (folder, work), tuple(formats), overlay, (core, halo), resume, progress)
        finally:
            release(folder)
    except OSError as error:
        refused = OutputError.of_system(error)
        if refused is None:
            raise
        raise refused from error


def _claimed(
    job: SlideJob,
    model: SlideModel,
    folders: tuple[Path, Path],
    formats: tuple[str, ...],
    overlay: bool,
    cell: tuple[int, int],
    resume: bool,
    progress: bool,
) -> SlideResult:
    started, (folder, work) = time.monotonic(), folders
    written = {"formats": list(formats), "overlay": overlay}
    made_with = {
        **json.loads(json.dumps(model.made_with)),
        "slide": slide_digest(Path(job.path)),
        "given_mpp": job.mpp if job.mpp is None or isinstance(job.mpp, (int, float)) else list(job.mpp),
        "cell": list(cell),
        "glas_wsol": __version__,
        "torch": torch.__version__,
    }
    done = _finished(folder, made_with | written) if resume else None
    if done is not None:
        return SlideResult(done["row"], done["entry"], float(done["seconds"]), earlier=True)
    try:
        settings = replace(model, made_with=made_with)
        check_slide(job.path, formats)
        if not resume:
            shutil.rmtree(work, ignore_errors=True)
        found = localize_slide(
            settings, job.path, work, name=job.name, mpp=job.mpp, core=cell[0], halo=cell[1], progress=progress
        )
        result = work / "result"
        shutil.rmtree(result, ignore_errors=True)
        result.mkdir()
        write_slide(result, found, formats, overlay)
    except Exception as error:
        failure = failure_of(error, {"image": job.path, "name": job.name}, "localize")
        if failure is None:
            raise
        shutil.rmtree(work, ignore_errors=True)
        if "memory" in failure.what:
            failure = replace(failure, what="not enough memory for a cell", fix=f"give --cell {max(256, cell[0] // 2)}")
        return SlideResult(failure=failure)
    row, entry, seconds = slide_row(found), slide_entry(found), time.monotonic() - started
    files = {path.name: path.stat().st_size for path in sorted(result.iterdir())}
    with atomic_write(result / _DONE, "w", newline="\n") as file:
        whole = {
            "made_with": made_with | written,
            "row": row,
            "entry": entry,
            "files": files,
            "seconds": round(seconds, 2),
        }
        json.dump(whole, file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")
    if folder.exists():
        _remove_earlier(folder)
    result.rename(folder)
    shutil.rmtree(work, ignore_errors=True)
    return SlideResult(row, entry, seconds)


def slide_digest(path: Path) -> str:
    """Of a slide's file its size, first and last MiB: to read gigabytes would take as long as to localize them."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            digest.update(file.read(_ENDS))
            size = file.seek(0, 2)
            file.seek(max(0, size - _ENDS))
            digest.update(file.read(_ENDS))
    except OSError:  # the reader says what is wrong with it
        return ""
    return f"{size} {digest.hexdigest()}"


def _finished(folder: Path, made_with: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an earlier run says of its result, if it is whole and of the same slide, model and settings."""
    try:
        done = dict(read_json(folder / _DONE))
        whole = all((folder / name).stat().st_size == size for name, size in done["files"].items())
        return done if whole and done["made_with"] == made_with else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _remove_earlier(folder: Path) -> None:
    if not (folder / _DONE).is_file():
        raise OutputError("this folder is not one of earlier results", folder, "choose another --output")
    away = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(away, ignore_errors=True)
    folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)
