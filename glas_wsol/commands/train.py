# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``train``: train a bundle with fewer words than ``python -m monai.bundle run``."""

from __future__ import annotations

import argparse

__all__ = ["register"]

_HELP = "train a model on images with a label each"
_INSTEAD = {
    "dataset_dir": "name the data first: train DATA",
    "output_dir": "use --output",
    "bundle_root": "use --bundle",
    "config_file": "use --bundle, --method and --overlays",
    "method": "use --method",
}


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    # a separate parser: settings of the config may be among the arguments
    train = commands.add_parser("train", help=_HELP, prefix_chars="\0", add_help=False)
    train.add_argument("arguments", nargs=argparse.REMAINDER)
    typed = {"dataset_dir": "DATA", "output_dir": "--output"}
    train.set_defaults(command=lambda arguments: _train(arguments.arguments, train.prog), typed=typed)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=_HELP.capitalize() + ". Run it again after an interruption: it goes on after the last whole epoch.",
        usage="%(prog)s DATA --output DIR [options] [--id value ...]",
        epilog="Any other --id value is a setting of the config (docs/settings.md), such as: --fold patient-0 --seed 1",
    )
    add = parser.add_argument
    add("data", metavar="DATA", help="GlaS or CUB folder, folder of class folders, CSV table; phantom: synthetic data")
    add("--output", required=True, metavar="DIR", help="folder of the run")
    add("--bundle", default="glas", metavar="BUNDLE", help="glas (default), cub, or a bundle's folder")
    add("--method", metavar="METHOD", help="a method of the tables, such as cam_avg (default: both stages)")
    text = "schedule and trunk: recommended (default; two CPU cores do), or the paper's, which needs a GPU"
    add("--recipe", default="recommended", choices=["recommended", "paper"], help=text)
    add("--overlays", nargs="+", default=[], metavar="FILE", help="config files to lay on the recipe")
    return parser


def _train(arguments: list[str], prog: str) -> None:
    from glas_wsol.bundle.overrides import parse_overrides, split_overrides

    parser = _parser(prog)
    own, rest = split_overrides(parser, arguments)
    given = parser.parse_args(own)
    settings = parse_overrides(rest, _INSTEAD)
    from glas_wsol.bundle import install_excepthook
    from glas_wsol.bundle.bundle_runs import plan_training

    install_excepthook()
    run = plan_training(given.data, given.output, given.bundle, given.method, given.recipe, given.overlays, settings)
    print(f"this is: {run.command}", flush=True)
    run.make()
