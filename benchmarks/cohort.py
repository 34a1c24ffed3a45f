# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a cohort costs beside its cells: slides of glass, done and done again; and the table of many images.

    python benchmarks/cohort.py MODEL [--slides 200] [--side 4000] [--dask WHERE] [--rows 10000]

Makes slides of glass alone (0.5 um, JPEG, three levels), of which no cell is read, and runs ``predict`` on them twice,
in this process or on dask workers. Then writes the table of a cohort of many rows. Prints a Markdown table of processor
and wall seconds; of dask workers the wall seconds count, as their processors are not this process's.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from slides import write_slide


def timed(what: str, count: int, do: Callable[[], object]) -> None:
    """Do something, and print a row of what it took."""
    processor, wall = time.process_time(), time.monotonic()
    do()
    processor, wall = time.process_time() - processor, time.monotonic() - wall
    print(f"| {what} | {count} | {processor:.1f} | {1000 * processor / count:.1f} | {wall:.1f} |", flush=True)


def main() -> None:
    """Measure and print."""
    import torch

    from glas_wsol.cohorts.slide_run import plan_slides, run_slides
    from glas_wsol.report import write_cohort
    from glas_wsol.workers.dask_workers import dask_cluster

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--side", type=int, default=4000)
    parser.add_argument("--dask", metavar="WHERE")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rows", type=int, default=10_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, output = Path(name), Path(name, "out")
        write_slide(folder / "0.tiff", given.side, 0.0)
        for number in range(1, given.slides):
            shutil.copyfile(folder / "0.tiff", folder / f"{number}.tiff")
        slides = [{"image": str(folder / f"{n}.tiff"), "name": str(n)} for n in range(given.slides)]
        plan = plan_slides(slides, [given.model], output, {"device": "cpu"})
        model = plan.loaded()
        cluster = stack.enter_context(dask_cluster(given.dask, given.jobs, False, output)) if given.dask else None
        print("| what | how many | processor, s | ms each | wall, s |\n|---|---|---|---|---|")
        for what in ("slides without tissue", "the same again"):
            results = []
            timed(what, given.slides, lambda results=results: results.extend(run_slides(plan, model, False, cluster)))
            assert len(results) == given.slides, "every slide has a result"
            assert all(one.failure is None and one.entry["cells"] == 0 for one in results)
        if given.rows:
            entries = json.loads((output / "slides.json").read_text(encoding="utf-8"))
            many = [entries[n % len(entries)] for n in range(given.rows)]
            (output / "slides.json").write_text(json.dumps(many), encoding="utf-8")
            with contextlib.redirect_stderr(io.StringIO()):
                timed("rows of the table of a cohort", given.rows, lambda: write_cohort(output))
            print(f"\nThe table's file: {(output / 'cohort.html').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
