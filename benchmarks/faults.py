# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs in processes of their own, what can happen to them, and what they leave. Used by reliability.py."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "bundles" / "glas_minmax_entropy" / "configs"
_IMPORTS = ["monai.bundle", "monai.engines", "glas_wsol.ensembles", "glas_wsol.handlers", "glas_wsol.networks"]
_IMPORTS += ["glas_wsol.engines", "tensorboard", "torch.utils.tensorboard", "glas_wsol.data.seeded"]
_LINE = re.compile(r"^(?:error|interrupted|terminated): .*$", re.MULTILINE)

# A training of seconds; everything else is the bundle's own.
TRAINING: dict[str, Any] = {
    "trunk": "resnet18",
    "weights": "none",
    "epochs": 3,
    "batch_size": 4,
    "crop_size": 64,
    "passes": 2,
    "device": "cpu",
    "batch_norm": "frozen",
    "dropout": 0.5,
    "optimizer#lr": 0.01,
    "fold": "stratified-0",
}
PHANTOM: dict[str, Any] = {"seed": 0, "train": 12, "test": 4, "size": [104, 155], "scale": 0.2}


@dataclass
class Run:
    """What is run, and into which folder.

    Attributes:
        output: receives the results; ``OUTPUT.log``, beside it, all that is said.
        settings: overrides of the bundle's config.
        kind: ``"inference"`` or ``"train"``, the config.
        trouble: what happens inside the process, see :func:`_make_trouble`.
        environment: variables to set.
        suffix: of the log's name.
    """

    output: Path
    settings: dict[str, Any]
    kind: str = "inference"
    trouble: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    suffix: str = ""

    @property
    def log(self) -> Path:
        """Standard output and standard error."""
        return self.output.with_name(f"{self.output.name}{self.suffix}.log")

    def start(self) -> multiprocessing.process.BaseProcess:
        """Begin the run; torch and MONAI are imported once for all runs."""
        process = context().Process(target=_run, args=(self,))
        process.start()
        return process

    def finish(self) -> int:
        """Run to the end; the exit status, negative for a signal."""
        process = self.start()
        process.join()
        return int(process.exitcode or 0)


