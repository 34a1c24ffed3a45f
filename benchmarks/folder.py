# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Time of a whole folder, beside decoding and network alone, and with reading, predicting and writing overlapped.

    python benchmarks/folder.py [--device cpu] [--images 12] [--size 522 775] [--rounds 3] [--batch 1] [--threads N]
        [--formats png geojson]

Runs the GlaS bundle's inference.json with the recommended recipe's network (its heads untrained) on synthetic tissue,
in turn in one process: decoding and network alone, the whole run one step after the other, and with ``prefetch``. Of
each the processor time and the wall time from the first image to the last table, and the median of the ratios of the
rounds; the wall time needs a machine that does nothing else. What is written is compared byte by byte; the status is 1
where it differs.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from monai.data import list_data_collate
from PIL import Image
from timing import machine, print_table, spread
from tqdm import tqdm

from glas_wsol.data.phantom.tissue import tissue_tile
from glas_wsol.engines.fault_tolerant_evaluator import RUNS
from glas_wsol.handlers import write_model
from glas_wsol.networks import MinMaxEntropyNetwork, RefinedNetwork

NETWORK, PLAIN, OVERLAPPED = "decoding and network alone", "one after the other", "at the same time (prefetch)"
Seconds = tuple[float, float]
"""Processor time and wall time."""

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


def workflow_of(output: Path, settings: Mapping[str, Any]) -> ConfigWorkflow:
    """The run of inference, ready to start."""
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
    return workflow


def run(output: Path, settings: Mapping[str, Any]) -> Seconds:
    """Run inference once, and return the time that it took from the first image to the last table."""
    workflow = workflow_of(output, settings)
    started: list[Seconds] = []
    evaluator = workflow.parser.get_parsed_content("evaluator")
    evaluator.add_event_handler("EPOCH_STARTED", lambda _: started.append(_now()))
    workflow.run()
    return _since(started[0])


def run_network(output: Path, settings: Mapping[str, Any]) -> Seconds:
    """The same images read, batched and predicted, and nothing done with the predictions."""
    workflow = workflow_of(output, settings)
    parser = workflow.parser
    inferer, network, loader = (parser.get_parsed_content(name) for name in ("inferer", "network", "dataloader"))
    parser.get_parsed_content("load_model")
    network.eval()
    start = _now()
    with torch.no_grad():
        for batch in loader:
            for items in batch[RUNS]:
                inferer(list_data_collate(items)["image"].to(settings["device"]), network)
    return _since(start)


def _now() -> Seconds:
    return time.process_time(), time.perf_counter()


def _since(start: Seconds) -> Seconds:
    now = _now()
    return now[0] - start[0], now[1] - start[1]


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
    parser.add_argument("--formats", nargs="+", default=["png", "geojson"])
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    ways: dict[str, Callable[..., Seconds]] = {NETWORK: run_network, PLAIN: run, OVERLAPPED: run}
    taken: dict[str, list[Seconds]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = {"device": arguments.device, "batch_size": arguments.batch, "formats": arguments.formats}
        settings |= make_inputs(folder, arguments.images, arguments.size, arguments.trunk)
        written: dict[str, dict[str, bytes]] = {}
        for number in tqdm(range(1 + arguments.rounds), "rounds"):
            for place, (name, way) in enumerate(ways.items()):
                out = folder / f"{number}_{place}"
                seconds = way(out, {**settings, "prefetch": name == OVERLAPPED})
                written[name] = _contents(out)
                if number > 0:  # the first round warms up
                    taken[name].append((seconds[0] / arguments.images, seconds[1] / arguments.images))
    height, width = arguments.size
    print(f"{arguments.images} images of {height} x {width} px, {arguments.trunk}; median of {arguments.rounds}")
    print(machine(arguments.device))
    rows = []
    for name, times in taken.items():
        row = [name]
        for one, first in zip(zip(*times, strict=True), zip(*taken[NETWORK], strict=True), strict=True):
            row += [spread(one), f"{median(mine / other for mine, other in zip(one, first, strict=True)):.2f}"]
        rows.append(row)
    print_table(["", "processor, ms per image (range)", "ratio", "wall, ms per image (range)", "ratio"], rows)
    same = written[OVERLAPPED] == written[PLAIN]
    print(f"the bytes written are {'the same' if same else 'NOT THE SAME'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
