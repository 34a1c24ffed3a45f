# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``show``: print an evaluation, and draw its best, median and worst tile."""

from __future__ import annotations

import argparse
from pathlib import Path

from glas_wsol.errors import GlasWsolError, OutputError, count
from glas_wsol.utils.json_files import RESULTS, read_json

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser("show", help="print an evaluation and draw its best, median and worst image")
    parser.add_argument("run", help="output folder of an evaluation")
    parser.add_argument(
        "--beat-floor", type=float, metavar="X", help="fail unless mean F1 is X above the all-ones floor"
    )
    parser.set_defaults(command=_show)


def _show(arguments: argparse.Namespace) -> None:
    from glas_wsol.handlers.evaluation_report import summary
    from glas_wsol.visualize.overview import draw_overview

    run = Path(arguments.run)
    path = run / "evaluation.json"
    if not path.is_file():
        raise OutputError("no evaluation here", run, "run python -m glas_wsol evaluate on this folder first")
    try:
        report = read_json(path, RESULTS)
    except ValueError as error:
        raise OutputError("this evaluation is damaged", path, "evaluate again") from error
    print(f"\n{count(report['n'], 'image')} of split {report['split']!r}\n{summary(report)}")
    sheet = draw_overview(run, report)
    if sheet is not None:
        print(f"\nopen {sheet.path}: the best, the median and the worst image beside their true outlines")
        overlay = run / report["split"] / "overlays" / f"{sheet.median}.png"
        print(f"open {overlay}: the median image as a reader gets it")
    if arguments.beat_floor is not None:
        figures = {key: found["value"] for key, found in report["measures"].items()}
        if figures.get("f1_foreground") is None:
            raise GlasWsolError("no image has a true mask to measure by", run, "leave out --beat-floor")
        gain = _mean_f1(figures) - _mean_f1(report["floor"])
        if gain < arguments.beat_floor:
            wanted = f"{100 * arguments.beat_floor:g}"
            what = f"the mean of F1+ and F1- is {100 * gain:.1f} points above the floor, not {wanted}"
            raise GlasWsolError(what, run, "train longer, or look at the overview")


def _mean_f1(figures: dict[str, float]) -> float:
    return (figures["f1_foreground"] + figures["f1_background"]) / 2
