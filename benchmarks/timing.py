# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Measuring things side by side: in turn, in one process, by processor time on a CPU and by events on a GPU."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from scipy.stats import quantile_test
from tqdm import tqdm

__all__ = ["Goal", "compared", "machine", "print_goals", "print_table", "ratio", "round_robin", "spread"]


def round_robin(
    runs: Sequence[Callable[[], object]],
    rounds: int,
    device: str,
    warm_up: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> list[list[float]]:
    """Call each in turn, again and again: what disturbs the machine disturbs all of them.

    Every other round runs backwards: neighbours stay neighbours, and none always comes after the same one, in whose
    leavings of caches and memory it would run. None comes after itself: first and last are neighbours too.

    Args:
        runs: what to measure.
        rounds: how often each, after the warm-up.
        device: ``"cpu"``: seconds by the clock; ``"cuda"``: seconds between two events.
        warm_up: rounds before those that count.
        clock: defaults to the processor time of this process, which bears other programs on the machine.

    Returns:
        Seconds: for each of ``runs``, one per round.
    """
    taken: list[list[float]] = [[] for _ in runs]
    for number in tqdm(range(warm_up + rounds), "rounds"):
        order = range(len(runs))[:: -1 if number % 2 else 1]
        if len(runs) > 1:
            runs[order[-1]]()  # not measured
        for one in order:
            seconds = _on_gpu(runs[one]) if device == "cuda" else _on_cpu(runs[one], clock)
            if number >= warm_up:
                taken[one].append(seconds)
    return taken


def _on_cpu(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def _on_gpu(run: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def spread(times: Sequence[float]) -> str:
    """Median of seconds in ms, and the range about it in per cent."""
    middle = median(times)
    return f"{1000 * middle:.1f} ({100 * (min(times) / middle - 1):+.0f} to {100 * (max(times) / middle - 1):+.0f} %)"


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """Median over the rounds of the ratio within each: neighbours in time are disturbed alike."""
    return median(one / other for one, other in zip(times, others, strict=True))


@dataclass(frozen=True)
class Goal:
    """What a figure should be.

    Attributes:
        name: of the figure.
        found: the figure; None where it could not be measured.
        limit: what it should be at most.
        at_least: whether it should be at least that instead.
        interval: in which the figure lies with 95 % confidence; None where it was counted, or rounds are too few.
    """

    name: str
    found: float | None
    limit: float
    at_least: bool = False
    interval: tuple[float, float] | None = None

    @property
    def met(self) -> bool | None:
        """Whether it is; None where it was not measured."""
        if self.found is None:
            return None
        return self.found >= self.limit if self.at_least else self.found <= self.limit


def compared(
    name: str, times: Sequence[float], others: Sequence[float], limit: float, at_least: bool = False, per: float = 1.0
) -> Goal:
    """What a ratio should be, beside what it is, with the interval of its median.

    Args:
        name: see :class:`Goal`.
        times: of each round, from :func:`round_robin`.
        others: of the same rounds.
        limit: see :class:`Goal`.
        at_least: see :class:`Goal`.
        per: the ratio is divided by this.
    """
    ratios = [one / other / per for one, other in zip(times, others, strict=True)]
    low, high = quantile_test(ratios, p=0.5).confidence_interval(0.95)  # of order statistics; NaN below six rounds
    return Goal(name, median(ratios), limit, at_least, (float(low), float(high)) if not math.isnan(low) else None)


def print_goals(goals: Sequence[Goal]) -> None:
    """Print Markdown: each goal beside its figure, and whether it was met."""
    words = {None: "not measured", True: "yes", False: "NO"}
    rows = [[g.name, f"{'at least' if g.at_least else 'at most'} {g.limit:g}", _figure(g), words[g.met]] for g in goals]
    print_table(["goal", "asked", "found", "met"], rows)


def _figure(goal: Goal) -> str:
    if goal.found is None:
        return "-"
    interval = "" if goal.interval is None else f" ({goal.interval[0]:.3f} to {goal.interval[1]:.3f})"
    return f"{goal.found:.3f}{interval}"


def machine(device: str) -> str:
    """What it was measured on, in one line."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if platform.system() == "Linux" else []
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} thread(s)"
    return f"{name}; torch {torch.__version__}, Python {platform.python_version()}"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print Markdown.

    Args:
        columns: their titles.
        rows: as many cells each.
    """
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)
