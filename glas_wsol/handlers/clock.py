# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Measures how long a training takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from glas_wsol.utils import distributed
from glas_wsol.utils.json_files import read_json, write_json

__all__ = ["TrainingClock", "read_clock"]

_ENTRIES = ("epoch", "seconds", "cpu_seconds", "device", "threads")


class TrainingClock:
    """Writes how long every epoch's optimiser steps took, without validation, so that methods' times can be compared.

    The file holds a list of ``{"epoch", "seconds", "cpu_seconds", "device", "threads"}``, one per epoch, also over
    interruptions: seconds of wall time, and of the processor time of all threads. Of several processes the first
    writes; processor time is then that of all, and the device includes their number.

    Args:
        after: that of an earlier stage of the same training, whose epochs are counted first; if it has none, one is
            left out in the numbers, so that a part is not taken for the whole.
    """

    def __init__(self, path: str | Path, after: str | Path | None = None) -> None:
        self.path = Path(path)
        self.after = None if after is None else Path(after)
        self._start = (0.0, 0.0)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, before the handler that validates."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end)

    def _begin(self, _: Engine) -> None:
        self._start = (time.perf_counter(), time.process_time())

    def _end(self, engine: Any) -> None:
        device = engine.state.device
        if device.type == "cuda":  # the steps were only queued
            torch.cuda.synchronize(device)
        seconds, used = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        processes, used = distributed.world_size(), sum(distributed.all_gather([used]))
        if distributed.not_main():
            return
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        earlier = [] if self.after is None else read_clock(self.after)
        number = engine.state.epoch if self.after is None else engine.state.epoch + max(len(earlier), 1)
        own = [one for one in read_clock(self.path) if len(earlier) < one["epoch"] < number]
        epochs = [*earlier, *own]
        epochs.append(
            {
                "epoch": number,
                "seconds": seconds,
                "cpu_seconds": used,
                "device": name if processes == 1 else f"{processes} x {name}",
                "threads": torch.get_num_threads(),
            }
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, epochs)


def read_clock(path: str | Path) -> list[dict[str, Any]]:
    """The epochs that a :class:`TrainingClock` wrote; none if there is no such file or it is damaged."""
    try:
        epochs = read_json(path)
        return [{key: one[key] for key in _ENTRIES} for one in epochs]
    except (OSError, ValueError, TypeError, KeyError):
        return []
