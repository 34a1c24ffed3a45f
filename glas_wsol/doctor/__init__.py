# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Checks made before a run: installation, bundle and model, data, output folder."""

from __future__ import annotations

from glas_wsol.doctor.check import Check
from glas_wsol.doctor.installation import check_packages, check_python, check_torch, check_weights
from glas_wsol.doctor.work import check_bundle, check_data, check_images, check_output

__all__ = [
    "Check",
    "check_bundle",
    "check_data",
    "check_images",
    "check_output",
    "check_packages",
    "check_python",
    "check_torch",
    "check_weights",
]
