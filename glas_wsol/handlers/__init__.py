# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Ignite handlers: seeds, checkpoints, early stopping and progress in training; results in evaluation."""

from __future__ import annotations

from glas_wsol.handlers.clock import TrainingClock
from glas_wsol.handlers.draw_reliability import ReliabilityDiagram
from glas_wsol.handlers.evaluation_report import EvaluationReport, WholeImageScores
from glas_wsol.handlers.failure_report import FailureReport
from glas_wsol.handlers.record import RunRecord
from glas_wsol.handlers.run_checkpoint import RunCheckpoint, write_model
from glas_wsol.handlers.saver import LocalizationSaver
from glas_wsol.handlers.shared import SharedTraining
from glas_wsol.handlers.training import (
    EarlyStop,
    EpochProgress,
    EpochSeed,
    EpochSummary,
    StopOnNonFiniteLoss,
    TensorBoardCurves,
)

__all__ = [
    "EarlyStop",
    "EpochProgress",
    "EpochSeed",
    "EpochSummary",
    "EvaluationReport",
    "FailureReport",
    "LocalizationSaver",
    "ReliabilityDiagram",
    "RunCheckpoint",
    "RunRecord",
    "SharedTraining",
    "StopOnNonFiniteLoss",
    "TensorBoardCurves",
    "TrainingClock",
    "WholeImageScores",
    "write_model",
]
