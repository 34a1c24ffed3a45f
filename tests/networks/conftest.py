# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Every test draws the same numbers, whichever tests ran before it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def same_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
