# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Work on the workers of a dask cluster: as several processes do it, on one machine or on many."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import yaml

from glas_wsol.errors import BusyError, ConfigError, OutputError, count
from glas_wsol.utils.processors import processors
from glas_wsol.version import __version__

__all__ = ["Dask", "dask_cluster"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_CONFIG = {
    "distributed.deploy.lost-worker-timeout": "600s",  # 15 s are few to start a worker anew on a busy machine
    # a worker that is paused for its memory's sake waits for ever for results to be fetched: these are on disk
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
}
_SYSTEMS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
    "local": "LocalCluster",
}
_GPU = "GPU"  # the resource's name
_START, _ANSWER = 300.0, 20.0  # s to wait for a worker here, and for a scheduler to answer
_LOOK, _PAUSE = 1.0, 2.0  # s between two looks at the cluster, and at work that another process is at


@contextmanager
def dask_cluster(where: str, jobs: int | None, gpu: bool, output: Path) -> Iterator[Dask]:
    """Connect to a dask cluster, or start one that ends with the block.

    Args:
        where: ``"local"``: processes of this machine; a YAML file with the section ``jobqueue`` of dask-jobqueue: jobs
            of a batch system; else a scheduler's address.
        jobs: how many workers are started or, of those there are at an address, used. None: one, or all.
        gpu: whether each piece of work needs the resource ``GPU`` of a worker.
        output: the folder that the work is written into; workers must see it.

    Raises:
        ConfigError: if dask is not installed, the file or its settings are not valid, nobody answers at the address,
            or none of its workers has a GPU where one is needed.
    """
    if find_spec("distributed") is None:
        raise ConfigError("dask.distributed is not installed", "--dask", 'pip install "glas_wsol[cohort]"')
    import dask
    from distributed import Client

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the output folder ({error.strerror})", output, "choose another") from error
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_CONFIG))
        own = where == "local" or where.endswith((".yaml", ".yml"))
        if where == "local":
            from distributed import LocalCluster

            threads = os.environ.get("OMP_NUM_THREADS", str(max(1, processors() // (jobs or 1))))
            cluster: Any = LocalCluster(
                n_workers=jobs or 1,
                env={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
                threads_per_worker=1,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                resources={_GPU: 1} if gpu else None,
            )
        else:
            cluster = stack.enter_context(_queue(where, jobs or 1)) if own else where
        if own:
            stack.enter_context(cluster)
        try:
            client = stack.enter_context(Client(cluster, timeout=_ANSWER))
        except (OSError, ValueError) as error:
            raise ConfigError(f"no dask scheduler answers ({error})", where, "start it: dask scheduler") from error
        found = Dask(client, jobs if not own else None, gpu, output, _START if where == "local" else math.inf)
        known = _workers_of(client)
        if known and gpu and not found.workers():
            fix = "start them with --resources GPU=1, or give --device cpu"
            raise ConfigError(f"none of the {count(len(known), 'worker')} has a GPU", where, fix)
        waiting = "" if known else "; the work begins with the first"
        print(f"dask: {count(len(known), 'worker')}{waiting}; dashboard {client.dashboard_link}", flush=True)
        yield found


@contextmanager
def _queue(file: str, jobs: int) -> Iterator[Any]:
    """A cluster whose workers are jobs of a batch system."""
    if find_spec("dask_jobqueue") is None:
        raise ConfigError("dask-jobqueue is not installed", file, 'pip install "glas_wsol[cohort]"')
    import dask
    import dask_jobqueue
    import dask_jobqueue.local

    fix = "give jobqueue: slurm: cores: 1, memory: 4GiB, ... (docs/cluster.md)"
    try:
        systems = dict(yaml.safe_load(Path(file).read_text(encoding="utf-8"))["jobqueue"])
        ((name, settings),) = systems.items()
        kind = _SYSTEMS[name]
        options = {f"jobqueue.{name}.{key}": value for key, value in dict(settings).items()}
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", file, "name a file that exists") from error
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(
            "not the settings of one batch system", file, f"{fix}; known are {', '.join(_SYSTEMS)}"
        ) from error
    with dask.config.set(options):
        make = getattr(dask_jobqueue, kind) if name != "local" else dask_jobqueue.local.LocalCluster
        try:
            cluster = make()
        except (ValueError, TypeError) as error:
            raise ConfigError(f"dask-jobqueue refuses these settings ({error})", file, fix) from error
        cluster.scale(jobs=jobs)
        yield cluster


def _workers_of(client: Any) -> dict[str, Any]:
    """What the scheduler says of each worker, by its address.

    Not by ``scheduler_info``, whose value another thread of the client may replace by one without workers.
    """
    return client.sync(client.scheduler.identity, n_workers=-1)["workers"]


@dataclass(frozen=True)
class Dask:
    """The workers of a cluster, as :func:`~glas_wsol.workers.processes.in_processes` has processes.

    Attributes:
        client: connected.
        jobs: how many workers are used at most; None for all.
        gpu: whether a piece of work needs a GPU of its worker's.
        output: the folder that results are written into.
        patience: s to wait for a worker where there is none.
    """

    client: Any
    jobs: int | None
    gpu: bool
    output: Path
    patience: float = math.inf
    busy: set[str] = field(default_factory=set, init=False)
    """Addresses of workers that were given a piece, of whichever call."""
    guard: threading.Lock = field(default_factory=threading.Lock, init=False)

    def workers(self) -> list[str]:
        """The addresses of those that are there now and may be used."""
        known = _workers_of(self.client)
        return [address for address, one in known.items() if not self.gpu or _GPU in one["resources"]][: self.jobs]

    def __call__(
        self, work: Callable[[Any], _T], items: Sequence[Any], start: Callable[..., Any], arguments: tuple
    ) -> Iterator[tuple[int, _T | None]]:
        """Do work, one piece at a time in each worker; arguments and results as of ``in_processes``.

        Each piece is for one worker: dask blames a worker's death on all that waits there, and hands it to others. A
        piece whose worker died is tried once more, and has the result None if that died too. One that a worker of an
        earlier, killed run is still at is tried again until that has ended.

        Raises:
            ConfigError: if a worker does not see the folders of this run, or has another version of the package.
        """
        run = _Run(os.urandom(8).hex(), str(Path.cwd()), str(self.output.absolute()), start, arguments)
        left, waiting = deque(range(len(items))), _Waiting(self)
        deaths: Counter[int] = Counter()
        try:
            while left or waiting.pieces:
                for address in waiting.claim(len(left)):
                    number = left.popleft()
                    waiting.add(number, address, _piece, run, work, items[number])
                for number, future in waiting.ended():
                    try:
                        result = None if future is None else _result(future)
                        if future is not None:
                            future.release()  # or dask does it again if its worker dies later
                    except BusyError as error:
                        logger.warning("%s; it is tried again until that has ended", error.what)
                        left.append(number)
                        time.sleep(_PAUSE)
                        continue
                    deaths[number] += result is None
                    if deaths[number] == 1 and result is None:
                        left.append(number)
                    else:
                        yield number, result
        finally:
            waiting.give_up()


class _Waiting:
    """Pieces that workers are at, each alone at its own."""

    def __init__(self, cluster: Dask) -> None:
        self.cluster = cluster
        self.pieces: dict[int, tuple[Any, str]] = {}
        self.known: list[str] = []
        self.looked, self.seen = -_LOOK, time.monotonic()

    def look(self) -> None:
        """Find out which workers there are, once in a while."""
        if time.monotonic() - self.looked >= _LOOK:
            self.known, self.looked = self.cluster.workers(), time.monotonic()
            self.seen = self.looked if self.known else self.seen
            if self.looked - self.seen > self.cluster.patience:
                raise ConfigError("no dask worker starts", "--dask", "see what is said above, or use --jobs")

    def claim(self, most: int) -> list[str]:
        """Workers that have nothing to do, and are now taken."""
        self.look()
        with self.cluster.guard:
            idle = [address for address in self.known if address not in self.cluster.busy][:most]
            self.cluster.busy.update(idle)
        return idle

    def add(self, number: int, address: str, *call: Any) -> None:
        """Hand a piece to a worker."""
        needs = {_GPU: 1} if self.cluster.gpu else None
        future = self.cluster.client.submit(*call, workers=[address], pure=False, retries=1, resources=needs)
        self.pieces[number] = future, address

    def ended(self) -> Iterator[tuple[int, Any]]:
        """Wait a moment for pieces that are done, each with its future; None instead where the worker is gone."""
        from distributed import wait

        futures = [future for future, _ in self.pieces.values()]
        done: set[Any] = set()
        try:
            if futures:
                found: Any = wait(futures, timeout=_LOOK, return_when="FIRST_COMPLETED")
                done = set(found.done)
        except (TimeoutError, asyncio.TimeoutError):  # which are not one before Python 3.11
            pass
        if not futures:
            time.sleep(_LOOK)
        elif not done:
            self.look()
        for number, (future, address) in list(self.pieces.items()):
            if future in done or address not in self.known:
                del self.pieces[number]
                self.cluster.busy.discard(address)
                if future not in done:
                    self.cluster.client.cancel([future], force=True)
                yield number, future if future in done else None

    def give_up(self) -> None:
        """Withdraw what is not done."""
        self.cluster.client.cancel([future for future, _ in self.pieces.values()], force=True)
        self.cluster.busy.difference_update(address for _, address in self.pieces.values())


def _result(future: Any) -> Any:
    """Of a piece; None if it killed its worker."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return None
    except ImportError as error:
        raise ConfigError(f"a worker cannot import the package ({error})", "--dask", _SAME) from error


_SAME = f"install glas_wsol {__version__} where the workers are started"


@dataclass(frozen=True)
class _Run:
    """What a worker needs to know of a run."""

    key: str
    cwd: str
    output: str
    start: Callable[..., Any]
    arguments: tuple
    version: str = __version__


_one_at_a_time = threading.Lock()
_started = [""]  # the run that this worker has last been started for


def _piece(run: _Run, work: Callable[[Any], Any], item: Any) -> Any:
    """In a worker: do a piece, with the model that is there from the one before."""
    from distributed import get_worker

    with _one_at_a_time:
        if _started[0] != run.key:
            worker = get_worker()
            if run.version != __version__:
                raise ConfigError(f"glas_wsol {__version__} on the worker {worker.address}", "--dask", _SAME)
            for folder in (run.cwd, run.output):
                if not Path(folder).is_dir():
                    what = f"the worker {worker.address} does not see this folder"
                    raise ConfigError(what, folder, "choose one that all workers see, and start the command there")
            os.chdir(run.cwd)
            _started[0] = ""
            run.start(worker.name if isinstance(worker.name, int) else 0, *run.arguments)
            _started[0] = run.key
        return work(item)
