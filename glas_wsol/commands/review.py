# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``review``: a local web page to look at results, mend their outlines and learn from them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from glas_wsol.commands import add_with_settings

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    add = add_with_settings(
        commands,
        _review,
        "review",
        "a local web page to look at results, mend their outlines and learn from them",
        usage="RESULTS [--model MODEL]",
        config="correct.json, for learning (docs/settings.md)",
        example="--epochs 20",
        typed={},
        instead={
            "dataset_dir": "use --data",
            "first_model": "use --model",
            "output_dir": "it is a folder below RESULTS",
            "corrections": "it is a folder below RESULTS",
            "config_file": "use learn, or monai.bundle run with correct.json",
        },
    )
    add("results", metavar="RESULTS", help="folder that predict or evaluate wrote")
    add("--model", default="", metavar="MODEL", help="what is learnt on from: output folder of a training, or model.pt")
    add("--data", default="", metavar="DATA", help="what that was trained on (default: as its output folder says)")
    add("--who", default="", metavar="NAME", help="saved with corrections (default: your user name)")
    add("--port", type=int, default=0, metavar="N", help="default: one that is free")
    text = "listen at an address that other machines reach; nothing is encrypted (default: 127.0.0.1, this machine)"
    add("--address", default="127.0.0.1", metavar="IP", help=text)


def _review(given: argparse.Namespace, settings: dict[str, str]) -> None:
    from monai.utils import optional_import

    from glas_wsol.bundle.next_steps import read_start
    from glas_wsol.errors import ConfigError

    missing = [name for name in ("starlette", "uvicorn") if not optional_import(name)[1]]
    if missing:
        fix = "pip install starlette uvicorn, or glas_wsol[review]"
        raise ConfigError(f"the page needs {' and '.join(missing)}, not installed", fix=fix)
    from glas_wsol.review.serve import serve

    started = read_start(Path(given.model)) if given.model and not given.data else {}
    serve(
        Path(given.results),
        _suggested,
        data=given.data or str(started.get("settings", {}).get("dataset_dir", "")),
        model=given.model,
        settings=[word for name, value in settings.items() for word in (f"--{name}", value)],
        who=given.who,
        address=given.address,
        port=given.port,
        say=lambda line: print(line, flush=True),
    )


def _suggested(results: Path, number: int) -> list[dict[str, Any]]:
    from glas_wsol.corrections.ranking import suggest

    return [{"name": one.name, "why": one.why} for one in suggest(results, number)]
