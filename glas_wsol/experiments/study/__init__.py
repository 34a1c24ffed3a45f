# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Many runs by one command: methods of the tables, seeds and folds; what is finished is not run again."""

from __future__ import annotations

from glas_wsol.experiments.study.manifest import MANIFEST
from glas_wsol.experiments.study.plan import Request, Run, plan
from glas_wsol.experiments.study.run_study import run_study

__all__ = ["MANIFEST", "Request", "Run", "plan", "run_study"]
