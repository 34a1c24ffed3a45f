# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What every run of a bundle does first: its settings are checked, its output folder is made."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glas_wsol.bundle.command_line import refuse_unknown_ids
from glas_wsol.bundle.excepthook import install_excepthook
from glas_wsol.bundle.settings_schema import check_settings
from glas_wsol.errors import OutputError

__all__ = ["preflight"]


def preflight(output_dir: str, settings: Mapping[str, Any] | None = None) -> None:
    """First of what every bundle runs: errors in one line, no unknown override, settings in range, a place to write.

    Args:
        output_dir: created if absent.
        settings: flat settings with their values, see :func:`~glas_wsol.bundle.settings_schema.check_settings`.

    Raises:
        ConfigError: if the command line overrides an id that the config does not have, or a value cannot be.
        OutputError: if the folder cannot be written.
    """
    install_excepthook()
    # MONAI tries an optional GPU decoder for DICOM whenever pydicom is installed, and says that it is not there.
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    refuse_unknown_ids(sys.argv)
    check_settings({"output_dir": output_dir, **(settings or {})})
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise OutputError("the output folder is a file", folder, "choose another output_dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the output folder ({error.strerror})", folder, "choose another output_dir"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError("the output folder is read-only", folder, "choose another output_dir")
