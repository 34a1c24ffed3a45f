# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``table``: print the paper's tables from evaluated runs, with intervals and paired comparisons."""

from __future__ import annotations

import argparse
import shlex
import sys

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser("table", help="compare evaluated runs: methods, erasing, training time")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="evaluated run, or a folder that holds such")
    parser.add_argument("--output", metavar="DIR", help="also write tables.md, and each table as CSV and LaTeX")
    parser.add_argument(
        "--oracle", action="store_true", help="also show measures whose threshold was chosen with pixel labels"
    )
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals (default: 0.95)")
    parser.set_defaults(command=_table)


def _table(arguments: argparse.Namespace) -> None:
    from glas_wsol.experiments.tables.comparison import Comparison
    from glas_wsol.experiments.tables.write_tables import make_report
    from glas_wsol.metrics.measures import MEASURES

    comparison = Comparison(arguments.level)
    report = make_report(arguments.runs, MEASURES, comparison, _line(arguments), arguments.oracle, progress=True)
    written = [] if arguments.output is None else report.write(arguments.output)
    # A terminal without daggers shows question marks rather than a failure.
    encoding = sys.stdout.encoding or "utf-8"
    print(report.markdown().encode(encoding, "replace").decode(encoding), end="")
    if written:
        print(f"\nwrote {', '.join(path.name for path in written)} to {arguments.output}")


def _line(arguments: argparse.Namespace) -> str:
    """The command as one would type it again."""
    words = ["python", "-m", "glas_wsol", "table", *arguments.runs]
    words += ["--output", arguments.output] if arguments.output is not None else []
    words += ["--oracle"] if arguments.oracle else []
    words += ["--level", f"{arguments.level:g}"] if arguments.level != 0.95 else []
    return shlex.join(words)
