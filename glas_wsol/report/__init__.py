# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page of a run: what was found, image by image, to be read without a network."""

from __future__ import annotations

from glas_wsol.report.page import write_report

__all__ = ["write_report"]
