# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``calibrate``: freeze the decoder's statistics of a model that was trained without."""

from __future__ import annotations

import argparse

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "calibrate",
        help="make the masks of an older model of two stages local",
        description="Make the masks of an older model of two stages local: each pixel then depends on its "
        "surroundings, not on the whole tile. Measures constants over the training images and writes a new model; "
        "nothing is trained, and probabilities stay as they are.",
    )
    parser.add_argument("model", metavar="MODEL", help="model.pt, output folder of a training, or exported bundle")
    parser.add_argument("data", metavar="DATA", help="the data that it was trained on")
    parser.add_argument("--output", required=True, metavar="DIR", help="receives the new model.pt and model.json")
    parser.set_defaults(command=_calibrate)


def _calibrate(arguments: argparse.Namespace) -> None:
    from glas_wsol.bundle.freeze_model import freeze_model

    print(f"wrote {freeze_model(arguments.model, arguments.data, arguments.output)}")
