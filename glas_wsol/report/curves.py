# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Scales values over epochs to the coordinates of a small chart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from glas_wsol.report.run_folder import Series

__all__ = ["Chart", "Tick", "chart", "nice_ticks"]

WIDTH, HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 34


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis: its position in the drawing, and its text."""

    place: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A drawing of one series, in units of its view box.

    Attributes:
        summary: the same in a sentence, for those who do not see it.
        size: width and height of the view box.
        frame: left, top, right and bottom of the plot.
        line: points ``x,y`` of a polyline.
        dots: their places; empty where there are too many to tell apart.
        mark: place of the chosen epoch on the x axis; None where it is not in the series.
    """

    title: str
    summary: str
    size: tuple[int, int]
    frame: tuple[int, int, int, int]
    line: str
    dots: tuple[tuple[float, float], ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    mark: float | None


def chart(series: Series, chosen: int | None = None) -> Chart:
    """Lay out one series. ``series``: at least one point; ``chosen``: the epoch whose model was kept, if known."""
    epochs, values = zip(*series.points, strict=True)
    ticks = nice_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]
    first, last = epochs[0], max(epochs[-1], epochs[0] + 1)
    left, top, right, bottom = _LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def across(epoch: float) -> float:
        return round(left + (right - left) * (epoch - first) / (last - first), 1)

    def up(value: float) -> float:
        return round(bottom - (bottom - top) * (value - low) / (high - low), 1)

    places = [(across(epoch), up(value)) for epoch, value in series.points]
    steps = [int(epoch) for epoch in nice_ticks(first, last) if epoch == int(epoch) and first <= epoch <= last]
    best = f"; the model kept is that of epoch {chosen}" if chosen in epochs else ""
    return Chart(
        title=series.title,
        summary=f"{series.title}: {values[0]:.3g} after epoch {epochs[0]}, {values[-1]:.3g} after epoch {epochs[-1]}, "
        f"between {min(values):.3g} and {max(values):.3g}{best}.",
        size=(WIDTH, HEIGHT),
        frame=(left, top, right, bottom),
        line=" ".join(f"{x},{y}" for x, y in places),
        dots=tuple(places) if len(places) <= 40 else (),
        x=tuple(Tick(across(epoch), str(epoch)) for epoch in dict.fromkeys([first, *steps])),
        y=tuple(Tick(up(value), f"{value:.6g}") for value in ticks),
        mark=across(chosen) if chosen is not None and chosen in epochs else None,
    )


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers that enclose a range, evenly spaced by 1, 2 or 5 times a power of ten.

    Args:
        high: of the range, at least ``low``.
        most: ticks, at least 3.

    Returns:
        Two ticks at least, from at most ``low`` to at least ``high``.
    """
    if not high - low > 1e-9 * max(abs(low), abs(high), 1e-9):  # a constant
        low, high = low - max(abs(low), 1) / 10, high + max(abs(high), 1) / 10
    power = 10.0 ** math.floor(math.log10((high - low) / (most - 1)))
    for step in (power * factor for factor in (1, 2, 5, 10, 20, 50)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first < most:
            return [round(place * step, 12) for place in range(first, last + 1)]
    raise AssertionError("a step of 50 powers spans any range")
