# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What the bundles' configs call before and around a run."""

from __future__ import annotations

from glas_wsol.bundle.settings_schema import Settings
from glas_wsol.bundle.startup import (
    install_excepthook,
    look_at_configs,
    preflight,
    refuse_unknown,
    refuse_unknown_ids,
    resolve_dataset,
    typed_run,
    unknown_ids,
)

__all__ = [
    "Settings",
    "install_excepthook",
    "look_at_configs",
    "preflight",
    "refuse_unknown",
    "refuse_unknown_ids",
    "resolve_dataset",
    "typed_run",
    "unknown_ids",
]
