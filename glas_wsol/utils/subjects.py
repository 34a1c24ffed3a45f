# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Name what images show: tissue, or one object before a background."""

from __future__ import annotations

__all__ = ["OBJECTS", "SUBJECTS", "TISSUE"]

SUBJECTS = TISSUE, OBJECTS = "tissue", "objects"
"""Values of the setting ``subject``."""
