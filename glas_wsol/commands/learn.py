# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``learn``: go on from a model trained from image labels, with some corrected masks."""

from __future__ import annotations

import argparse
from pathlib import Path

from glas_wsol.commands import add_with_settings

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    add = add_with_settings(
        commands,
        _learn,
        "learn",
        "go on from a model with some corrected masks; all other images keep their label",
        more=" Run it again after an interruption: it goes on after the last whole epoch.",
        usage="DATA --model MODEL --corrections DIR --output DIR",
        example="--epochs 20",
        typed={"dataset_dir": "DATA", "output_dir": "--output", "corrections": "--corrections"},
        instead={
            "dataset_dir": "name the data first: learn DATA",
            "output_dir": "use --output",
            "corrections": "use --corrections",
            "first_model": "use --model",
            "config_file": "use monai.bundle run with correct.json",
        },
    )
    add("data", metavar="DATA", help="what the model was trained on: GlaS folder, folder of class folders, CSV table")
    add("--model", required=True, metavar="MODEL", help="model.pt, or the output folder of its training")
    text = "folder of corrected masks, GeoJSON or pixels, each named after its training image"
    add("--corrections", required=True, metavar="DIR", help=text)
    add("--output", required=True, metavar="DIR", help="folder of the run")


def _learn(given: argparse.Namespace, settings: dict[str, str]) -> None:
    from glas_wsol.bundle import install_excepthook
    from glas_wsol.bundle.bundle_runs import plan_learning
    from glas_wsol.loading import ModelSource

    install_excepthook()
    model = ModelSource(Path(given.model)).checkpoint
    run = plan_learning(given.data, model, given.corrections, given.output, settings)
    print(f"this is: {run.command}", flush=True)
    run.make()
