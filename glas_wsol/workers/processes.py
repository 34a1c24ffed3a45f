# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Run work in several processes; one that dies loses only the piece that it was at."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, Protocol, TypeVar

__all__ = ["DIED", "Executor", "in_processes"]

_T = TypeVar("_T")

DIED = "the process died, most likely for lack of memory"
"""Message for work whose process ended without one of its own."""


class Executor(Protocol):
    """Where work is done: several processes, or the workers of a cluster; as :func:`in_processes`."""

    def __call__(
        self, work: Callable[[Any], _T], items: Sequence[Any], start: Callable[..., Any], arguments: tuple
    ) -> Iterator[tuple[int, _T | None]]:
        """Do the work, each piece's result with its number, as they are done; None where it killed its process."""
        ...


def in_processes(
    work: Callable[[Any], _T], items: Sequence[Any], start: Callable[..., Any], arguments: tuple = (), jobs: int = 2
) -> Iterator[tuple[int, _T | None]]:
    """Do work in several processes, one piece at a time in each.

    A pool of its own for each process: the death of one breaks its own pool alone, and only the piece that it was at is
    to blame. That is tried once more, in a new process.

    Args:
        work: of one piece; can be pickled, as the pieces can.
        items: the pieces.
        start: called once in every process, before its first piece, with the number of the process from 0.
        arguments: what it is given besides.
        jobs: how many processes.

    Yields:
        The number of a piece and its result, as they are done; None where its process died twice.
    """
    pools: dict[int, ProcessPoolExecutor] = {}
    numbers = threading.local()
    free = iter(range(jobs))
    lock = threading.Lock()
    stopped = threading.Event()

    def new_pool(number: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may never end
        return ProcessPoolExecutor(1, context, _begin, (start, number, *arguments))

    def one(item: Any) -> _T | None:
        if not hasattr(numbers, "own"):
            with lock:
                numbers.own = next(free)
        for _ in range(2):
            if stopped.is_set():
                return None
            try:
                if numbers.own not in pools:
                    pools[numbers.own] = new_pool(numbers.own)
                return pools[numbers.own].submit(work, item).result()
            except BrokenProcessPool:
                pools.pop(numbers.own).shutdown(wait=False)
        return None

    with ThreadPoolExecutor(jobs) as threads:
        waiting = {threads.submit(one, item): number for number, item in enumerate(items)}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        finally:
            stopped.set()
            for pool in list(pools.values()):
                pool.shutdown(wait=False, cancel_futures=True)


def _begin(start: Callable[..., Any], *arguments: Any) -> None:
    """In a new process: end when the process that started it ends, for whatever reason."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    start(*arguments)
