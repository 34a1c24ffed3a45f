# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Functions that the bundles' configs call before and around a run."""

from __future__ import annotations

from glas_wsol.bundle.excepthook import install_excepthook
from glas_wsol.bundle.run_data import resolve_dataset
from glas_wsol.bundle.settings_schema import Settings
from glas_wsol.bundle.startup import preflight

__all__ = ["Settings", "install_excepthook", "preflight", "resolve_dataset"]
