# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``suggest``: say which images of a run to correct first."""

from __future__ import annotations

import argparse

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser("suggest", help="say which images of a run to correct first, and why")
    parser.add_argument("results", metavar="RESULTS", help="folder that predict or evaluate wrote")
    parser.add_argument("-n", type=int, default=5, metavar="N", help="how many (default: 5)")
    parser.add_argument("--output", metavar="CSV", help="also write them as a table, which predict takes as images")
    parser.set_defaults(command=_suggest)


def _suggest(arguments: argparse.Namespace) -> None:
    from glas_wsol.corrections.ranking import suggest, write_suggestions

    found = suggest(arguments.results, arguments.n, progress=True)
    for place, one in enumerate(found, start=1):
        print(f"{place:>3}. {one.name}: entropy {one.uncertainty:.3f}; {one.why}")
    if arguments.output is not None:
        write_suggestions(arguments.output, found)
        print(f"written to {arguments.output}")
