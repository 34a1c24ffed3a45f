# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``audit``: what a stranger's config could run, found without running it."""

from __future__ import annotations

import argparse

from glas_wsol.errors import ConfigError

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command.

    Args:
        commands: of the program's parser.
    """
    parser = commands.add_parser("audit", help="look through configs for code, without running any; status 1 if found")
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="config file, or a bundle's folder")
    parser.set_defaults(command=_audit)


def _audit(arguments: argparse.Namespace) -> None:
    from glas_wsol.audit import audit

    found = audit(arguments.configs)
    for finding in found:
        print(finding)
    if found:
        places = "1 place" if len(found) == 1 else f"{len(found)} places"
        what = f"{places} could run what this package does not know"
        raise ConfigError(what, ", ".join(arguments.configs), "read them, and run this only if you trust its author")
    print("nothing but known components and harmless expressions")
