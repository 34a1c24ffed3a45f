# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Size, time and memory of a report of many images.

    python benchmarks/report.py [--images 500] [--size 522 775] [--kilobytes 60] [--tolerance 0.05]

Lays out what inference leaves of synthetic tissue, with the true masks for those found, ten different tiles under as
many names as wanted, and writes its report in this process. Prints a Markdown table; the status is 1 where the memory
in use (resident set, MiB) has grown from image 5 to image 50 by more than the tolerance.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from glas_wsol.data.phantom.tissue import tissue_tile
from glas_wsol.report import case_rows as rows
from glas_wsol.report import write_report
from glas_wsol.writers.drawing import write_png

_DIFFERENT = 10


def resident() -> float:
    """Memory in use by this process, MiB.

    Raises:
        OSError: where the system has no ``/proc``.
    """
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def lay_out(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write tiles, masks and ``predictions.json``.

    Args:
        folder: that receives them.
        count: of images.
        size: of the tiles, height and width, px.
    """
    (folder / "masks").mkdir()
    entries = []
    for place in range(_DIFFERENT):
        tile, ids = tissue_tile(np.random.default_rng(place), place % 2 == 1, size)
        write_png(folder / f"{place}.png", tile)
        write_png(folder / f"mask_{place}.png", ids > 0)
    for place in range(count):
        name, which = f"tile_{place}", place % _DIFFERENT
        (folder / "masks" / f"{name}.png").symlink_to(folder / f"mask_{which}.png")
        chances = {"benign": 0.25, "malignant": 0.75}
        said = {"probabilities": chances, "entropy": 0.562335, "normalised_entropy": 0.811278}
        entry = {"path": str(folder / f"{which}.png"), "name": name, "class": "malignant", "decidable_fraction": 0.5}
        class_scores = dict.fromkeys(("localizer", "decidable", "undecidable"), said)
        entries.append({**entry, "probabilities": chances, "class_scores": class_scores, "boxes": []})
    (folder / "predictions.json").write_text(json.dumps(entries), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether the memory is flat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--size", type=int, nargs=2, default=(522, 775), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--kilobytes", type=float, default=60)
    parser.add_argument("--tolerance", type=float, default=0.05)
    arguments = parser.parse_args(argv)
    held: list[float] = []
    pictures: list[int] = []
    draw = rows.draw_pictures

    def drawn(*given: object) -> object:
        held.append(resident())
        made = draw(*given)
        pictures.append(made.bytes)
        return made

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(rows, "draw_pictures", drawn):
        lay_out(Path(folder), arguments.images, tuple(arguments.size))
        start = time.process_time()
        page = write_report(folder, kilobytes=arguments.kilobytes, progress=True).stat().st_size
        seconds = time.process_time() - start
    first, last = held[min(4, len(held) - 1)], held[min(49, len(held) - 1)]
    print("| images | page, MB | pictures of an image, kB: mean, most | processor time, s | MiB at image 5, 50, last |")
    print("|---|---|---|---|---|")
    sizes = f"{np.mean(pictures) / 1e3:.1f}, {max(pictures) / 1e3:.1f}"
    memory = f"{first:.1f}, {last:.1f}, {held[-1]:.1f}"
    print(f"| {len(held)} | {page / 1e6:.1f} | {sizes} | {seconds:.0f} | {memory} |")
    return int(last > (1 + arguments.tolerance) * first)


if __name__ == "__main__":
    sys.exit(main())
