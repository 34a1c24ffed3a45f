# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Time of loading: what a mini-batch costs before the step, beside the step itself.

    python benchmarks/data.py [--device cpu] [--config train.json] [--images 30] [--tile H W] [--rounds 9]
        [--set ID=VALUE ...]

Takes the training pipeline and the trainer of the GlaS bundle's config as they are, on synthetic tissue, and measures
in turn, in one process: a mini-batch of the cached dataset (crop, flips, jitter, stacking), and the training step on
one. On a GPU the time of loading is wall time, for what is loaded ahead costs nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.bundle import ConfigWorkflow
from timing import compared, machine, print_goals, print_table, round_robin, spread

CONFIGS = Path(__file__).resolve().parents[1] / "bundles" / "glas_minmax_entropy" / "configs"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--config", default="train.json")
    parser.add_argument("--images", type=int, default=30, help="of them four fifths are trained on")
    parser.add_argument("--tile", nargs=2, type=int, default=[522, 775], metavar=("H", "W"), help="px")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--set", nargs="*", default=[], metavar="ID=VALUE", help="of the config")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    given = dict(one.split("=", 1) for one in arguments.set)
    with tempfile.TemporaryDirectory() as folder:
        run = ConfigWorkflow(
            config_file=[str(CONFIGS / arguments.config)],
            workflow_type="train",
            bundle_root=str(CONFIGS.parent),
            output_dir=folder,
            device=arguments.device,
            fold="stratified-0",
            phantom={"seed": 0, "train": arguments.images, "test": 2, "size": arguments.tile, "scale": 1.0},
            **{name: int(value) if value.isdigit() else value for name, value in given.items()},
        )
        run.initialize()
        trainer = run.parser.get_parsed_content("train#trainer")
        loader = trainer.data_loader
        trainer.state.epoch = 2  # past the epochs without erasing
        batches = iter(())

        def load() -> object:
            nonlocal batches
            batch = next(batches, None)
            if batch is None:
                batches = iter(loader)
                batch = next(batches)
            return batch

        fixed = load()
        rows = round_robin(
            [load, lambda: trainer._iteration(trainer, fixed)], arguments.rounds, arguments.device, warm_up=2
        )
    goal = compared("loading / training step", *rows, 0.03)
    print(f"{arguments.config} {' '.join(arguments.set)}; median of {arguments.rounds}")
    print(machine(arguments.device))
    print_table(["of a mini-batch", "ms (range)"], [["loading", spread(rows[0])], ["training step", spread(rows[1])]])
    print(f"loading / step: {100 * goal.found:.1f} %")
    print_goals([goal])
    return 0


if __name__ == "__main__":
    sys.exit(main())
