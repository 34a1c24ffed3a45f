# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``evaluate``: measure a trained model on one split of its data, with its own configs and settings."""

from __future__ import annotations

import argparse
import shlex

__all__ = ["register"]

_HELP = "measure a trained model on one split of its data"
_INSTEAD = {
    "dataset_dir": "use --data",
    "output_dir": "name the training's folder first: evaluate OUT",
    "bundle_root": "use --bundle",
    "config_file": "use --bundle",
}


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    # a separate parser: settings of the config may be among the arguments
    evaluate = commands.add_parser("evaluate", help=_HELP, prefix_chars="\0", add_help=False)
    evaluate.add_argument("arguments", nargs=argparse.REMAINDER)
    typed = {"dataset_dir": "--data", "output_dir": "OUT"}
    evaluate.set_defaults(command=lambda arguments: _evaluate(arguments.arguments, evaluate.prog), typed=typed)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=_HELP.capitalize() + ". The true masks of that split are read here, and only here.",
        usage="%(prog)s OUT [--split SPLIT] [options] [--id value ...]",
        epilog="Any other --id value is a setting of the config (docs/settings.md), such as: --device cpu",
    )
    add = parser.add_argument
    add("output", metavar="OUT", help="output folder of a training; receives the results")
    add("--split", default="valid", choices=["train", "valid", "test"], help="default: valid")
    add("--data", metavar="DATA", help="the data (default: those of the training)")
    add("--bundle", metavar="BUNDLE", help="glas, cub, or a bundle's folder (default: that of the training)")
    return parser


def _evaluate(arguments: list[str], prog: str) -> None:
    from glas_wsol.bundle.overrides import parse_overrides, split_overrides

    parser = _parser(prog)
    own, rest = split_overrides(parser, arguments)
    given = parser.parse_args(own)
    settings = parse_overrides(rest, _INSTEAD)
    from glas_wsol.bundle import install_excepthook
    from glas_wsol.bundle.bundle_runs import plan_evaluation

    install_excepthook()
    run = plan_evaluation(given.output, given.split, given.data, given.bundle, settings)
    print(f"this is: {run.command}", flush=True)
    run.make()
    print(f"see it: {shlex.join(['python', '-m', 'glas_wsol', 'show', given.output])}")
    print(f"or as a page: {shlex.join(['python', '-m', 'glas_wsol', 'report', given.output])}")
