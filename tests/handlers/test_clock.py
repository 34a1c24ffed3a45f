# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Times of two stages in one file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from glas_wsol.handlers.clock import TrainingClock, read_clock


def run(path: Path, epochs: int, after: Path | None = None, start: int = 0) -> list[int]:
    engine = Engine(lambda engine, batch: None)

    @engine.on(Events.STARTED)
    def begin(_: Engine) -> None:
        engine.state.epoch, engine.state.device = start, torch.device("cpu")

    TrainingClock(path, after).attach(engine)
    engine.run([0], max_epochs=epochs)
    return [one["epoch"] for one in read_clock(path)]


def test_clock_resumed_puts_epochs_of_earlier_stage_first(tmp_path):
    one, two = tmp_path / "one" / "clock.json", tmp_path / "two" / "clock.json"
    assert run(one, 3) == [1, 2, 3]
    assert run(two, 1, one) == [1, 2, 3, 4]
    kept = read_clock(two)
    assert kept[:3] == read_clock(one)
    assert run(two, 2, one, start=1) == [1, 2, 3, 4, 5]
    assert read_clock(two)[:4] == kept
    assert run(two, 1, one) == [1, 2, 3, 4], "begun anew"


@pytest.mark.parametrize("damaged", [False, True])
def test_a_stage_whose_times_are_lost_leaves_a_gap(tmp_path, damaged):
    if damaged:
        (tmp_path / "one.json").write_text("[{}]")
    assert run(tmp_path / "two.json", 2, tmp_path / "one.json") == [2, 3], "1 is not there: the times are not whole"
