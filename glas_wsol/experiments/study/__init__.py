# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs methods over seeds and folds by one command; finished runs are not repeated."""

from __future__ import annotations

from glas_wsol.experiments.study.manifest import MANIFEST
from glas_wsol.experiments.study.plan import Request, Run, plan
from glas_wsol.experiments.study.run_study import run_study

__all__ = ["MANIFEST", "Request", "Run", "plan", "run_study"]
