# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What can happen to runs from outside, and what they leave. Used by reliability.py."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from places import mount_read_only, mount_small, unmount
from runs import Run, Told, Undisturbed, contents, finished

__all__ = ["FAULTS", "faults"]

_SECOND = ".second"
_LINE = re.compile(r"(?:error|interrupted|terminated): .*$", re.MULTILINE)


def _plain(run: Run) -> int:
    return run.finish()


def _after_the_first(run: Run) -> BaseProcess:
    """Start a run and wait until an image, or an epoch, is finished."""
    process = run.start()
    while process.is_alive() and not finished(run.output):
        time.sleep(0.05)
    return process


def _ended(process: BaseProcess) -> int:
    process.join()
    return int(process.exitcode or 0)


def _signalled(number: int) -> Callable[[Run], int]:
    def happens(run: Run) -> int:
        process = _after_the_first(run)
        os.kill(process.pid or 0, number)
        return _ended(process)

    return happens


def _without_its_workers(run: Run) -> int:
    process = _after_the_first(run)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.is_alive():  # a loader may be between two rounds
        with suppress(OSError):
            for worker in children.read_text().split():
                os.kill(int(worker), signal.SIGKILL)
        time.sleep(0.05)
    return _ended(process)


def _beside_another(run: Run) -> int:
    process = _after_the_first(run)
    status = replace(run, suffix=_SECOND, trouble="").finish()
    return status if _ended(process) in (0, 3) else int(process.exitcode or 1)


def _on_a_disk_that_fills(run: Run) -> int:
    """The output is a disk of its own, which is full as soon as an image, or an epoch, is finished."""
    mount_small(run.output, 200_000_000)
    process = _after_the_first(run)
    with suppress(OSError), (run.output / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    return _ended(process)


def _given_room(run: Run) -> None:
    (run.output / "filler").unlink()


def _read_only(run: Run) -> int:
    mount_read_only(run.output)
    return run.finish()


def _unmounted(run: Run) -> None:
    unmount(run.output)


def _victim(run: Run) -> Path:
    """An image of the run, and the place where it is kept meanwhile."""
    images = Path(run.settings["dataset_dir"])
    return images / ("tile_1.png" if run.kind == "inference" else "train_2.bmp")


def _put_aside(run: Run) -> Path:
    return run.output.with_suffix(".aside")


def _with_a_broken_disk(run: Run) -> int:
    """An image that opens and cannot be read: the system says EIO of a process's own memory at address 0."""
    _victim(run).rename(_put_aside(run))
    _victim(run).symlink_to("/proc/self/mem")
    return run.finish()


def _forbidden(run: Run) -> int:
    _put_aside(run).write_bytes(_victim(run).read_bytes())
    _victim(run).chmod(0)
    return run.finish()


def _mended(run: Run) -> None:
    _victim(run).unlink()
    _put_aside(run).rename(_victim(run))


@dataclass(frozen=True)
class Fault:
    """Something that happens to a run.

    Attributes:
        name: of the fault, for the table.
        kind: of the run.
        happens: carries the run out with the fault; the status.
        status: that it must have.
        words: that the last line must have.
        trouble: in the process, see :class:`~runs.Run`.
        mend: before the run is made again.
        settings: of the run besides.
        instead: the fault in its place where nothing can be mounted.
    """

    name: str
    kind: str
    happens: Callable[[Run], int]
    status: int
    words: str
    trouble: str = ""
    mend: Callable[[Run], None] = lambda run: None
    settings: dict[str, Any] = field(default_factory=dict)
    instead: Fault | None = None


def _of_both(kind: str) -> list[Fault]:
    training = kind == "train"
    reads = (1, "cannot be decoded (") if training else (3, "2 of ")  # one of them is damaged from the start
    late = " in epoch 2" if training else " at image 2"
    name = "files of 4000 bytes at most (no disk can be made here)"
    small = Fault(name, kind, _plain, 1, "File too large", f"small files{late}")
    locked = Fault(
        "an output folder without permission", kind, _locked, 1, "cannot be written (", "no rights", _unlocked
    )
    return [
        Fault("SIGTERM", kind, _signalled(signal.SIGTERM), 143, "terminated: run the same", "slow"),
        Fault("Ctrl-C", kind, _signalled(signal.SIGINT), 130, "interrupted: run the same", "slow"),
        Fault("a second process on the folder", kind, _beside_another, 1, "another run is at work here", "slow"),
        Fault(
            "a loader's worker is killed",
            kind,
            _without_its_workers,
            1,
            "worker was killed",
            "slow",
            settings={"num_workers": 1},
        ),
        Fault("no more files may be opened", kind, _plain, 1, "oo many open files", f"few files{late}"),
        Fault(
            "the disk is full",
            kind,
            _on_a_disk_that_fills,
            1,
            "cannot be written (No space left",
            "slow",
            _given_room,
            instead=small,
        ),
        Fault("a read-only disk", kind, _read_only, 1, "cannot be written (", mend=_unmounted, instead=locked),
        locked,
        Fault("an image that the disk cannot read", kind, _with_a_broken_disk, *reads, mend=_mended),
        Fault(
            "an image without permission",
            kind,
            _forbidden,
            reads[0],
            "no permission" if training else reads[1],
            "no rights",
            _mended,
        ),
    ]


def _locked(run: Run) -> int:
    run.output.mkdir()
    run.output.chmod(0o555)
    return run.finish()


def _unlocked(run: Run) -> None:
    run.output.chmod(0o755)


FAULTS = (
    *_of_both("inference"),
    *_of_both("train"),
    Fault("a loss of NaN in the second epoch", "train", _plain, 1, "the loss is nan", "NaN in epoch 2"),
)


def faults(told: Told, undisturbed: Undisturbed, which: Sequence[Fault], mounts: bool) -> None:
    """Let each fault happen, then run again without it.

    Args:
        told: receives the table.
        undisturbed: what to compare with.
        which: the faults.
        mounts: whether this process may mount.
    """
    told.table("what happens", "to", "status", "what is said", "bytes of the rerun")
    for number, wanted in enumerate(which):
        fault = wanted if mounts or wanted.instead is None else wanted.instead
        expected = undisturbed.run(fault.kind)
        made = {**undisturbed.settings[fault.kind], **fault.settings}
        run = Run(undisturbed.folder / f"fault_{fault.kind}_{number}", made, fault.kind, fault.trouble)
        status = fault.happens(run)
        second = replace(run, suffix=_SECOND)  # has its own
        log = (second if second.log.exists() else run).log
        lines = _LINE.findall(log.read_text(encoding="utf-8", errors="replace"))
        said = lines[-1] if lines else ""
        right = status == fault.status and fault.words in said
        told.good &= right
        fault.mend(run)
        if fault.happens is not _beside_another:
            Run(run.output, undisturbed.settings[fault.kind], fault.kind).finish()
        same = told.judge(contents(run.output) == expected)
        if fault.mend is _given_room:
            unmount(run.output)
        said = re.sub(r"\[[^\]]*\]", lambda found: f"[{Path(found[0][1:-1]).name}]", said)
        said = re.sub(r"\(process \d+ on [^)]*\)", "(process N on HOST)", said)
        told.row(fault.name, fault.kind, f"{status}{'' if right else ' NOT AS IT MUST'}", said, same)
    for kind in dict.fromkeys(fault.kind for fault in which):
        count = sum(fault.kind == kind for fault in which)
        told.sum_up(f"faults of {kind}", count, "one line and a status each; rerun: all bytes the same")
