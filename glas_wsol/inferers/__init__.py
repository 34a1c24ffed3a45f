# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Prediction of whole tiles, with the class scores of their regions."""

from __future__ import annotations

from glas_wsol.inferers.class_score_inferer import ClassScoreInferer, predict_with_scores
from glas_wsol.inferers.whole_tile import TrainingInferer, WholeTileInferer

__all__ = ["ClassScoreInferer", "TrainingInferer", "WholeTileInferer", "predict_with_scores"]
