# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""``evaluate``: measure a trained model on one split of its data, with its own configs and settings."""

from __future__ import annotations

import argparse
import shlex

from glas_wsol.commands import add_with_settings

__all__ = ["register"]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    add = add_with_settings(
        commands,
        _evaluate,
        "evaluate",
        "measure a trained model on one split of its data",
        more=" The true masks of that split are read here, and only here.",
        usage="OUT [--split SPLIT]",
        example="--device cpu",
        typed={"dataset_dir": "--data", "output_dir": "OUT"},
        instead={
            "dataset_dir": "use --data",
            "output_dir": "name the training's folder first: evaluate OUT",
            "bundle_root": "use --bundle",
            "config_file": "use --bundle",
        },
    )
    add("output", metavar="OUT", help="output folder of a training; receives the results")
    add("--split", default="valid", choices=["train", "valid", "test"], help="default: valid")
    add("--data", metavar="DATA", help="the data (default: those of the training)")
    add("--bundle", metavar="BUNDLE", help="glas, cub, or a bundle's folder (default: that of the training)")


def _evaluate(given: argparse.Namespace, settings: dict[str, str]) -> None:
    from glas_wsol.bundle import install_excepthook
    from glas_wsol.bundle.bundle_runs import plan_evaluation

    install_excepthook()
    run = plan_evaluation(given.output, given.split, given.data, given.bundle, settings)
    print(f"this is: {run.command}", flush=True)
    run.make()
    print(f"see it: {shlex.join(['python', '-m', 'glas_wsol', 'show', given.output])}")
    print(f"or as a page: {shlex.join(['python', '-m', 'glas_wsol', 'report', given.output])}")
