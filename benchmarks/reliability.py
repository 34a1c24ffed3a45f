# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What bad inputs and kills do to a run of inference.

    python benchmarks/reliability.py [--kills 20] [--seed 0] [--inputs]

Runs inference of a network with untrained heads on synthetic tissue, one file of which is damaged, and kills it
(SIGKILL) at random moments; what the last run leaves is compared, byte by byte, with what an undisturbed one does. With
``--inputs`` the tests of bad inputs run too, and how each ended is listed. Prints Markdown tables; the status is 1
where bytes differ or a test fails.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "bundles" / "glas_minmax_entropy" / "configs" / "inference.json"
_IMPORTS = ["monai.bundle", "monai.engines", "glas_wsol.ensembles", "glas_wsol.handlers", "glas_wsol.networks"]
_SKIPPED = re.compile(r"(\d+) of \d+ images skipped")


def run_once(log: str, settings: dict[str, Any]) -> None:
    """Inference as the command line runs it, in a process of its own."""
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import monai.bundle
    import torch

    torch.set_num_threads(1)
    try:
        monai.bundle.run(config_file=str(CONFIG), **settings)
    except Exception:
        sys.excepthook(*sys.exc_info())  # leaves with its own status
        raise SystemExit(1) from None


def make_inputs(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Tiles, one of them cut off, and a model whose heads nobody trained."""
    import numpy as np
    from PIL import Image

    from glas_wsol.data.phantom_tissue import tissue_tile
    from glas_wsol.handlers import write_model
    from glas_wsol.networks import build_network

    tiles = folder / "tiles"
    tiles.mkdir(parents=True)
    for number in range(count):
        generator = np.random.default_rng([seed, number])
        tile, _ = tissue_tile(generator, bool(number % 2), (104 + number, 155), scale=0.25)
        Image.fromarray(tile).save(tiles / f"tile_{number}.png")
    damaged = tiles / f"tile_{count // 2}.png"
    damaged.write_bytes(damaged.read_bytes()[:500])
    network = build_network({}, trunk="efficientnet_lite0", weights="package", num_classes=2, seed=seed)
    card = {"trunk": "efficientnet_lite0", "classes": ["benign", "malignant"], "scale": 1.0, "short_side": None}
    write_model(network, folder / "model", {**card, "network": network.settings()})
    return {"dataset_dir": str(tiles), "checkpoint": str(folder / "model" / "model.pt"), "device": "cpu"}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def finished(folder: Path) -> int:
    """How many images a run has recorded."""
    record = folder / "finished.jsonl"
    return max(0, len(record.read_bytes().split(b"\n")) - 2) if record.is_file() else 0


def kills(folder: Path, count: int, seed: int, tiles: int = 12, per_run: int = 4) -> bool:
    """Kill runs, let each be finished, compare; prints a table, and says whether all bytes were the same."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTS)
    settings = make_inputs(folder, tiles, seed)

    def start(output: Path) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=run_once, args=(str(output) + ".log", {**settings, "output_dir": str(output)}))
        process.start()
        return process

    start(folder / "warm").join()
    begun = time.monotonic()
    process = start(folder / "undisturbed")
    process.join()
    seconds = time.monotonic() - begun
    expected = contents(folder / "undisturbed")
    masks = [data for name, data in expected.items() if name.startswith("masks/")]
    shares = [entry["decidable_fraction"] for entry in json.loads(expected["predictions.json"])]
    good = process.exitcode == 3 and len(masks) == tiles - 1 and all(0 < share < 1 for share in shares)
    print(f"undisturbed: {seconds:.2f} s, status {process.exitcode}, {len(expected)} files\n")
    print("| run | killed after (s), with so many images finished | skipped by the last run | its status | bytes |")
    print("|---|---|---|---|---|")
    moments, done, number = random.Random(seed), 0, 0  # noqa: S311 - moments, not secrets
    while done < count:
        output, told = folder / f"killed_{number}", []
        for _ in range(min(per_run, count - done)):
            moment = moments.uniform(0, seconds)
            process = start(output)
            process.join(moment)
            process.kill()
            process.join()
            done += process.exitcode == -9
            told.append(f"{moment:.2f}: {finished(output)}" + ("" if process.exitcode == -9 else " (had ended)"))
            if process.exitcode != -9:
                break
        process = start(output)
        process.join()
        log = Path(str(output) + ".log").read_text(encoding="utf-8", errors="replace")
        skipped = _SKIPPED.findall(log)
        same = contents(output) == expected
        good &= same and process.exitcode == 3
        cells = [number, "; ".join(told), skipped[-1] if skipped else 0, process.exitcode, "same" if same else "OTHER"]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        number += 1
    print(f"\n{done} kills in {number} runs: {'all bytes the same' if good else 'BYTES DIFFER'}")
    return good


def inputs(folder: Path) -> bool:
    """Run the tests of bad inputs and list how each ended; whether all passed."""
    told = folder / "told.jsonl"
    environment = {**os.environ, "GLAS_WSOL_TOLD": str(told)}
    command = [sys.executable, "-m", "pytest", str(ROOT / "tests" / "reliability"), "-m", "not slow"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    print("| tried | given | how it ended |\n|---|---|---|")
    for line in told.read_text(encoding="utf-8").splitlines():
        test, given, how = json.loads(line)
        print(f"| {test} | {_cell(given)} | {_cell(how)} |")
    print("\n" + next((line for line in reversed(ended.stdout.splitlines()) if "passed" in line), "no test passed"))
    return ended.returncode == 0


def _cell(text: str) -> str:
    text = re.sub(r"(?<![.\w])/(?:[^/\s'\]]+/)+", "", text)  # folders of this machine
    text = text if len(text) <= 200 else f"{text[:120]} ... {text[-70:]}"
    return text.replace("|", "\\|").replace("\n", "\\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for; the status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="kill runs N times (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--inputs", action="store_true", help="list bad inputs and how each ended, too")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        good = kills(Path(folder), arguments.kills, arguments.seed) if arguments.kills else True
        if arguments.inputs:
            print()
            good &= inputs(Path(folder))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
