# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Memory of a run of inference, image by image.

    python benchmarks/infer_memory.py [--images 50] [--from 5] [--size 522 775] [--trunk resnet18] [--tolerance 0.05]

Runs ``inference.json``, with all formats and overlays, on synthetic tissue with a network whose heads nobody trained,
in this process, and takes the memory in use (resident set, MiB) after every image. Prints a Markdown table; the status
is 1 where it has grown, from the first image that counts to the last, by more than the tolerance.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "glas_minmax_entropy"


def resident() -> float:
    """Memory in use by this process, MiB.

    Raises:
        OSError: where the system has no ``/proc``.
    """
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(count: int, size: tuple[int, int], trunk: str) -> list[float]:
    """Run inference, and take the memory after each image.

    Args:
        count: how many tiles; as many different ones as ten, written under other names.
        size: their height and width, px.
        trunk: of the network.
    """
    import numpy as np
    from monai.bundle import ConfigWorkflow
    from PIL import Image

    from glas_wsol.data.phantom.tissue import tissue_tile
    from glas_wsol.handlers import write_model
    from glas_wsol.networks import build_network
    from glas_wsol.writers.formats import FORMATS

    used: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        tiles = Path(folder, "tiles")
        tiles.mkdir()
        random = np.random.default_rng(0)
        for number in range(min(count, 10)):
            tile, _ = tissue_tile(random, bool(number % 2), size, scale=min(size) / 522)
            for copy in range(number, count, 10):
                Image.fromarray(tile).save(tiles / f"{copy:04d}.png", compress_level=1)
        network = build_network({"modalities": 5, "map_stride": 32}, trunk=trunk, weights="none", num_classes=2, seed=0)
        card = {"method": "minmax", "trunk": trunk, "classes": ["benign", "malignant"], "scale": 1.0}
        write_model(network, Path(folder, "models"), {**card, "short_side": None})
        run = ConfigWorkflow(
            config_file=[str(BUNDLE / "configs" / "inference.json")],
            workflow_type="inference",
            bundle_root=str(BUNDLE),
            dataset_dir=str(tiles),
            output_dir=str(Path(folder, "out")),
            checkpoint=str(Path(folder, "models", "model.pt")),
            device="cpu",
            formats=list(FORMATS),
            undecidable=True,
            mpp=0.62,
        )
        run.initialize()
        run.evaluator.add_event_handler("ITERATION_COMPLETED", lambda _: used.append(resident()))
        run.run()
    return used


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--from", type=int, default=5, dest="first", metavar="N", help="the first image that counts")
    parser.add_argument("--size", type=int, nargs=2, default=(522, 775), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--trunk", default="resnet18")
    parser.add_argument("--tolerance", type=float, default=0.05, help="growth allowed, as a share")
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.first < arguments.images:
        parser.error("--from must lie before the last of --images")
    used = measure(arguments.images, tuple(arguments.size), arguments.trunk)
    if len(used) != arguments.images:
        print(f"{len(used)} of {arguments.images} images have a result")
        return 1
    print("\n| after image | MiB |\n|---|---|")
    for number in sorted({1, arguments.first, *range(10, arguments.images, 10), arguments.images}):
        print(f"| {number} | {used[number - 1]:.0f} |")
    growth = used[-1] / used[arguments.first - 1] - 1
    print(f"\nFrom image {arguments.first} to image {arguments.images}: {100 * growth:+.1f} %")
    return int(growth > arguments.tolerance)


if __name__ == "__main__":
    sys.exit(main())
