# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The command line: ``python -m glas_wsol``. Training and inference are run by ``python -m monai.bundle run``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from glas_wsol.commands import audit, choose, doctor, figure, launch, phantom, predict, prepare, report, study, table
from glas_wsol.errors import GlasWsolError, OutputError
from glas_wsol.utils.json_files import RESULTS, read_json
from glas_wsol.version import __version__

__all__ = ["main"]


def _data(arguments: argparse.Namespace) -> None:
    from glas_wsol.data import load_datalist

    print(load_datalist(arguments.dataset, fold=arguments.fold, seed=arguments.seed, log=False).summary())


def _images(arguments: argparse.Namespace) -> None:
    from glas_wsol.data import load_datalist
    from glas_wsol.utils.csv_files import write_csv

    items = load_datalist(arguments.dataset, fold=arguments.fold, seed=arguments.seed).select(arguments.split)
    rows = [{"image": str(Path(item["image"]).resolve())} for item in items]
    write_csv(Path(arguments.output), rows, columns=("image",))
    print(f"{len(items)} images of split {arguments.split!r} listed in {arguments.output}")


def _show(arguments: argparse.Namespace) -> None:
    from glas_wsol.handlers.evaluation_report import summary
    from glas_wsol.visualize.overview import draw_overview

    run = Path(arguments.run)
    path = run / "evaluation.json"
    if not path.is_file():
        raise OutputError("no evaluation here", run, "run the bundle with evaluate.json first")
    try:
        report = read_json(path, RESULTS)
    except ValueError as error:
        raise OutputError("this evaluation is damaged", path, "evaluate again") from error
    print(f"\n{report['n']} images of split {report['split']!r}\n{summary(report)}")
    sheet = draw_overview(run, report)
    if sheet is not None:
        print(f"\nopen {sheet.path}: the best, the median and the worst tile beside their true outlines")
        overlay = run / report["split"] / "overlays" / f"{sheet.median}.png"
        print(f"open {overlay}: the median tile as a reader gets it")
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


def _export(arguments: argparse.Namespace) -> None:
    from glas_wsol.bundle.export import export_bundle

    print(f"exported {export_bundle(arguments.bundle, arguments.output, arguments.model)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m glas_wsol", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def reads_data(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        command.add_argument("dataset", help="GlaS or CUB folder, folder of class folders, or CSV table")
        command.add_argument("--fold", default="paper", help="as the bundle's setting of that name")
        command.add_argument("--seed", type=int, default=0)
        return command

    reads_data("data", "check a data set and print its splits").set_defaults(command=_data)
    images = reads_data("images", "list the images of one split in a CSV, for inference")
    images.add_argument("--split", default="test", choices=["train", "valid", "test"])
    images.add_argument("--output", required=True, help="CSV to write")
    images.set_defaults(command=_images)

    show = commands.add_parser("show", help="print an evaluation and draw its best, median and worst tile")
    show.add_argument("run", help="output folder of an evaluation")
    show.add_argument("--beat-floor", type=float, metavar="X", help="fail unless mean F1 is X above the all-ones floor")
    show.set_defaults(command=_show)

    export = commands.add_parser("export", help="copy a bundle with the package inside, to run on its own")
    export.add_argument("bundle", help="folder of the bundle")
    export.add_argument("output", help="folder that receives the copy")
    export.add_argument("--model", help="trained model.pt to ship")
    export.set_defaults(command=_export)
    for command in (doctor, phantom, prepare, predict, choose, study, table, figure, report, launch, audit):
        command.register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments; defaults to the process's own.

    Returns:
        Exit status: 0, or 1 after a failure told in one line, 3 where results of some images are missing.
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except GlasWsolError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        refused = GlasWsolError.of_system(error)
        if refused is None:
            raise
        print(f"error: {refused}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
