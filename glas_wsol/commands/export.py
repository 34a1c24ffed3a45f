# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``export``: copy a bundle together with the package, so that it runs on its own."""

from __future__ import annotations

import argparse

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser("export", help="copy a bundle with the package inside, to run on its own")
    parser.add_argument("bundle", help="glas, cub, or a bundle's folder")
    parser.add_argument("output", help="folder that receives the copy")
    parser.add_argument("--model", help="trained model.pt to ship")
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> None:
    from glas_wsol.bundle.export import export_bundle
    from glas_wsol.utils.shipped_bundles import bundle_folder

    print(f"exported {export_bundle(bundle_folder(arguments.bundle), arguments.output, arguments.model)}")
