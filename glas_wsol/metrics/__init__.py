# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Classification error and region overlap as MONAI metrics, with bootstrap intervals."""

from __future__ import annotations

from glas_wsol.metrics.bootstrap import bootstrap_interval, share_interval
from glas_wsol.metrics.classification import ClassificationError, CrossEntropy, SelectionScore
from glas_wsol.metrics.regions import RegionF1

__all__ = ["ClassificationError", "CrossEntropy", "RegionF1", "SelectionScore", "bootstrap_interval", "share_interval"]
