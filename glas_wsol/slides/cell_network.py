# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a network with a local mask computes of a cell: scores to be stitched, and the class of windows in it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glas_wsol.errors import ConfigError
from glas_wsol.networks.component_network import FeatureComponentNetwork
from glas_wsol.networks.frozen_norm import frozen_norms
from glas_wsol.networks.maps import at_least_float32, resize_exactly
from glas_wsol.networks.refined import RefinedNetwork
from glas_wsol.networks.unet import SegmentationNetwork
from glas_wsol.slides.cells import Cell, Grid

__all__ = ["CellNetwork", "window_side"]


def window_side(network: Any) -> int:
    """Side of a square of the area of the model's training images, px at the training resolution, a multiple of 32.

    0 where the model does not record it, or its network names no class: no class is then given.
    """
    known = getattr(network, "familiarity", None)
    if known is None or not network.names_class:
        return 0
    pixels = next(iter(known.kinds.values())).pixels
    return max(64, 32 * round(math.sqrt(pixels) / 32))


class CellNetwork:
    """A trained network that is asked cell by cell.

    Args:
        network: in evaluation mode, on its device.
        grid: of the slide.
        side: of a window whose class is asked for, px; the cells' cores are multiples of it. 0 for no class.

    Raises:
        ConfigError: if its mask depends on the whole image.
    """

    def __init__(self, network: Any, grid: Grid, side: int) -> None:
        self.network, self.grid, self.side = network, grid, side
        self.device = next(iter(network.parameters())).device

    @staticmethod
    def check(network: Any) -> None:
        """Refuse, by a ConfigError, a network whose mask depends on the whole image."""
        if not getattr(getattr(network, "trunk", None), "local", True):
            what = "the trunk of this model is a transformer, whose features depend on the whole image"
            raise ConfigError(what, "--model", "for slides give a model of another trunk")
        if isinstance(network, (SegmentationNetwork, FeatureComponentNetwork)) or getattr(network, "local", False):
            return
        what = "the mask of this model depends on the whole image, which a slide does not fit in memory for"
        fix = "give one model of two stages (train without --method)"
        if getattr(network, "members", None) is not None:
            what, fix = "several models are not averaged on a slide", "give one --model"
        elif frozen_norms(network):
            fix = "make its masks local: python -m glas_wsol calibrate MODEL DATA --output LOCAL"
        raise ConfigError(what, "--model", fix)

    @torch.no_grad()
    def __call__(self, patch: Tensor, cell: Cell) -> tuple[Tensor, list[list[float] | None]]:
        """Predict.

        Args:
            patch: ``[1, 3, h, w]``, in [0, 1], of this cell.

        Returns:
            Scores ``[1, 1, h / s, w / s]``, ``s`` the stride that the network draws at; and of each window of the
            core, row by row, how probable each class is, None where nothing in it is decidable.
        """
        network = self.network
        x = network.normalise(patch.to(self.device))
        stages: list[Tensor] = []
        if isinstance(network, RefinedNetwork):
            stages = network.trunk.stages_of(x)
            scores = at_least_float32(network.decoder(stages[1:]))
        elif isinstance(network, FeatureComponentNetwork):
            (coarse,) = network.coarse_scores(x)  # one of tissue, which is what slides show
            scores = network.omega * coarse
        else:
            scores = network.mask_logits(x)
        if not self.side:
            return scores, []
        return scores, [self._window(x, stages, scores, cell, *place) for place in self.windows(cell)]

    def windows(self, cell: Cell) -> list[tuple[int, int]]:
        """Upper left corners of the windows of a cell's core, px of the padded slide."""
        tops, lefts = (range(cell.top, cell.bottom, self.side), range(cell.left, cell.right, self.side))
        return [(top, left) for top in tops for left in lefts]

    def _window(
        self, x: Tensor, stages: list[Tensor], scores: Tensor, cell: Cell, top: int, left: int
    ) -> list[float] | None:
        # at the slide's edge a window is moved back, as far as the patch reaches: C was trained on windows of its size
        high, low, end, right = cell.patch
        bottom, last = min(top + self.side, end), min(left + self.side, right)
        top, left = max(bottom - self.side, high), max(last - self.side, low)

        def cut(values: Tensor) -> Tensor:
            ratio = x.shape[2] // values.shape[2]
            rows, columns = (
                slice((a - start) // ratio, (b - start) // ratio)
                for a, b, start in ((top, bottom, high), (left, last, low))
            )
            return values[:, :, rows, columns]

        own = cut(scores)
        if not bool((own >= 0).any()):
            return None
        inside, network = cut(x), self.network
        mask = torch.sigmoid(resize_exactly(own, inside.shape[2], inside.shape[3]))
        if isinstance(network, FeatureComponentNetwork):
            logits = network.logits(inside, mask)
        else:
            logits = network.class_logits(inside, network.base.features_of([cut(one) for one in stages]), mask)
        return [round(p, 6) for p in network.probabilities(logits.double())[0].tolist()]

    def class_map(self, finished: dict[tuple[int, int], Any], classes: int) -> np.ndarray:
        """Class probabilities of all windows, ``[rows, columns, c]``; not a number where none were asked for."""
        height, width = self.grid.padded
        found = np.full((-(-height // self.side), -(-width // self.side), classes), np.nan, np.float32)
        for cell in self.grid.cells():
            for place, said in zip(self.windows(cell), finished.get((cell.row, cell.column)) or (), strict=False):
                if said is not None:
                    found[place[0] // self.side, place[1] // self.side] = said
        return found
