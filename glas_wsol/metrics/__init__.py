# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Measure an evaluated set: measures, their intervals, and the MONAI metrics that compute them."""

from __future__ import annotations

from glas_wsol.metrics.bootstrap import NO_WIDTH, bootstrap, interval, redraw, reflect, share_interval
from glas_wsol.metrics.box_accuracy import BoxAccuracy, MaxBoxAccuracy
from glas_wsol.metrics.calibration import (
    CalibrationError,
    MaskCalibrationError,
    Reliability,
    Temperature,
    class_reliability,
    mask_reliability,
)
from glas_wsol.metrics.class_errors import class_errors, confusions
from glas_wsol.metrics.classification import BalancedError, ClassificationError, CrossEntropy, RocAuc, SelectionScore
from glas_wsol.metrics.measures import MEASURES, Measure
from glas_wsol.metrics.metric_base import MeasureMetric, RowMetric
from glas_wsol.metrics.objects import ObjectDice, ObjectF1, ObjectHausdorff
from glas_wsol.metrics.official_boxes import OfficialBox
from glas_wsol.metrics.region_scores import OracleRegionF1, PixelAveragePrecision, RegionF1

__all__ = [
    "MEASURES",
    "NO_WIDTH",
    "BalancedError",
    "BoxAccuracy",
    "CalibrationError",
    "ClassificationError",
    "CrossEntropy",
    "MaskCalibrationError",
    "MaxBoxAccuracy",
    "Measure",
    "MeasureMetric",
    "ObjectDice",
    "ObjectF1",
    "ObjectHausdorff",
    "OfficialBox",
    "OracleRegionF1",
    "PixelAveragePrecision",
    "RegionF1",
    "Reliability",
    "RocAuc",
    "RowMetric",
    "SelectionScore",
    "Temperature",
    "bootstrap",
    "class_errors",
    "class_reliability",
    "confusions",
    "interval",
    "mask_reliability",
    "redraw",
    "reflect",
    "share_interval",
]
