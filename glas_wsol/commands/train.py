# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``train``: train a bundle with fewer words than ``python -m monai.bundle run``."""

from __future__ import annotations

import argparse

from glas_wsol.commands import add_with_settings

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    add = add_with_settings(
        commands,
        _train,
        "train",
        "train a model on images with a label each",
        more=" Run it again after an interruption: it goes on after the last whole epoch.",
        usage="DATA --output DIR",
        example="--fold patient-0 --seed 1",
        typed={"dataset_dir": "DATA", "output_dir": "--output"},
        instead={
            "dataset_dir": "name the data first: train DATA",
            "output_dir": "use --output",
            "bundle_root": "use --bundle",
            "config_file": "use --bundle, --method and --overlays",
            "method": "use --method",
        },
    )
    add("data", metavar="DATA", help="GlaS or CUB folder, folder of class folders, CSV table; phantom: synthetic data")
    add("--output", required=True, metavar="DIR", help="folder of the run")
    add("--bundle", default="glas", metavar="BUNDLE", help="glas (default), cub, or a bundle's folder")
    add("--method", metavar="METHOD", help="a method of the tables, such as cam_avg (default: both stages)")
    text = "schedule and trunk: recommended (default; two CPU cores do), or the paper's, which needs a GPU"
    add("--recipe", default="recommended", choices=["recommended", "paper"], help=text)
    add("--overlays", nargs="+", default=[], metavar="FILE", help="config files to lay on the recipe")


def _train(given: argparse.Namespace, settings: dict[str, str]) -> None:
    from glas_wsol.bundle import install_excepthook
    from glas_wsol.bundle.bundle_runs import plan_training

    install_excepthook()
    run = plan_training(given.data, given.output, given.bundle, given.method, given.recipe, given.overlays, settings)
    print(f"this is: {run.command}", flush=True)
    run.make()
