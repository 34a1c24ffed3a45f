# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``phantom``: write synthetic data with exact masks, in the layout of the real data sets."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

__all__ = ["register"]

_TISSUE_ONLY = ("scale", "confounded")


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser("phantom", help="write synthetic tissue (GlaS layout) or birds (CUB layout)")
    add = parser.add_argument
    add("output", metavar="OUTPUT", help="folder to make; an equal phantom in it is left as it is")
    add("--kind", choices=["tissue", "birds"], default="tissue", help="default: tissue")
    add("--train", type=int, metavar="N", help="training images (default: 85 tiles, 150 birds)")
    add("--test", type=int, metavar="N", help="test images (default: 24 tiles, 50 birds)")
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="rows and columns, px (default: 522 775, 150 200)")
    add("--scale", type=float, metavar="X", help="tissue: px per px of a real tile; 0.25 shows four times as much")
    add("--confounded", action="store_true", default=None, help="tissue: let the stroma carry the class too")
    add("--seed", type=int, default=0, help="default: 0")
    parser.set_defaults(command=_phantom)


def _phantom(arguments: argparse.Namespace) -> None:
    from glas_wsol.data.phantom import birds as phantom_birds
    from glas_wsol.data.phantom import tissue as phantom_tissue
    from glas_wsol.errors import ConfigError

    names = ("train", "test", "size", "scale", "confounded", "seed")
    given: dict[str, Any] = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    write = phantom_tissue.write_tissue_phantom
    if arguments.kind == "birds":
        write = phantom_birds.write_bird_phantom
        for name in _TISSUE_ONLY:
            if name in given:
                raise ConfigError(f"birds have no {name}", "phantom", f"leave out --{name}")
    folder = write(arguments.output, progress=True, **given)
    bundle = " --bundle cub" if arguments.kind == "birds" else ""
    print(f"the phantom is in {folder}")
    print(f"next: python -m glas_wsol train {shlex.quote(str(folder))} --output OUT{bundle}")
