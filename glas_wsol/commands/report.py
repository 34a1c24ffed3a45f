# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``report``: write one HTML page of a run, for any browser."""

from __future__ import annotations

import argparse

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser("report", help="one HTML page of a run: inference, evaluation or training")
    parser.add_argument("folder", help="output folder of the run")
    parser.add_argument(
        "--output", metavar="FILE", help="page to write (default: report.html or cohort.html in the folder)"
    )
    help_text = "a table of all images instead, with thumbnails, for thousands of them: it opens at once"
    parser.add_argument("--cohort", action="store_true", help=help_text)
    help_text = "what the pictures of an image may take, 1000 bytes each (default: 60)"
    parser.add_argument("--kilobytes", type=float, default=60, metavar="N", help=help_text)
    parser.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> None:
    from glas_wsol.report import write_cohort, write_report

    if arguments.cohort:
        path = write_cohort(arguments.folder, arguments.output, progress=True)
    else:
        path = write_report(arguments.folder, arguments.output, arguments.kilobytes, progress=True)
    print(f"open {path} ({path.stat().st_size / 1e6:.1f} MB)")
