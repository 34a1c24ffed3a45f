# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What is read ahead and done in the background happens meanwhile, in order, bounded, and its failures are raised."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from torch.utils.data import Dataset

from glas_wsol.utils.background import AheadDataLoader, Background

PATIENCE = 30.0  # s, until a test gives up on what happens at once where it happens at all


class Numbers(Dataset):
    """0, 1, ...; one of them cannot be read. Remembers what was read, and by whom."""

    def __init__(self, count: int, broken: int = -1) -> None:
        self.count, self.broken = count, broken
        self.read: list[int] = []
        self.readers: set[str] = set()
        self.seen = [threading.Event() for _ in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        self.read.append(index)
        self.readers.add(threading.current_thread().name)
        self.seen[index].set()
        if index == self.broken:
            raise OSError("this one is broken")
        return index


def loader(numbers: Numbers, ahead: int) -> AheadDataLoader:
    return AheadDataLoader(numbers, ahead, batch_size=2, collate_fn=list)


@pytest.mark.parametrize("ahead", [0, 1, 3, 9])
def test_the_mini_batches_are_the_same_in_their_order(ahead):
    numbers = Numbers(7)
    assert list(loader(numbers, ahead)) == [[0, 1], [2, 3], [4, 5], [6]]
    assert list(loader(numbers, ahead)) == [[0, 1], [2, 3], [4, 5], [6]], "and again"
    assert len(loader(numbers, ahead)) == 4
    assert (threading.current_thread().name in numbers.readers) == (ahead == 0)


def test_prefetch_reads_one_item_ahead_and_no_more():
    numbers = Numbers(8)
    batches = iter(loader(numbers, 1))
    assert next(batches) == [0, 1]
    assert numbers.seen[3].wait(PATIENCE), "nobody has asked for it yet"
    batches.close()  # waits for what is being read
    assert numbers.read == [0, 1, 2, 3]


def test_a_failure_to_read_is_raised_at_its_place():
    batches = iter(loader(Numbers(8, broken=4), 3))
    assert [next(batches), next(batches)] == [[0, 1], [2, 3]]
    with pytest.raises(OSError, match="broken"):
        next(batches)
    assert not [t for t in threading.enumerate() if t.name.startswith("reading")], "the thread has ended"


def waiter(event: threading.Event, result: int) -> Callable[[], int]:
    def work() -> int:
        assert event.wait(PATIENCE)
        return result

    return work


def test_work_is_done_meanwhile_in_order_and_little_of_it_waits():
    background, go = Background(1), [threading.Event() for _ in range(4)]
    found = background.do(waiter(go[0], 0))
    found += background.do(waiter(go[1], 1))
    assert found == [], "one is being done, one waits, and this goes on"
    threading.Timer(0.05, go[0].set).start()
    found += background.do(waiter(go[2], 2))  # no room before the first is done
    assert found == [0]
    for event in go:
        event.set()
    assert background.finish() == [1, 2]
    assert background.finish() == []
    assert not [t for t in threading.enumerate() if t.name.startswith("writing")]
    assert background.do(lambda: 5) + background.finish() == [5], "it can be used again"


def test_without_a_thread_work_is_done_at_once():
    background = Background()
    assert background.do(lambda: threading.current_thread().name) == [threading.current_thread().name]
    with pytest.raises(ZeroDivisionError):
        background.do(lambda: 1 // 0)
    assert background.finish() == []


@pytest.mark.parametrize("how", ["later", "at the end"])
def test_after_a_failure_nothing_more_is_begun_and_it_is_raised(how):
    background, done = Background(1), []

    def fail() -> None:
        raise OSError("no room on the disk")

    background.do(lambda: done.append(0))
    with pytest.raises(OSError, match="no room"):  # noqa: PT012 - one of several calls raises
        background.do(fail)
        background.do(lambda: done.append(1))
        if how == "later":
            for number in range(2, 9):
                background.do(lambda number=number: done.append(number))
        background.finish()
    background.close()
    assert done == [0]
    assert background.do(lambda: 7) + background.finish() == [7]


def test_what_was_handed_over_is_done_before_it_closes():
    background, go, done = Background(2), threading.Event(), []
    background.do(waiter(go, 0))
    background.do(lambda: done.append(1))
    background.do(lambda: done.append(2))
    threading.Timer(0.05, go.set).start()
    background.close()
    assert done == [1, 2]
