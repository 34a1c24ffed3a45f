# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs the command line: ``python -m glas_wsol``, or ``glas-wsol``."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from glas_wsol.commands import (
    calibrate,
    choose,
    data,
    doctor,
    evaluate,
    export,
    figure,
    learn,
    phantom,
    predict,
    prepare,
    report,
    review,
    show,
    study,
    suggest,
    table,
    train,
)
from glas_wsol.errors import GlasWsolError, as_typed, set_typed
from glas_wsol.version import __version__

__all__ = ["main"]

_GROUPS: dict[str, tuple[ModuleType, ...]] = {
    "before": (doctor, phantom, prepare, data),
    "a model": (train, evaluate, show, predict, report, review, suggest, learn, choose, calibrate, export),
    "many models": (study, table, figure),
}
"""Commands in the order of their use."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m glas_wsol",
        description="Train on image labels, and find the region of an image that the class was decided on.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    lines = []
    for title, modules in _GROUPS.items():
        before = len(commands._choices_actions)
        for module in modules:
            module.register(commands)
        lines += ["", f"{title}:", *(f"  {one.dest:<10}{one.help}" for one in commands._choices_actions[before:])]
    parser.epilog = "\n".join([*lines[1:], "", "COMMAND --help lists its options."])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Exit status: 0, or 1 after a failure, printed in one line, 3 where results of some images are missing, 141 where
        the reader of the output has closed it.
    """
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError as error:
        writer = traceback.extract_tb(error.__traceback__)[-1].filename
        if not Path(writer).is_relative_to(Path(__file__).parent):  # not what is printed: a process that died, say
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python itself complains at its end
        return 141


def _run(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    set_typed(getattr(arguments, "typed", {}))
    try:
        arguments.command(arguments)
    except GlasWsolError as error:
        print(f"error: {as_typed(str(error))}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        refused = GlasWsolError.of_system(error)
        if refused is None:
            raise
        print(f"error: {as_typed(str(refused))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
