# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Check the shares of pixels that are pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["SHARE_WORDS", "is_share"]

SHARE_WORDS = "a number above 0, at most 0.5, or two above 0 that are at most 1 together, of R+ and of R-"


def is_share(share: Any) -> bool:
    """Whether this is a share of pixels, or two, see :func:`~glas_wsol.pseudo_labels.seeds.pick_seeds`."""
    if isinstance(share, (int, float)) and not isinstance(share, bool):
        return 0 < share <= 0.5
    if not isinstance(share, Sequence) or isinstance(share, str) or len(share) != 2:
        return False
    return all(isinstance(one, (int, float)) and one > 0 for one in share) and sum(share) <= 1
