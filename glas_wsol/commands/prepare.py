# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``prepare``: check a downloaded data set and lay out its files. Nothing is downloaded here."""

from __future__ import annotations

import argparse
import shlex

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "prepare",
        help="check a downloaded GlaS or CUB-200-2011 and lay it out; nothing is downloaded",
        epilog="GlaS: University of Warwick, TIA Centre, page of the Gland Segmentation Challenge Contest; one zip. "
        "CUB-200-2011: California Institute of Technology, page Caltech-UCSD Birds-200-2011; CUB_200_2011.tgz and, for "
        "the masks, segmentations.tgz. Both have terms of their own.",
    )
    parser.add_argument("kind", metavar="KIND", help="which data set it is: glas or cub")
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="archive (zip, tar, tar.gz) or unpacked folder")
    parser.add_argument("output", metavar="OUTPUT", help="folder to make")
    parser.add_argument("--sha256", default="", help="digest that the archive must have")
    parser.set_defaults(command=_prepare)


def _prepare(arguments: argparse.Namespace) -> None:
    from glas_wsol.data.prepare_archive import prepare
    from glas_wsol.errors import ConfigError

    if arguments.sha256 and len(arguments.sources) != 1:
        raise ConfigError("one digest for several archives", "--sha256", "check them yourself, or prepare one alone")
    found, new = prepare(arguments.kind, arguments.sources, arguments.output, arguments.sha256, progress=True)
    print(found.summary())
    if not any(item.mask for items in found.splits.values() for item in items):
        print("there are no masks: training goes without, evaluation can measure the class only")
    print(f"{'ready' if new else 'it was there already, and nothing was done'}: {found.source}")
    print(f"next: python -m glas_wsol train {shlex.quote(str(found.source))} --output OUT")
