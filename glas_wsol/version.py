# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Holds the version and the package's folder."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PACKAGE", "__version__"]

__version__ = "0.1.0"

PACKAGE = Path(__file__).parent
"""The installed package's folder."""
