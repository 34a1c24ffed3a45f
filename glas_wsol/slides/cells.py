# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Cut a slide into cells of one grid, with a halo, for MONAI's ``PatchInferer``, and stitch what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from monai.inferers import Merger, Splitter
from torch import Tensor

from glas_wsol.utils.background import read_ahead

__all__ = ["Cell", "CellMerger", "CellSplitter", "Grid", "Store"]


class Cell(NamedTuple):
    """A cell's core, px of the padded slide, and the patch around it."""

    row: int
    column: int
    top: int
    left: int
    bottom: int
    right: int
    patch: tuple[int, int, int, int]
    """Top, left, bottom and right of what is read."""


@dataclass(frozen=True)
class Grid:
    """Cells of a slide at the pixel size of its model, beginning at the slide's corner.

    A halo ends where the slide does, as the whole would, with the padding that the network then uses.

    Attributes:
        size: height and width of the slide, px.
        core: side of a cell, px, a multiple of the stride.
        halo: px beyond it on each side, a multiple of the stride.
        stride: of the network; the slide is padded to a multiple of it, to the right and below.
    """

    size: tuple[int, int]
    core: int
    halo: int
    stride: int = 32

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width, padded."""
        height, width = (-(-side // self.stride) * self.stride for side in self.size)
        return height, width

    def cells(self) -> Iterator[Cell]:
        """All of them, row by row."""
        height, width = self.padded
        for row, top in enumerate(range(0, height, self.core)):
            for column, left in enumerate(range(0, width, self.core)):
                bottom, right = min(top + self.core, height), min(left + self.core, width)
                low = max(top - self.halo, 0), max(left - self.halo, 0)
                high = min(bottom + self.halo, height), min(right + self.halo, width)
                yield Cell(row, column, top, left, bottom, right, (*low, *high))


class Store(Protocol):
    """What keeps the stitched scores."""

    def open(self, shape: tuple[int, int]) -> None:
        """Make room for scores ``[h, w]`` of the whole padded slide; nothing where it has it."""
        ...

    def put(self, cell: Cell, top: int, left: int, values: np.ndarray) -> None:
        """Keep a cell's scores, from this place on."""
        ...


class CellSplitter(Splitter):
    """The wanted cells, each with its halo; the next is read while one is computed.

    Args:
        grid: of the slide.
        cells: those of its cells that are wanted.
        read: reads ``[h, w, 3]`` in [0, 1] of rows and columns; what lies outside is background.

    Attributes:
        current: the cell that was handed out last.
    """

    def __init__(
        self,
        grid: Grid,
        cells: Sequence[Cell],
        read: Callable[[tuple[int, int], tuple[int, int]], np.ndarray],
    ) -> None:
        super().__init__(patch_size=grid.core)
        self.grid, self.cells, self.read = grid, cells, read
        self.current: Cell | None = None

    def get_input_shape(self, inputs: Any) -> tuple:
        """Height and width of the padded slide."""
        return self.grid.padded

    def get_padded_shape(self, inputs: Any) -> tuple:
        """The same."""
        return self.grid.padded

    def __call__(self, inputs: Any) -> Iterator[tuple[Tensor, Sequence[int]]]:
        """Patches ``[1, 3, h, w]`` and their upper left corners. ``inputs`` are not used: a slide is no tensor."""

        def patches() -> Iterator[tuple[Cell, Tensor]]:
            for cell in self.cells:
                top, left, bottom, right = cell.patch
                pixels = self.read((top, bottom), (left, right))
                yield cell, torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]

        # MONAI's own buffer ends early and silently where reading fails
        for cell, patch in read_ahead(patches(), 1):
            self.current = cell
            yield patch, cell.patch[:2]


class CellMerger(Merger):
    """Keeps the core of every patch; halos are dropped, not averaged.

    Args:
        merged_shape: of the whole output, ``[1, 1, h, w]``.
        cells: says which of them comes back.
        store: where scores are kept.
    """

    def __init__(
        self, merged_shape: Sequence[int], cropped_shape: Any = None, *, cells: CellSplitter, store: Store
    ) -> None:
        super().__init__(merged_shape, cropped_shape)
        self.cells, self.store = cells, store
        self.ratio = cells.grid.padded[0] // merged_shape[2]
        store.open((merged_shape[2], merged_shape[3]))

    def aggregate(self, values: Tensor, location: Sequence[int]) -> None:
        """Keep a patch's core. ``values``: ``[1, 1, h, w]`` at its place ``location`` of the output."""
        cell = self.cells.current
        assert cell is not None
        top, left, bottom, right = (side // self.ratio for side in cell[2:6])
        down, across = location
        core = values[0, 0, top - down : bottom - down, left - across : right - across]
        self.store.put(cell, top, left, core.float().cpu().numpy())

    def finalize(self) -> None:
        """Nothing is left to do: every cell is kept as it comes."""
        self.is_finalized = True
