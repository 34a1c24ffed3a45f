# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Results whose masks no flip, turn or transposition leaves as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from glas_wsol.results.localization import Localization
from tests.dicoms import rgb

H, W = 33, 58


def asymmetric_map(height: int = H, width: int = W) -> np.ndarray:
    """``[H, W]`` float32: a ring at the upper left border, a bar at the right one, a speck; 0.5 lies inside."""
    random = np.random.default_rng(0)
    decidable = random.uniform(0, 0.4, (height, width)).astype(np.float32)
    decidable[: height // 2, : width // 3] = 0.75
    decidable[4:9, 3:11] = 0.25
    decidable[height // 2 + 2 : height // 2 + 5, width // 2 :] = 0.5
    decidable[-2, 1] = 1
    return decidable


def asymmetric_result(name: str = "ä 1", path: str = "", **changes) -> Localization:
    found = Localization(name, path, ("benign", "malignant"), (0.25, 0.75), asymmetric_map(), True, image=rgb(H, W))
    return replace(found, **changes)
