# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What bad inputs, kills and faults do to runs.

    python benchmarks/reliability.py [--kills 20] [--train-kills 20] [--faults] [--same] [--fuzz 200] [--inputs]

Inference of a network with untrained heads on synthetic tissue, one file of which is damaged, and a training of three
epochs. They are killed (SIGKILL) at random moments, and other things happen to them (``--faults``); inference is run in
other circumstances (``--same``); files are changed at random (``--fuzz``). What the last run leaves is compared, byte
by byte, with what an undisturbed one does. With ``--inputs`` the tests of bad inputs run too, and how each ended is
listed. Prints Markdown tables; the status is 1 where bytes differ, a run ends otherwise than it must, or a test fails.
"""

from __future__ import annotations

import argparse
import json
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

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from faults import (  # noqa: E402 - a neighbour, wherever this is started from
    CONFIGS,
    FAULTS,
    PHANTOM,
    ROOT,
    TRAINING,
    Run,
    contents,
    faults,
    finished,
    train_kills,
)

_SKIPPED = re.compile(r"(\d+) of \d+ images skipped")


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


class Undisturbed:
    """Runs that nothing happens to, each made when it is first needed.

    Args:
        folder: to work in.
        tiles: images of inference.
        seed: of the images.
    """

    def __init__(self, folder: Path, tiles: int, seed: int) -> None:
        self.folder, self.tiles, self.seed = folder, tiles, seed
        self.settings: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.files: dict[str, dict[str, bytes]] = {}

    def run(self, kind: str) -> dict[str, bytes]:
        """The files of one, after a run that warms the machine up."""
        if kind in self.files:
            return self.files[kind]
        if kind == "inference":
            self.settings[kind] = make_inputs(self.folder, self.tiles, self.seed)
        else:
            from glas_wsol.data.phantom_tissue import write_tissue_phantom

            phantom = write_tissue_phantom(self.folder / "phantom", **PHANTOM)
            self.settings[kind] = {**TRAINING, "dataset_dir": str(phantom)}
        Run(self.folder / f"warm_{kind}", self.settings[kind], kind).finish()
        begun = time.monotonic()
        status = Run(self.folder / f"undisturbed_{kind}", self.settings[kind], kind).finish()
        self.seconds[kind] = time.monotonic() - begun
        found = self.files[kind] = contents(self.folder / f"undisturbed_{kind}")
        if status != {"inference": 3, "train": 0}[kind]:
            raise SystemExit(f"the undisturbed run ended with status {status}")
        if kind == "inference":
            masks = [name for name in found if name.startswith("masks/")]
            shares = [entry["decidable_fraction"] for entry in json.loads(found["predictions.json"])]
            assert len(masks) == self.tiles - 1, masks
            assert all(0 < share < 1 for share in shares), "masks to compare"
        print(
            f"undisturbed {kind}: {self.seconds[kind]:.2f} s, status {status}, {len(found)} files compared\n",
            flush=True,
        )
        return found


def kills(undisturbed: Undisturbed, count: int, seed: int, per_run: int = 4) -> bool:
    """Kill runs, let each be finished, compare; prints a table, and says whether all bytes were the same."""
    expected = undisturbed.run("inference")
    settings, seconds = undisturbed.settings["inference"], undisturbed.seconds["inference"]
    print("| run | killed after (s), with so many images finished | skipped by the last run | its status | bytes |")
    print("|---|---|---|---|---|")
    moments, done, number, good = random.Random(seed), 0, 0, True  # noqa: S311 - moments, not secrets
    while done < count:
        run, told = Run(undisturbed.folder / f"killed_{number}", settings), []
        for _ in range(min(per_run, count - done)):
            moment = moments.uniform(0, seconds)
            process = run.start()
            process.join(moment)
            process.kill()
            process.join()
            done += process.exitcode == -9
            told.append(f"{moment:.2f}: {finished(run.output)}" + ("" if process.exitcode == -9 else " (had ended)"))
            if process.exitcode != -9:
                break
        status = run.finish()
        skipped = _SKIPPED.findall(run.log.read_text(encoding="utf-8", errors="replace"))
        same = contents(run.output) == expected
        good &= same and status == 3
        cells = [number, "; ".join(told), skipped[-1] if skipped else 0, status, "same" if same else "OTHER"]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        number += 1
    print(f"\n{done} kills in {number} runs: {'all bytes the same' if good else 'BYTES DIFFER'}\n", flush=True)
    return good


def same(undisturbed: Undisturbed) -> bool:
    """Run inference in other circumstances, and compare; prints a table, and says whether all bytes were the same."""
    expected, settings = undisturbed.run("inference"), undisturbed.settings["inference"]
    turkish = turkish_locale(undisturbed.folder)
    circumstances: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
        "one worker": ({"num_workers": 1}, {}),
        "two workers": ({"num_workers": 2}, {}),
        "another time zone": ({}, {"TZ": "Pacific/Kiritimati", "LC_ALL": "C"}),
        "locale C": ({}, {"LC_ALL": "C"}),
        **({"Turkish locale": ({}, turkish)} if turkish else {}),
    }
    print("| circumstances | status | bytes |\n|---|---|---|")
    good = True

    def compare(name: str, output: Path, status: int) -> None:
        nonlocal good
        equal = contents(output) == expected
        good &= equal and status == 3
        print(f"| {name} | {status} | {'same' if equal else 'OTHER'} |", flush=True)

    for number, (name, (more, environment)) in enumerate(circumstances.items()):
        run = Run(undisturbed.folder / f"same_{number}", {**settings, **more}, environment=environment)
        compare(name, run.output, run.finish())
    # the same names, made in another order: a folder may list them so
    tiles = Path(settings["dataset_dir"])
    kept = {path.name: path.read_bytes() for path in tiles.iterdir()}
    for path in list(tiles.iterdir()):
        path.unlink()
    for name in sorted(kept, key=lambda name: kept[name]):
        (tiles / name).write_bytes(kept[name])
    run = Run(undisturbed.folder / "same_order", settings)
    compare("files made in another order", run.output, run.finish())
    # a process of its own: the seed of hashes is drawn when Python starts
    environment = {**os.environ, **turkish, "PYTHONHASHSEED": "4711", "TZ": "Asia/Kathmandu", "OMP_NUM_THREADS": "1"}
    output = undisturbed.folder / "same_process"
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(CONFIGS / "inference.json")]
    command += [t for k, v in {**settings, "output_dir": output}.items() for t in (f"--{k}", str(v))]
    ended = subprocess.run(command, env=environment, cwd=undisturbed.folder, capture_output=True)
    compare("the command itself, elsewhere, another seed of hashes, zone and locale", output, ended.returncode)
    print(f"\n{'all bytes the same' if good else 'BYTES DIFFER'}\n", flush=True)
    return good


def turkish_locale(folder: Path) -> dict[str, str]:
    """Variables for a locale in which a lower-case I has no dot; empty where the system cannot make it."""
    made = folder / "locales" / "tr_TR.UTF-8"
    made.parent.mkdir()
    try:
        command = ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(made)]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"LC_ALL": "tr_TR.UTF-8", "LOCPATH": str(made.parent)}


def fuzzing(folder: Path, cases: int, seed: int) -> bool:
    """Read files that were changed at random; prints a table, and says whether each ended as it may."""
    from tests.reliability.mutations import fuzz

    folder.mkdir()
    print("| files | changed | how they ended | slowest (s) |\n|---|---|---|---|")
    found = fuzz(folder, cases, seed)
    for kind, ends in found.items():
        ended = ", ".join(f"{count} {end}" for end, count in ends.counts.most_common())
        print(f"| {kind} | {ends.counts.total()} | {ended} | {ends.slowest:.1f} |")
    faulty = [fault for ends in found.values() for fault in ends.faults]
    print("\n" + ("each in success or a typed error" if not faulty else "\n".join(faulty)) + "\n", flush=True)
    return not faulty


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
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="kill inference N times (default 20)")
    parser.add_argument("--train-kills", type=int, default=0, metavar="N", help="kill training N times")
    parser.add_argument(
        "--faults", nargs="?", const="all", choices=["all", "inference", "train"], help="let faults happen"
    )
    parser.add_argument("--same", action="store_true", help="run in other circumstances")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="read N changed files of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and changes")
    parser.add_argument("--inputs", action="store_true", help="list bad inputs and how each ended, too")
    parser.add_argument("--tiles", type=int, default=12, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    good = True
    with tempfile.TemporaryDirectory() as name:
        undisturbed = Undisturbed(Path(name), given.tiles, given.seed)
        if given.kills:
            good &= kills(undisturbed, given.kills, given.seed)
        if given.train_kills:
            expected = undisturbed.run("train")
            settings, seconds = undisturbed.settings["train"], undisturbed.seconds["train"]
            good &= train_kills(Path(name), settings, expected, given.train_kills, given.seed, seconds)
        if given.faults:
            which = [fault for fault in FAULTS if given.faults in ("all", fault.kind)]
            expected_files = {kind: undisturbed.run(kind) for kind in dict.fromkeys(fault.kind for fault in which)}
            good &= faults(Path(name), undisturbed.settings, expected_files, which)
        if given.same:
            good &= same(undisturbed)
        if given.fuzz:
            good &= fuzzing(Path(name) / "fuzz", given.fuzz, given.seed)
        if given.inputs:
            good &= inputs(Path(name))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
