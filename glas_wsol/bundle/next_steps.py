# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Records how a training was started, and prints the next commands when it ends."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue

from glas_wsol.bundle.command_line import typed_run
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.results.provenance import provenance_of
from glas_wsol.utils import distributed
from glas_wsol.utils.json_files import read_json, write_json

__all__ = ["conclude", "read_start"]

_RECORD = "training.json"
_PATHS = ("bundle_root", "ckpt_dir", "dataset_dir", "stage_one_dir", "weights")


def conclude(checkpoint: str, output_dir: str, dataset_dir: str) -> None:
    """End of a training: keep how it was started, and print the model, whether to trust it and what to do next."""
    distributed.on_main(lambda: _conclude(checkpoint, output_dir, dataset_dir))


def _conclude(checkpoint: str, output_dir: str, dataset_dir: str) -> None:
    files, typed = typed_run(sys.argv)
    if files:
        settings = {name: DefaultParseValue(text) if isinstance(text, str) else text for name, text in typed.items()}
        paths = {name: Path(str(settings[name])) for name in _PATHS if name in settings}
        settings |= {name: str(path.absolute()) for name, path in paths.items() if path.exists()}
        record = {"config_files": [str(Path(file).absolute()) for file in files], "settings": settings}
        write_json(Path(output_dir) / _RECORD, record)
    alarm = provenance_of(model_card(checkpoint)).alarm
    evaluate = ["evaluate", output_dir, *([] if files else ["--data", dataset_dir])]
    predict = [
        "predict",
        "IMAGES",
        "--model",
        checkpoint,
        "--output",
        str(Path(output_dir) / "predictions"),
        "--report",
    ]
    print(f"model: {checkpoint}")
    print(f"its masks: {alarm.words if alarm else 'whether they can be trusted was not judged'}")
    print(f"measure it: {shlex.join(['python', '-m', 'glas_wsol', *evaluate])}")
    print(f"use it on your own images, in the place of IMAGES: {shlex.join(['python', '-m', 'glas_wsol', *predict])}")


def read_start(folder: Path) -> dict[str, Any]:
    """How a training was started: its ``config_files`` and ``settings``; empty where that is not known any more."""
    path = folder / _RECORD
    try:
        record = dict(read_json(path))
        found = {"config_files": list(record["config_files"]), "settings": dict(record["settings"])}
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return found if all(Path(file).is_file() for file in found["config_files"]) else {}
