# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Starts every run of a bundle: checks the settings and makes the output folder."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from glas_wsol.bundle.command_line import refuse_unknown_ids
from glas_wsol.bundle.excepthook import install_excepthook
from glas_wsol.bundle.settings_schema import Settings
from glas_wsol.errors import OutputError

__all__ = ["preflight"]


def preflight(output_dir: str, settings: Settings | None = None) -> None:
    """First of what every bundle runs: errors in one line, no unknown override, settings in range, a place to write.

    Raises:
        ConfigError: if the command line overrides an id that the config does not have, or a value is not valid.
        OutputError: if the folder cannot be written.
    """
    install_excepthook()
    # MONAI tries an optional GPU decoder for DICOM whenever pydicom is installed, and warns that it is missing.
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    refuse_unknown_ids(sys.argv)
    Settings(output_dir=output_dir, **(settings or {})).check()
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
