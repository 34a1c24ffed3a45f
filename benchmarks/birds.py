# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The bird bundle on folds of photographs with official boxes, by the program's own commands.

    python benchmarks/birds.py DATA OUT [--classes "['A','B']"] [--folds stratified-0] [--seeds 0] [--methods]

Trains both stages of the recommended recipe for every fold and seed, evaluates the validation images, and prints the
tables (``python -m glas_wsol table``). With ``--methods``, CAM-Avg, WILDCAT and min-max entropy with 0 and 4 passes on
the same trunk and schedule too. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = str(ROOT / "bundles" / "cub5_minmax_entropy")
LIGHT = [str(ROOT / "configs" / name) for name in ("data/light_photographs.json", "trunks/efficientnet_lite0.json")]
METHODS = ("cam_avg", "wildcat", "minmax_0", "minmax_4")


def commands(data: str, out: Path, classes: str, folds: Sequence[str], seeds: Sequence[str], methods: bool) -> list:
    """The commands in their order, without the interpreter."""
    found = []
    for fold in folds:
        for seed in seeds:
            run = str(out / "recommended" / fold / f"seed_{seed}")
            chosen = ["--cub_classes", classes, "--fold", fold, "--seed", seed]
            found.append(["train", data, "--bundle", BUNDLE, "--output", run, *chosen])
            found.append(["evaluate", run, "--split", "valid"])
    if methods:
        study = ["study", str(out / "methods"), "--bundle", BUNDLE, "--dataset_dir", data, "--overlays", *LIGHT]
        found.append(
            [*study, "--methods", *METHODS, "--seeds", *seeds, "--folds", *folds, "--", "--cub_classes", classes]
        )
    return [*found, ["table", str(out), "--oracle"]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the commands; stop at the first that fails, with its status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the folder CUB_200_2011, or the one that holds it")
    parser.add_argument("out", type=Path)
    parser.add_argument("--classes", default="cub5")
    parser.add_argument("--folds", nargs="+", default=["stratified-0"])
    parser.add_argument("--seeds", nargs="+", default=["0"])
    parser.add_argument("--methods", action="store_true")
    given = parser.parse_args(arguments)
    for command in commands(given.data, given.out, given.classes, given.folds, given.seeds, given.methods):
        status = subprocess.run([sys.executable, "-m", "glas_wsol", *command], check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
