# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Measure what some corrected tiles teach: the model before, after, and a U-Net that learns from these tiles alone.

True masks stand for corrected ones. Tiles are drawn at random by the seed, from patients of whom no image is evaluated,
so that every number of tiles is measured on the same images::

    python benchmarks/corrections.py GLAS --model OUT --output CURVE -n 1 5 10 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from glas_wsol.data import Datalist, Item, load_datalist
from glas_wsol.loading import ModelSource
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.utils.csv_files import write_csv

MEASURES = {"f1_foreground": "F1+", "f1_background": "F1-", "pixel_average_precision": "PxAP", "object_f1": "object F1"}


def drawn(datalist: Datalist, split: str, count: int, seed: int) -> list[Item]:
    """Training images with masks, of patients of whom none is in ``split``; those of a smaller number come first."""
    evaluated = {item.group for item in datalist.splits[split]}
    free = [item for item in datalist.splits["train"] if item.mask and item.group not in evaluated]
    order = np.random.default_rng(seed).permutation(len(free))
    return [free[place] for place in order[:count]]


def _run(*words: object) -> None:
    print("$ python -m glas_wsol", *words, flush=True)
    subprocess.run([sys.executable, "-m", "glas_wsol", *map(str, words)], check=True)


def _evaluated(folder: Path, split: str) -> dict[str, float]:
    _run("evaluate", folder, "--split", split)
    path = folder / "evaluation.json"
    found = json.loads(path.read_text())["measures"]
    return {title: 100 * found[key]["value"] for key, title in MEASURES.items() if key in found}


def _unet(folder: Path, datalist: Datalist, split: str, tiles: list[Item], seed: int, steps: int) -> dict[str, float]:
    """The U-Net from the drawn tiles alone, which must be of every class; of each step there are 8 at most."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [("train", item) for item in tiles] + [("valid", item) for item in datalist.splits[split]]
    rows = [
        {
            "image": str(item.image.resolve()),
            "label": datalist.classes[item.labels[0]],
            "mask": str(item.mask.resolve()) if item.mask else "",
            "split": part,
            "mpp": item.mpp or "",
        }
        for part, item in parts
    ]
    write_csv(folder / "datalist.csv", rows)
    words = ("--method", "unet", "--output", folder / "run", "--seed", seed)
    _run("train", folder / "datalist.csv", *words, "--epochs", math.ceil(steps / math.ceil(len(tiles) / 8)))
    return _evaluated(folder / "run", "valid")


def main(argv: list[str] | None = None) -> None:
    """Print one line of a table for each number and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("-n", type=int, nargs="+", default=[5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--split", default="valid")
    parser.add_argument("--unet", action="store_true", help="also train the U-Net from the same tiles alone")
    parser.add_argument("--steps", type=int, default=72, help="of the U-Net: as many as learn makes")
    given = parser.parse_args(argv)
    card = model_card(str(ModelSource(given.model).checkpoint))
    datalist = load_datalist(given.data, fold=card["fold"], seed=card["fold_seed"], log=False)
    lines = []
    for count in given.n:
        for seed in given.seeds:
            tiles = drawn(datalist, given.split, count, seed)
            folder = given.output / f"n_{count}_seed_{seed}"
            (folder / "corrections").mkdir(parents=True, exist_ok=True)
            for item in tiles:
                shutil.copy(item.mask, folder / "corrections" / f"{item.name}{item.mask.suffix}")
            words = ("--model", given.model, "--corrections", folder / "corrections", "--output", folder / "learnt")
            _run("learn", given.data, *words, "--seed", seed)
            lines.append((f"learn, n = {count}, seed {seed}", _evaluated(folder / "learnt", given.split)))
            if given.unet:
                found = _unet(folder / "unet", datalist, given.split, tiles, seed, given.steps)
                lines.append((f"U-Net alone, n = {count}, seed {seed}", found))
            _print(lines)


def _print(lines: list[tuple[str, dict[str, float]]]) -> None:
    titles = list(lines[0][1])
    print("|", " | ".join(["", *titles]), "|\n|", " | ".join(["---"] * (1 + len(titles))), "|")
    for name, found in lines:
        print("|", " | ".join([name, *(f"{found[title]:.1f}" for title in titles)]), "|", flush=True)


if __name__ == "__main__":
    main()
