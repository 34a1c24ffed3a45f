# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``run``: MONAI's own ``run`` of a bundle, after a look at its configs: missing and damaged ones are told in one line.

MONAI reads the configs before anything of theirs can run, so that their faults end in its own traces.
"""

from __future__ import annotations

import argparse
import runpy
import sys

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command.

    Args:
        commands: of the program's parser.
    """
    # no prefix: what begins with a dash is MONAI's
    text = "as python -m monai.bundle run, with faults of the configs in one line and a warning of unknown code"
    parser = commands.add_parser("run", help=text, prefix_chars="\0", add_help=False)
    parser.add_argument("arguments", nargs="*", metavar="--config_file FILE [--ID VALUE ...]")
    parser.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> None:
    from glas_wsol.bundle import install_excepthook, look_at_configs

    install_excepthook()
    look_at_configs(["bundle/__main__.py", "run", *arguments.arguments])
    sys.argv = ["monai.bundle", "run", *arguments.arguments]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
