# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""List the metrics of an evaluation: one for every measure, and what the report compares them with."""

from __future__ import annotations

from glas_wsol.metrics.box_accuracy import BoxAccuracy, MaxBoxAccuracy
from glas_wsol.metrics.calibration import CalibrationError, MaskCalibrationError
from glas_wsol.metrics.classification import BalancedError, ClassificationError, RocAuc
from glas_wsol.metrics.metric_base import RowMetric
from glas_wsol.metrics.objects import ObjectDice, ObjectF1, ObjectHausdorff
from glas_wsol.metrics.region_scores import OracleRegionF1, PixelAveragePrecision, RegionF1

__all__ = ["evaluation_metrics"]


def evaluation_metrics() -> dict[str, RowMetric]:
    """The metric of every measure by its key, but for the classification error, an evaluator's key metric.

    Besides those the F1 of a mask of ones, and the errors of M and C on the whole image.
    """
    return {
        "balanced_error": BalancedError(),
        "roc_auc": RocAuc(),
        "calibration_error": CalibrationError(),
        "f1_foreground": RegionF1("foreground"),
        "f1_background": RegionF1("background"),
        "pixel_average_precision": PixelAveragePrecision(),
        "object_f1": ObjectF1(),
        "object_dice": ObjectDice(),
        "object_hausdorff": ObjectHausdorff(),
        "box_accuracy": BoxAccuracy(),
        "mask_calibration_error": MaskCalibrationError(),
        "max_box_accuracy": MaxBoxAccuracy(),
        "oracle_f1_foreground": OracleRegionF1("foreground"),
        "oracle_f1_background": OracleRegionF1("background"),
        "floor_f1_foreground": RegionF1("foreground", floor="all_ones"),
        "floor_f1_background": RegionF1("background", floor="all_ones"),
        "classification_error_localizer": ClassificationError("localizer_probabilities"),
        "classification_error_whole_image": ClassificationError("whole_image_probabilities"),
    }
