# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Time and memory of transformers as trunks, with random weights: what a tile and a step of training take.

    python benchmarks/vision_transformers.py [--models tiny small] [--scale 0.5] [--rounds 5] [--device cpu]

A transformer of each size is written to a temporary folder (DINOv2, patches of 14 px) and used as ``trunk=hf:FOLDER``;
any other trunk may be named beside them.
A tile is one of GlaS, 522 x 775 px, at the scale of the recipe; a step is one of the first stage's, 8 crops of 256 px.
Each trunk has a process of its own, whose largest memory is printed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from steps import make_network, training_step
from timing import machine, print_table, round_robin, spread

from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks import TRUNKS, RefinedNetwork

SIZES = {"tiny": (32, 2, 2), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
"""Features, layers and heads of ViT-S, ViT-B and ViT-L, and of a model for tests."""


def write(folder: Path, size: str) -> int:
    """Write a model with random weights.

    Returns:
        How many parameters it has.
    """
    from transformers import Dinov2Config, Dinov2Model

    features, layers, heads = SIZES[size]
    config = Dinov2Config(hidden_size=features, num_hidden_layers=layers, num_attention_heads=heads, image_size=518)
    model = Dinov2Model(config)
    model.save_pretrained(folder)
    content = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps(content), encoding="utf-8")
    return sum(one.numel() for one in model.parameters())


def row(size: str, scale: float, rounds: int, device: str) -> list[str]:
    """What is measured of one trunk: one of :data:`SIZES`, or a trunk by its name."""
    torch.set_num_threads(1)
    if size not in SIZES:
        network = make_network(size, "cpu")
        return _measured(size, size, sum(one.numel() for one in network.trunk.parameters()), scale, rounds, device)
    with tempfile.TemporaryDirectory() as folder:
        parameters = write(Path(folder), size)
        return _measured(f"transformer, {size}", f"hf:{folder}", parameters, scale, rounds, device)


def _measured(name: str, trunk: str, parameters: int, scale: float, rounds: int, device: str) -> list[str]:
    begun = time.process_time()
    network = make_network(trunk, device)
    loaded = time.process_time() - begun
    refined = RefinedNetwork(trunk, 2, "none", base=network.settings(), seed=0).to(device).eval()
    tile = torch.rand(1, 3, 522, 775, generator=torch.Generator().manual_seed(0)).to(device)
    crops = torch.rand(8, 3, 256, 256, generator=torch.Generator().manual_seed(0)).to(device)
    batch = {"image": crops, "label": torch.tensor([0, 1] * 4, device=device)}
    inferer, step = WholeTileInferer(scale), training_step(name, network, batch, passes=0, shares=None)

    @torch.inference_mode()
    def predict() -> object:
        return inferer(tile, refined)

    times = round_robin([predict, step.run], rounds, device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    of_gpu = f", {torch.cuda.max_memory_allocated() / 2**20:.0f} of the GPU" if device == "cuda" else ""
    return [name, f"{parameters / 1e6:.1f}", f"{loaded:.1f}", *map(spread, times), f"{most:.0f}{of_gpu}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [*SIZES, *TRUNKS]
    parser.add_argument("--models", nargs="+", choices=known, default=["efficientnet_lite0", "tiny", "small", "base"])
    parser.add_argument("--scale", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    common = (arguments.scale, arguments.rounds, arguments.device)
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as pool:
        rows = [pool.submit(row, size, *common).result() for size in arguments.models]
    print(machine(arguments.device))
    columns = ["trunk", "parameters, M", "loading, s", "mask and class of a tile, ms (range)"]
    print_table([*columns, "step of the first stage, ms (range)", "memory, MiB"], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
