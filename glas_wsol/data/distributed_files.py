# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Describe a data set as its authors distribute it: what must be there, and how it is laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Bring", "Distributed"]

Bring = Callable[[str, str], object]
"""Moves or copies a file or folder to a place."""


@dataclass(frozen=True)
class Distributed:
    """A data set as its authors distribute it.

    Attributes:
        counts: how many images it has, by part.
        marks: the files by which its folder is recognised.
        faults: what is not as distributed in a folder, given the folder and the counts.
        lay_out: brings its files from its folder into a new one, which is not there yet, with those of the other
            folders that belong to it.
        pairs: its images, and the mask of each, as they should lie in its folder.
    """

    name: str
    page: str
    counts: Mapping[str, int]
    marks: tuple[str, ...]
    faults: Callable[[Path, Mapping[str, int]], list[str]]
    lay_out: Callable[[Path, Path, Sequence[Path], Callable[[Path], Bring]], None]
    pairs: Callable[[Path], list[tuple[Path, Path | None]]]
