# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Reads and writes the manifest of a run's folder: its settings, and whether it is finished and intact."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any

from glas_wsol.errors import OutputError
from glas_wsol.experiments.study.plan import Run
from glas_wsol.utils.digests import sha256_of
from glas_wsol.utils.json_files import read_json, write_json
from glas_wsol.utils.settings import Fingerprint
from glas_wsol.version import PACKAGE, __version__

__all__ = ["MANIFEST", "Found", "State", "begin", "code_digest", "finish", "inspect"]

MANIFEST = "run.json"
EVALUATION = ("evaluation.json", "evaluation.npz")


class State(Enum):
    """What a run's folder holds."""

    NEW = "to run"
    UNFINISHED = "goes on"
    FINISHED = "finished"
    OTHER_EVALUATION = "evaluated with other settings"
    OTHER_TRAINING = "made with other settings"
    FOREIGN = "files of something else"


@dataclass(frozen=True)
class Found:
    """A run's folder, compared with the run.

    Attributes:
        changed: one clause per setting that differs.
        manifest: its ``run.json``; empty where there is none.
    """

    state: State
    changed: tuple[str, ...] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict)


def inspect(run: Run) -> Found:
    """Compare a run with what its folder holds; nothing is changed.

    A finished run whose ``evaluation.json`` or ``evaluation.npz`` is missing or was changed counts as unfinished.

    Raises:
        OutputError: if the folder's manifest is damaged.
    """
    path = run.folder / MANIFEST
    if not path.is_file():
        # a file that was being written when its process ended has a hidden name
        used = run.folder.exists() and (run.folder.is_file() or any(p.name[0] != "." for p in run.folder.iterdir()))
        return Found(State.FOREIGN if used else State.NEW)
    try:
        manifest = read_json(path)
        then = manifest["config"]["training"], manifest["config"]["evaluation"]
        digests = manifest["evaluation_sha256"] if manifest["finished"] else None
        made = manifest["config_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError("the run's manifest is damaged", path, "move this run's folder away") from error
    changed = [clause for old, now in zip(then, (run.training, run.evaluation), strict=True)
               for clause in Fingerprint(old).changes(now)]  # fmt: skip
    if (changed or made != _digest(run)) and digests is None and not (run.folder / "models").exists():
        return Found(State.NEW)  # it failed before its first whole epoch: nothing would be lost
    if changed or made != _digest(run):
        same_model = Fingerprint(then[0]).digest() == Fingerprint(run.training).digest()
        state = State.OTHER_EVALUATION if same_model else State.OTHER_TRAINING
        return Found(state, tuple(changed or ["its manifest was changed"]), manifest)
    intact = digests is not None and all(
        (run.folder / name).is_file() and sha256_of(run.folder / name) == digests.get(name) for name in EVALUATION
    )
    return Found(State.FINISHED if intact else State.UNFINISHED, (), manifest)


def begin(run: Run, found: Found) -> None:
    """Record in the run's folder that this run is being made there.

    A model trained with other settings is removed with its folder; an older evaluation always is.
    """
    try:
        if found.state is State.OTHER_TRAINING:
            shutil.rmtree(run.folder)
        run.folder.mkdir(parents=True, exist_ok=True)
        for name in EVALUATION:
            (run.folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"the run's folder cannot be written ({error.strerror})", run.folder, "free it") from error
    earlier = 0.0 if found.state is State.OTHER_TRAINING else found.manifest.get("seconds", 0.0)
    _write(run, finished=False, seconds=earlier, digests=None)


def finish(run: Run, seconds: float, finished: bool = True) -> None:
    """Record the end of a run: its time, added to that of earlier attempts, and what it wrote.

    Args:
        seconds: that it took, this time.
        finished: whether it is complete; otherwise it goes on when it is called again.

    Raises:
        OutputError: if it wrote no evaluation.
    """
    before = read_json(run.folder / MANIFEST)["seconds"]
    digests = None
    if finished:
        for name in EVALUATION:
            if not (run.folder / name).is_file():
                raise OutputError(f"the run wrote no {name}", run.folder, "look at its log.txt")
        digests = {name: sha256_of(run.folder / name) for name in EVALUATION}
    _write(run, finished, round(before + seconds, 1), digests)


@cache
def code_digest() -> str:
    """SHA-256 of this package's modules, names and texts: the same code has the same."""
    root = PACKAGE
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _digest(run: Run) -> str:
    return Fingerprint(training=run.training, evaluation=run.evaluation).digest()


def _write(run: Run, finished: bool, seconds: float, digests: Mapping[str, str] | None) -> None:
    manifest = {
        "method": run.method,
        "fold": run.fold,
        "seed": run.seed,
        "finished": finished,
        "seconds": seconds,
        "version": __version__,
        "code_sha256": code_digest(),
        "config_sha256": _digest(run),
        "evaluation_sha256": digests,
        "needs": run.needs,
        "commands": [list(command) for command in run.commands],
        "config": {"training": dict(run.training), "evaluation": dict(run.evaluation)},
    }
    write_json(run.folder / MANIFEST, manifest)
