# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read, compute and write at the same time: one thread ahead of the computation, and one behind it."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar, cast

from monai.data import DataLoader
from torch.utils.data import Dataset

__all__ = ["AheadDataLoader", "Background", "read_ahead"]

_T = TypeVar("_T")

_TRIMMED = 10  # pieces of work


class AheadDataLoader(DataLoader):
    """MONAI's ``DataLoader``, which reads in a thread what is wanted next.

    The mini-batches are the same, in the same order. Unlike those of MONAI's ``ThreadDataLoader``, a failure to read
    one is raised where it would be used: an epoch never ends early.

    Args:
        ahead: mini-batches that are read before they are needed, and the most that wait; 0 (default) for none.
            With worker processes, which read ahead by themselves, it does nothing.
    """

    def __init__(self, dataset: Dataset, ahead: int = 0, **kwargs: Any) -> None:
        super().__init__(dataset, **kwargs)
        self.ahead = ahead

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and augmentation are drawn next. ``epoch``: from 0."""
        for part in (self.dataset, self.sampler):
            cast("Any", part).set_epoch(epoch)  # only data sets and samplers that draw by epoch are given

    def __iter__(self) -> Iterator[Any]:
        """The mini-batches of an epoch."""
        batches = super().__iter__()
        return batches if self.num_workers > 0 or self.ahead == 0 else read_ahead(batches, self.ahead)


def read_ahead(items: Iterator[_T], count: int) -> Iterator[_T]:
    """The same items, read in a thread before they are needed; a failure to read one is raised where it would come.

    Args:
        items: what is read.
        count: how many are read ahead, and wait at most.
    """
    end: Any = object()
    reader = ThreadPoolExecutor(1, thread_name_prefix="reading")
    try:
        coming = deque(reader.submit(next, items, end) for _ in range(count))
        while (item := coming.popleft().result()) is not end:
            coming.append(reader.submit(next, items, end))
            yield item
    finally:
        reader.shutdown(cancel_futures=True)


class Background:
    """Does pieces of work in a thread, one after the other, in their order.

    Once one has failed, no later one is begun, and the failure is raised where the next is handed over, or at the end.

    Args:
        waiting: pieces that may wait while one is done; more are not taken until there is room, so that memory is
            bounded. 0 (default): no thread, each is done when it is handed over.
    """

    def __init__(self, waiting: int = 0) -> None:
        self.waiting = waiting
        self._failed, self._done = False, 0
        self._thread: ThreadPoolExecutor | None = None
        self._coming: deque[Future] = deque()

    def do(self, work: Callable[[], _T]) -> list[_T]:
        """Hand over a piece of work.

        Returns:
            The results of the pieces that have been done since the last call, in their order.

        Raises:
            Exception: what a piece raised.
        """
        if self.waiting == 0:
            return [work()]
        if self._thread is None:
            self._failed, self._thread = False, ThreadPoolExecutor(1, thread_name_prefix="writing")
        self._coming.append(self._thread.submit(self._unless_failed, work))
        found = []
        while self._coming and (self._coming[0].done() or len(self._coming) > self.waiting + 1):
            found.append(self._coming.popleft().result())
        return found

    def finish(self) -> list[Any]:
        """Wait until everything is done, and end the thread.

        Returns:
            The results that no call of :meth:`do` returned.

        Raises:
            Exception: what a piece raised.
        """
        try:
            return [one.result() for one in self._coming]
        finally:
            self.close()

    def close(self) -> None:
        """As :meth:`finish`, for a run that has failed already: other failures are not reported."""
        if self._thread is not None:
            with suppress(Exception):
                self._thread.shutdown()
        self._thread = None
        self._coming.clear()

    def _unless_failed(self, work: Callable[[], _T]) -> _T | None:
        if self._failed:
            return None
        try:
            return work()
        except BaseException:
            self._failed = True
            raise
        finally:
            self._done += 1
            if self._done % _TRIMMED == 0:
                _trim_memory()


def _trim_memory() -> None:
    """Give free memory back to the system; glibc keeps much of what one thread took and another freed."""
    with suppress(OSError, TypeError, AttributeError):  # another system
        ctypes.CDLL(None).malloc_trim(0)
