# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The result of one image, as a value: mask, class, class scores, boxes, outlines, provenance."""

from __future__ import annotations

from glas_wsol.results.localization import Localization
from glas_wsol.results.postprocessing import LocalizePredictiond

__all__ = ["Localization", "LocalizePredictiond"]
