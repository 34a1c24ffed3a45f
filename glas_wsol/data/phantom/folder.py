# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Write a phantom to the disk: whole or not at all, with any number of processes, and never twice."""

from __future__ import annotations

import json
import shutil
import sys
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from glas_wsol.errors import ConfigError, OutputError
from glas_wsol.utils.processors import processors

__all__ = ["MANIFEST", "build_phantom", "check_request", "generator_of", "phantom_kind", "run_jobs"]

MANIFEST = "phantom.json"
_WORTHWHILE = 10.0  # seconds of work for which a process pays: starting one takes a few
_Job = TypeVar("_Job")


def generator_of(seed: int, name: str) -> np.random.Generator:
    """The source of randomness of one image: the same for any order, any number of processes and any other image."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def check_request(test: int = 0, seed: int = 0, **positive: float) -> None:
    """Refuse settings that are out of range.

    Args:
        test: number of test images; 0 is none.
        **positive: further ones, ``name=value``, which must be above 0.

    Raises:
        ConfigError: if one is.
    """
    if test < 0 or seed < 0:
        raise ConfigError(f"test is {test} and seed is {seed}", "phantom", "give numbers that are not negative")
    for name, value in positive.items():
        if not value > 0:
            raise ConfigError(f"{name} is {value}, not positive", "phantom", f"give a {name} greater than 0")


def run_jobs(
    function: Callable[[Path, _Job], None],
    folder: Path,
    jobs: Sequence[_Job],
    *,
    workers: int | None,
    seconds: float,
    progress: bool,
    title: str,
) -> None:
    """Call ``function(folder, job)`` for every job.

    Args:
        function: a function of a module, so that it can be sent to another process.
        workers: processes; 1 stays in this one, None takes one for each processor that this process may use, but none
            that would not have enough to do to be worth its start. Always 1 where the main program is a script, which
            every process would run once more.
        seconds: about what one job takes.
    """
    if workers is None:
        workers = min(processors(), int(seconds * len(jobs) / _WORTHWHILE))
    workers = min(workers, len(jobs)) if _may_spawn() else 1
    work = partial(function, folder)
    with tqdm(total=len(jobs), desc=title, unit="image", disable=not progress) as bar:
        if workers <= 1:
            for job in jobs:
                work(job)
                bar.update()
            return
        # Spawned, not forked: a fork of a process that runs threads (torch, a notebook) may hang.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(work, jobs, chunksize=max(1, len(jobs) // (8 * workers))):
                bar.update()


def _may_spawn() -> bool:
    """Whether a new process would leave the main program alone: it runs a script again, guarded or not."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m
        return spec.name.split(".")[-1] == "__main__"
    file = getattr(main, "__file__", None)  # a notebook and a shell have none
    return file is None or Path(file).stem == "glas-wsol"


def build_phantom(directory: str | Path, manifest: Mapping[str, Any], fill: Callable[[Path], None]) -> Path:
    """Write a phantom under a temporary name and give it its own when it is whole; reuse an equal one.

    Args:
        directory: where the phantom shall lie; it does not exist, is empty, or holds a phantom with the same manifest.
        manifest: everything the phantom depends on, as JSON values.
        fill: writes the phantom into the folder it is given.

    Raises:
        OutputError: the place holds something else, or is not writable.
    """
    target = Path(directory).expanduser().resolve()
    wanted = json.loads(json.dumps(manifest))
    if _holds(target, wanted):
        return target
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise OutputError(
            f"the phantom cannot be written ({error.strerror})", target, "choose a writable folder"
        ) from error
    try:
        fill(draft)
        (draft / MANIFEST).write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        try:
            if target.is_dir():
                target.rmdir()  # it was empty: not every system renames onto an empty folder
            draft.replace(target)
        except OSError as error:
            if not _holds(target, wanted):  # unless another process has just finished the same phantom
                raise OutputError(
                    f"the phantom cannot be moved ({error.strerror})", target, "free this path"
                ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _holds(target: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether the wanted phantom is there; anything else there is refused."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    elsewhere = "choose another folder"
    if not target.is_dir():
        raise OutputError("a file lies where the phantom should go", target, elsewhere)
    try:
        found = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"the folder exists and is no phantom (no readable {MANIFEST})", target, elsewhere) from error
    if found != wanted:
        keys = [k for k in {**wanted, **found} if found.get(k) != wanted.get(k)] if isinstance(found, dict) else ["all"]
        differs = f"the folder holds another phantom (different: {', '.join(keys)})"
        raise OutputError(differs, target, f"request the same phantom, or {elsewhere}")
    return True


def phantom_kind(folder: str | Path) -> str:
    """What a phantom's images show, by the file that its writer leaves in its folder.

    Args:
        folder: of images, at most two levels below the phantom's own.

    Returns:
        ``"tissue"`` or ``"birds"``; ``"images"`` where that file is damaged; empty for any other folder.
    """
    place = Path(folder).resolve()
    for one in (place, *place.parents[:2]):
        if (one / MANIFEST).is_file():
            try:
                kind = json.loads((one / MANIFEST).read_text(encoding="utf-8"))["phantom"]
            except (OSError, ValueError, TypeError, KeyError):
                kind = ""
            return kind if kind in ("tissue", "birds") else "images"
    return ""
