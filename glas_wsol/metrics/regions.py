# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Overlap of the mask with the truth, per image, then the mean over images (F1+ and F1- of the paper)."""

from __future__ import annotations

from typing import Any

import torch
from monai.handlers import IgniteMetricHandler
from monai.metrics import DiceMetric
from torch import Tensor

from glas_wsol.errors import ConfigError

__all__ = ["RegionF1"]


class RegionF1(IgniteMetricHandler):
    """F1 (Dice) of the foreground (F1+) or of the background (F1-), per image, then the mean over images.

    0/0 is 1: where the region is absent from both the truth and the mask, the mask is right; where it is absent from
    one of them only, the value is 0. Images without a truth mask are left out; without any, the value is not a number.

    Args:
        region: ``"foreground"`` (default) or ``"background"``.
        floor: ``"all_ones"`` measures a mask of ones instead of the localization's: what knowing nothing scores.

    Raises:
        ConfigError: on another word.
    """

    def __init__(self, region: str = "foreground", floor: str | None = None) -> None:
        if region not in ("foreground", "background"):
            raise ConfigError(f"region={region!r}", "RegionF1", "choose foreground or background")
        if floor not in (None, "all_ones"):
            raise ConfigError(f"floor={floor!r}", "RegionF1", "choose all_ones or leave it out")
        self.region, self.floor = region, floor
        super().__init__(
            metric_fn=DiceMetric(include_background=True, ignore_empty=False), output_transform=self._pairs
        )

    def _pairs(self, output: list[dict[str, Any]]) -> tuple[list[Tensor], list[Tensor]]:
        predicted, truth = [], []
        for item in output:
            if "truth" not in item:
                continue
            true = torch.as_tensor(item["truth"]).cpu()
            mask = torch.from_numpy(item["localization"].mask)[None]
            mask = torch.ones_like(true) if self.floor else mask
            if self.region == "background":
                true, mask = ~true, ~mask
            truth.append(true.float())
            predicted.append(mask.float())
        return predicted, truth

    def compute(self) -> Any:
        """The mean over images, in [0, 1]; not a number without a truth mask."""
        if self.metric_fn.get_buffer() is None:
            self._is_reduced = True
            return float("nan")
        return super().compute()
