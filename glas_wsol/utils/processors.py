# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Counts the processors that this process may use."""

from __future__ import annotations

import os

__all__ = ["processors"]


def processors() -> int:
    """How many processors this process may use, at least one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
