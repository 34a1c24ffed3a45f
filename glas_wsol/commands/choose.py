# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``choose``: recommend one of several trained models."""

from __future__ import annotations

import argparse

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser("choose", help="of several trained models the best, without any outline")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model.pt, or a folder that holds such")
    parser.add_argument("--best", action="store_true", help="print nothing but the best one's path")
    parser.set_defaults(command=_choose)


def _choose(arguments: argparse.Namespace) -> None:
    from glas_wsol.errors import WeightsError
    from glas_wsol.failure_detection.model_selection import candidates, table_of

    found = candidates(arguments.models)
    if not arguments.best:
        print(table_of(found))
    elif not found[0].usable:
        fix = "train with other seeds or more images, or look at the masks and name a model yourself"
        what = f"{len(found)} models, and none that was judged without an alarm ({found[0].verdict.value})"
        raise WeightsError(what, found[0].path, fix)
    else:
        print(found[0].path)
