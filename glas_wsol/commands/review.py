# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``review``: a local web page to look at results, mend their outlines and learn from them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    text = "a local web page to look at results, mend their outlines and learn from them"
    parser = commands.add_parser("review", help=text)
    parser.add_argument("results", metavar="RESULTS", help="folder that predict or evaluate wrote")
    parser.add_argument(
        "--data", default="", metavar="DATA", help="what the model was trained on (default: by --model)"
    )
    parser.add_argument("--model", default="", metavar="MODEL", help="output folder of its training, to learn from")
    parser.add_argument("--who", default="", metavar="NAME", help="saved with corrections (default: your user name)")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="default: one that is free")
    text = "listen at an address that other machines reach; nothing is encrypted (default: 127.0.0.1, this machine)"
    parser.add_argument("--address", default="127.0.0.1", metavar="IP", help=text)
    text = "after --: settings of learn, as in -- --epochs 20"
    parser.add_argument("settings", nargs="*", metavar="SETTING", help=text)
    parser.set_defaults(command=_review)


def _review(given: argparse.Namespace) -> None:
    from monai.utils import optional_import

    from glas_wsol.errors import ConfigError

    missing = [name for name in ("starlette", "uvicorn") if not optional_import(name)[1]]
    if missing:
        fix = "pip install starlette uvicorn, or glas_wsol[review]"
        raise ConfigError(f"the page needs {' and '.join(missing)}, not installed", fix=fix)
    from glas_wsol.bundle.next_steps import read_start
    from glas_wsol.review.serve import serve

    started = read_start(Path(given.model)) if given.model and not given.data else {}
    serve(
        Path(given.results),
        _suggested,
        data=given.data or str(started.get("settings", {}).get("dataset_dir", "")),
        model=given.model,
        settings=given.settings,
        who=given.who,
        address=given.address,
        port=given.port,
        say=lambda line: print(line, flush=True),
    )


def _suggested(results: Path, number: int) -> list[dict[str, Any]]:
    from glas_wsol.corrections.ranking import suggest

    return [{"name": one.name, "why": one.why} for one in suggest(results, number)]