def context() -> multiprocessing.context.ForkServerContext:
    """Where processes come from."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_IMPORTS)
    return found


def _run(run: Run) -> None:
    """A run as the command line does it."""
    with run.log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(run.environment)
    time.tzset()
    import locale

    import monai.bundle
    import torch

    if run.environment:
        locale.setlocale(locale.LC_ALL, "")
    torch.set_num_threads(1)
    _make_trouble(run.trouble)
    try:
        config = str(CONFIGS / f"{'paper' if run.kind == 'train' else run.kind}.json")
        monai.bundle.run(config_file=config, output_dir=str(run.output), **run.settings)
    except Exception:
        sys.excepthook(*sys.exc_info())  # leaves with its own status
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(130) from None


def _make_trouble(kind: str) -> None:
    """Prepare what is to happen in this process: ``slow``, ``few files``, ``full disk``, ``NaN``."""
    import resource

    from glas_wsol.handlers import EpochSeed
    from glas_wsol.networks import MinMaxEntropyNetwork

    def before_epoch(number: int, act: Callable[[], None]) -> None:
        begin = EpochSeed.__call__

        def begun(self: EpochSeed, engine: Any) -> None:
            begin(self, engine)
            if engine.state.epoch == number:
                act()

        EpochSeed.__call__ = begun

    if kind == "slow":
        forward = MinMaxEntropyNetwork.forward

        def slowly(self: Any, image: Any) -> Any:
            time.sleep(0.1)
            return forward(self, image)

        MinMaxEntropyNetwork.forward = slowly
    elif kind == "few files":
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))  # noqa: PTH208
    elif kind == "full disk":
        _limit_files(4000)
    elif kind == "full disk, second epoch":
        before_epoch(2, lambda: _limit_files(1 << 20))
    elif kind == "NaN":
        before_epoch(2, _poison)


def _limit_files(size: int) -> None:
    """No file may become larger: writing more fails as on a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _poison() -> None:
    import torch

    step = torch.optim.SGD.step

    def poisoned(self: Any, *args: Any, **given: Any) -> Any:
        result = step(self, *args, **given)
        self.param_groups[0]["params"][0].data.fill_(float("nan"))
        return result

    torch.optim.SGD.step = poisoned


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too; of a training, what is to be the same: the models."""
    there = folder / "models" if (folder / "models").is_dir() else folder
    found = {p.relative_to(there).as_posix(): p.read_bytes() for p in sorted(there.rglob("*")) if p.is_file()}
    return {name: data for name, data in found.items() if name != "clock.json"}  # seconds


def finished(folder: Path) -> int:
    """How many images a run has recorded; of a training, whether it has finished an epoch."""
    record = folder / "finished.jsonl"
    if record.is_file():
        return max(0, len(record.read_bytes().split(b"\n")) - 2)
    return int((folder / "models" / "last.pt").is_file())


def _wait(process: multiprocessing.process.BaseProcess, folder: Path) -> None:
    while process.is_alive() and not finished(folder):
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _signalled(run: Run, number: int) -> int:
    process = run.start()
    _wait(process, run.output)
    os.kill(process.pid or 0, number)
    process.join()
    return int(process.exitcode or 0)


def _without_its_worker(run: Run) -> int:
    process = run.start()
    _wait(process, run.output)
    for worker in _children(process.pid or 0):
        os.kill(worker, signal.SIGKILL)
    process.join()
    return int(process.exitcode or 0)


def _beside_another(run: Run) -> int:
    process = run.start()
    _wait(process, run.output)
    run.suffix, run.trouble = ".second", ""
    status = run.finish()
    process.join()
    return status if process.exitcode in (0, 3) else int(process.exitcode or 0)


@dataclass(frozen=True)
class Fault:
    """Something that happens to a run.

    Attributes:
        name: of the fault, for the table.
        kind: of the run.
        trouble: in the process.
        happens: carries the run out with the fault; the status.
        status: that it must have.
        words: that the one line must have.
        settings: of the run besides.
    """

    name: str
    kind: str
    trouble: str
    happens: Callable[[Run], int]
    status: int
    words: str
    settings: dict[str, Any] = field(default_factory=dict)


def _plain(run: Run) -> int:
    return run.finish()


FAULTS = (
    Fault("SIGTERM", "inference", "slow", lambda run: _signalled(run, signal.SIGTERM), 143, "terminated: run the same"),
    Fault("Ctrl-C", "inference", "slow", lambda run: _signalled(run, signal.SIGINT), 130, "interrupted: run the same"),
    Fault("a second process on the folder", "inference", "slow", _beside_another, 1, "another run is at work here"),
    Fault(
        "its loader's worker killed",
        "inference",
        "slow",
        _without_its_worker,
        1,
        "worker was killed",
        {"num_workers": 1},
    ),
    Fault("no more files may be opened", "inference", "few files", _plain, 1, "oo many open files"),
    Fault("a full disk", "inference", "full disk", _plain, 1, "cannot be written (File too large)"),
    Fault("SIGTERM", "train", "slow", lambda run: _signalled(run, signal.SIGTERM), 143, "terminated: run the same"),
    Fault("Ctrl-C", "train", "slow", lambda run: _signalled(run, signal.SIGINT), 130, "interrupted: run the same"),
    Fault("a second process on the folder", "train", "slow", _beside_another, 1, "another run is at work here"),
    Fault("a full disk, from the second epoch on", "train", "full disk, second epoch", _plain, 1, "File too large"),
    Fault("a loss of NaN in the second epoch", "train", "NaN", _plain, 1, "the loss is nan"),
)


def faults(
    folder: Path, made: dict[str, dict[str, Any]], expected: dict[str, dict[str, bytes]], which: Sequence[Fault]
) -> bool:
    """Let each fault happen, then run again without it; prints a table, and says whether all ended as they must.

    Args:
        folder: to work in.
        made: settings by kind.
        expected: by kind, the files of an undisturbed run.
        which: the faults.
    """
    print("| what happens | to | status | what is said | bytes of the rerun |\n|---|---|---|---|---|")
    good = True
    for number, fault in enumerate(which):
        run = Run(folder / f"fault_{number}", {**made[fault.kind], **fault.settings}, fault.kind, fault.trouble)
        status = fault.happens(run)
        lines = _LINE.findall(run.log.read_text(encoding="utf-8", errors="replace"))
        said = lines[-1] if lines else ""
        right = status == fault.status and fault.words in said
        if fault.happens is not _beside_another:
            Run(run.output, made[fault.kind], fault.kind).finish()
        same = contents(run.output) == expected[fault.kind]
        good &= right and same
        said = re.sub(r"\[[^\]]*\]", lambda found: f"[{Path(found[0][1:-1]).name}]", said)
        cells = [
            fault.name,
            fault.kind,
            f"{status}{'' if right else ' NOT AS IT MUST'}",
            said,
            "same" if same else "OTHER",
        ]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    return good


def train_kills(
    folder: Path, settings: dict[str, Any], expected: dict[str, bytes], count: int, seed: int, seconds: float
) -> bool:
    """Kill trainings at random moments, four times each at most, let each be finished, and compare."""
    print("| run | killed after (s) | status of the last | bytes |\n|---|---|---|---|")
    moments, done, number, good = random.Random(seed), 0, 0, True  # noqa: S311 - moments, not secrets
    while done < count:
        run, told = Run(folder / f"train_killed_{number}", settings, "train"), []
        for _ in range(min(4, count - done)):
            moment = moments.uniform(0, seconds)
            process = run.start()
            process.join(moment)
            process.kill()
            process.join()
            ended = process.exitcode != -9
            done += not ended
            told.append(f"{moment:.2f}" + (" (had ended)" if ended else ""))
            if ended:
                break
        status = run.finish()
        same = contents(run.output) == expected
        good &= same and status == 0
        print(f"| {number} | {'; '.join(told)} | {status} | {'same' if same else 'OTHER'} |", flush=True)
        number += 1
    print(f"\n{done} kills of training in {number} runs: {'all bytes the same' if good else 'BYTES DIFFER'}")
    return good
