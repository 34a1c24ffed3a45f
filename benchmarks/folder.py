# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Time of a whole folder: reading, predicting and writing at the same time, and one after the other.

    python benchmarks/folder.py [--device cpu] [--images 12] [--size 522 775] [--rounds 3] [--batch 1] [--threads N]

Runs the GlaS bundle's inference.json with the recommended recipe's network (its heads untrained) on synthetic tissue,
in turn in one process, with ``prefetch`` and without. Wall time, for this is about doing things at the same time: it
needs a machine that does nothing else. What is written is compared byte by byte; the status is 1 where it differs.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from timing import machine, print_table, spread
from tqdm import tqdm

from glas_wsol.data.phantom.tissue import tissue_tile
from glas_wsol.handlers import write_model
from glas_wsol.networks import MinMaxEntropyNetwork, RefinedNetwork

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "glas_minmax_entropy"


def make_inputs(folder: Path, count: int, size: Sequence[int], trunk: str) -> dict[str, str]:
    """Tiles, and a model; the settings of a run that name them.

    Args:
        folder: receives both.
        count: how many tiles.
        size: their height and width, px.
        trunk: of the network.
    """
    (folder / "tiles").mkdir(parents=True)
    for number in range(count):
        tile, _ = tissue_tile(np.random.default_rng(number), bool(number % 2), tuple(size), scale=min(size) / 522)
        Image.fromarray(tile).save(folder / "tiles" / f"{number:04d}.png")
    first = MinMaxEntropyNetwork(trunk, 2, weights="none", seed=0)
    network = RefinedNetwork(trunk, 2, "none", base=first.settings(), seed=0)
    card = {
        "method": "minmax_refined",
        "trunk": trunk,
        "classes": ["benign", "malignant"],
        "network": network.settings(),
    }
    card |= {"scale": 0.5, "short_side": None, "fill_holes": 2000, "drop_specks": 250}
    write_model(network, folder / "models", card)
    return {"dataset_dir": str(folder / "tiles"), "checkpoint": str(folder / "models" / "model.pt")}


def run(output: Path, **settings: object) -> float:
    """Run inference once, and return the seconds that it took from the first image to the last table."""
    workflow = ConfigWorkflow(
        config_file=[str(BUNDLE / "configs" / "inference.json")],
        logging_file=False,
        workflow_type="inference",
        bundle_root=str(BUNDLE),
        output_dir=str(output),
        stain="",  # what an untrained network finds need not be tissue
        **settings,
    )
    workflow.initialize()
    started: list[float] = []
    evaluator = workflow.parser.get_parsed_content("evaluator")
    evaluator.add_event_handler("EPOCH_STARTED", lambda _: started.append(time.perf_counter()))
    workflow.run()
    return time.perf_counter() - started[0]


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--trunk", default="efficientnet_lite0")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--size", type=int, nargs=2, default=(522, 775), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1, help="images that are predicted together")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    ways = {"one after the other": False, "at the same time": True}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        inputs = make_inputs(folder, arguments.images, arguments.size, arguments.trunk)
        written: dict[str, dict[str, bytes]] = {}
        for number in tqdm(range(1 + arguments.rounds), "rounds"):
            for name, prefetch in ways.items():
                out = folder / f"{number}_{prefetch}"
                settings = {"device": arguments.device, "batch_size": arguments.batch, "prefetch": prefetch}
                seconds = run(out, **inputs, **settings)
                written[name] = _contents(out)
                if number > 0:  # the first round warms up
                    taken[name].append(seconds / arguments.images)
    height, width = arguments.size
    print(f"{arguments.images} images of {height} x {width} px, {arguments.trunk}; median of {arguments.rounds}")
    print(machine(arguments.device))
    first = taken["one after the other"]
    rows = []
    for name, times in taken.items():
        ratio = median(one / other for one, other in zip(times, first, strict=True))
        rows.append([name, spread(times), f"{ratio:.2f}"])
    print_table(["reading, predicting, writing", "ms per image (range)", "ratio"], rows)
    same = written["at the same time"] == written["one after the other"]
    print(f"the bytes written are {'the same' if same else 'NOT THE SAME'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
