# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Starts every run of a bundle: checks the settings and makes the output folder."""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from glas_wsol.bundle.command_line import refuse_unknown_ids
from glas_wsol.bundle.excepthook import install_excepthook
from glas_wsol.bundle.settings_schema import Settings
from glas_wsol.errors import OutputError
from glas_wsol.utils import distributed

__all__ = ["preflight"]


def preflight(
    output_dir: str, settings: Settings | None = None, folders: Sequence[str] = ("ckpt_dir", "stage_one_dir")
) -> None:
    """First of what every bundle runs: errors in one line, no unknown override, settings in range, a place to write.

    Args:
        output_dir: created if absent.
        settings: the flat settings, which are checked.
        folders: settings that name further folders the run writes into, which are not made.

    Raises:
        ConfigError: if the command line overrides an id that the config does not have, or a value is not valid.
        OutputError: if a folder cannot be written.
    """
    install_excepthook()
    # MONAI tries an optional GPU decoder for DICOM whenever pydicom is installed, and warns that it is missing.
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    refuse_unknown_ids(sys.argv)
    Settings(output_dir=output_dir, **(settings or {})).check()
    further = {name: folder for name in folders if (folder := (settings or {}).get(name))}
    places = {"output_dir": output_dir, **further}
    distributed.on_main(lambda: [_require_writable(Path(folder), name) for name, folder in places.items()])


def _require_writable(folder: Path, name: str) -> None:
    """Refuse a folder that cannot be written, or cannot be created where it is missing; create the output folder."""
    fix = f"choose another {name}"
    try:
        place = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        if not place.is_dir():
            raise OutputError(f"a file is in the way of {name}", place, fix)
        with tempfile.TemporaryFile(dir=place):  # root is never refused by permissions, but by a disk that is read-only
            pass
        if name == "output_dir":
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{name} cannot be written ({error.strerror})", folder, fix) from error
