# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``export``: copy a bundle together with the package, or write a trained model for other programs."""

from __future__ import annotations

import argparse

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser("export", help="copy a bundle to run on its own, or write a model for other programs")
    text = "glas, cub, or a bundle's folder; or a model.pt, or the output folder of a training; several are an ensemble"
    parser.add_argument("sources", nargs="+", metavar="MODEL_OR_BUNDLE", help=text)
    parser.add_argument("output", metavar="OUT", help="file or folder to make; the folder that receives a bundle")
    text = "bundle (default), pt2 (torch.export), onnx, torchscript, or bioimageio (QuPath): docs/export.md"
    parser.add_argument("--to", default="bundle", metavar="TARGET", help=text)
    parser.add_argument("--model", help="trained model.pt of a bundle that has none")
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> None:
    from glas_wsol.bundle.export_targets import export

    print(f"exported {export(arguments.sources, arguments.output, arguments.to, arguments.model)}")
