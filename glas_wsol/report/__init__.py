# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Makes one self-contained HTML page of a run, with every image; no network is needed to read it."""

from __future__ import annotations

from glas_wsol.report.cohort_page import write_cohort
from glas_wsol.report.page import write_report

__all__ = ["write_cohort", "write_report"]
