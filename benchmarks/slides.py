# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Time and memory of a slide, by its size.

    python benchmarks/slides.py MODEL [--side 10000 40000] [--tissue 0.3] [--cell 2048] [--without-network]

Makes slides of synthetic tissue in a disc on glass (0.5 um, JPEG, three levels), and localizes each in a process of its
own. With ``--without-network`` no cell is read or computed, blobs are put in its place: what is left is all that could
grow with a slide. Prints a Markdown table: processor seconds in all, in the network and for each mm2 of tissue, the
highest memory (resident set), bytes of the slide and of the results; and the smallest slide beside the largest.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_TILE, _BASE, _MPP, _LEVELS = 512, 2048, 0.5, (1, 4, 16)


def write_slide(path: Path, side: int, share: float) -> None:
    """Write a square slide tile by tile.

    Args:
        side: px at level 0.
        share: of tissue, in [0, 0.78).
    """
    import numpy as np
    import tifffile

    from glas_wsol.data.phantom.tissue import tissue_tile

    base = np.empty(0)
    if share:
        base, _ = tissue_tile(np.random.default_rng(0), True, (_BASE, _BASE), scale=1.24)
    radius = side * math.sqrt(share / math.pi)

    def tiles(every: int) -> Iterator[np.ndarray]:
        if not share:
            yield from (np.full((_TILE, _TILE, 3), 243, np.uint8) for _ in range(math.ceil(side / every / _TILE) ** 2))
            return
        small = base.reshape(_BASE // every, every, _BASE // every, every, 3).mean(axis=(1, 3)).astype(np.uint8)
        count, period = math.ceil(side / every / _TILE), len(small)
        around = np.arange(_TILE)
        glass = np.full((_TILE, _TILE, 3), 243, np.uint8)
        for top in range(0, count * _TILE, _TILE):
            for left in range(0, count * _TILE, _TILE):
                away = (
                    max(abs((start + _TILE / 2) * every - side / 2) - _TILE * every / 2, 0) for start in (top, left)
                )
                if math.hypot(*away) > radius:
                    yield glass
                    continue
                tile = small[(top + around) % period][:, (left + around) % period].copy()
                down, across = ((start + around + 0.5) * every - side / 2 for start in (top, left))
                tile[down[:, None] ** 2 + across**2 > radius**2] = 243
                yield tile

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for every in _LEVELS:
            length = math.ceil(side / every)
            tiff.write(
                tiles(every),
                shape=(length, length, 3),
                dtype=np.uint8,
                tile=(_TILE, _TILE),
                photometric="rgb",
                compression="jpeg",
                subfiletype=1 if every > 1 else 0,
                resolution=(1e4 / _MPP / every,) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def leave_out_the_network() -> None:
    """Blobs of some 60 um as the scores of a cell, at the stride of the decoder, and no cell is read."""
    import torch

    from glas_wsol.slides.cell_network import CellNetwork
    from glas_wsol.slides.cells import Cell, CellSplitter

    def blobs(self: CellNetwork, patch: torch.Tensor, cell: Cell) -> tuple[torch.Tensor, list]:
        draw = torch.Generator().manual_seed(cell.row * 1000 + cell.column)
        height, width = (side // 4 for side in patch.shape[2:])
        coarse = torch.randn(1, 1, height // 12 + 2, width // 12 + 2, generator=draw)
        scores = torch.nn.functional.interpolate(8 * coarse, (height, width), mode="bicubic")
        return scores, [[0.5, 0.5] for _ in self.windows(cell)]

    def unread(self: CellSplitter, inputs: object) -> Iterator[tuple]:
        for cell in self.cells:
            self.current = cell
            top, left, bottom, right = cell.patch
            yield torch.empty(1, 1, 1, 1).expand(1, 3, bottom - top, right - left), (top, left)

    CellNetwork.__call__, CellSplitter.__call__ = blobs, unread  # type: ignore[assignment]


def measure(model: str, slide: str, output: str, cell: int, without: bool) -> dict[str, float]:
    """Localize a slide in this process, and say what it took."""
    import torch

    from glas_wsol.cohorts.slide_jobs import SlideJob, run_slide
    from glas_wsol.loading import load_localizer
    from glas_wsol.slides.cell_network import CellNetwork

    torch.set_num_threads(1)
    if without:
        leave_out_the_network()
    loaded = load_localizer(model, device="cpu").for_slides()
    before, inside, ask = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0, CellNetwork.__call__

    def timed(self: CellNetwork, *arguments: object) -> object:
        nonlocal inside
        start = time.thread_time()
        try:
            return ask(self, *arguments)  # type: ignore[arg-type]
        finally:
            inside += time.thread_time() - start

    CellNetwork.__call__ = timed  # type: ignore[assignment]
    start = time.process_time()
    result = run_slide(SlideJob(slide, "slide"), loaded, Path(output), ("tiff", "geojson", "csv"), core=cell)
    seconds = time.process_time() - start
    written = sum(path.stat().st_size for path in Path(output, "slides", "slide").iterdir())
    return {
        "tissue_mm2": float(result.row["tissue_mm2"]),
        "cells": result.row["cells"],
        "seconds": seconds,
        "network": inside,
        "loaded": before / 1024,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "slide_mb": Path(slide).stat().st_size / 1e6,
        "written_mb": written / 1e6,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--side", nargs="+", type=int, default=[10_000, 40_000])
    parser.add_argument("--tissue", type=float, default=0.3)
    parser.add_argument("--cell", type=int, default=2048)
    parser.add_argument("--without-network", action="store_true")
    parser.add_argument("--slide", help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.slide:
        print(json.dumps(measure(given.model, given.slide, given.output, given.cell, given.without_network)))
        return
    titles = ("side px", "tissue mm2", "cells", "s in all", "in the network", "s per mm2", "all / network")
    print("|", " | ".join([*titles, "loaded MiB", "peak MiB", "slide MB", "written MB"]), "|")
    print("|---" * 11 + "|")
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for side in given.side:
            slide = Path(folder, f"{side}.tiff")
            write_slide(slide, side, given.tissue)
            command = [sys.executable, __file__, given.model, "--cell", str(given.cell)]
            command += ["--slide", str(slide), "--output", str(Path(folder, str(side)))]
            command += ["--without-network"] if given.without_network else []
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
            one = json.loads(said)
            slide.unlink()
            peaks.append(one["peak"])
            cells = [side, f"{one['tissue_mm2']:.1f}", one["cells"], f"{one['seconds']:.1f}", f"{one['network']:.1f}"]
            cells += [f"{one['seconds'] / one['tissue_mm2']:.2f}", f"{one['seconds'] / max(one['network'], 1e-9):.2f}"]
            cells += [f"{one[key]:.0f}" for key in ("loaded", "peak", "slide_mb")] + [f"{one['written_mb']:.1f}"]
            print("|", " | ".join(map(str, cells)), "|", flush=True)
    if len(peaks) > 1:
        print(f"\nlargest peak / smallest peak: {max(peaks) / min(peaks):.2f}")


if __name__ == "__main__":
    main()
