# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Sets to train on, and the bundle's commands, for the scripts beside this one."""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glas_wsol.bundle import resolve_dataset
from glas_wsol.data import load_datalist

__all__ = ["CONFIGS", "ROOT", "add_sets", "bundle_run", "held_out", "named", "sets_of", "write_table"]

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "bundles" / "glas_minmax_entropy" / "configs"


def write_table(path: Path, rows: Sequence[dict[str, str]], shuffled: bool = False) -> None:
    """A datalist; the labels of its training images permuted or not."""
    rows = [dict(row) for row in rows]
    if shuffled:
        training = [row for row in rows if row["split"] == "train"]
        labels = [row["label"] for row in training]
        random.Random(1).shuffle(labels)  # noqa: S311 - no secret
        for row, label in zip(training, labels, strict=True):
            row |= {"label": label, "group": row["image"]}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image", "label", "mask", "group", "split"])
        writer.writeheader()
        writer.writerows(rows)


def split_table(source: Path) -> list[dict[str, str]]:
    """Rows of a table with a fifth of its groups held out."""
    with source.open(newline="", encoding="utf-8") as file:
        rows = [{key: row[key] for key in ("image", "label", "mask", "group")} for row in csv.DictReader(file)]
    groups = sorted({row["group"] for row in rows})
    random.Random(0).shuffle(groups)  # noqa: S311 - no secret
    held_out = set(groups[: len(groups) // 5])
    return [{**row, "split": "valid" if row["group"] in held_out else "train"} for row in rows]


def phantom_rows(folder: Path, seed: int, confounded: bool) -> list[dict[str, str]]:
    """Rows of a phantom, drawn where it is not."""
    options = {"seed": seed, "train": 40, "test": 12, "size": [272, 400], "scale": 1.0, "confounded": confounded}
    datalist = load_datalist(resolve_dataset("phantom", str(folder), "tissue", options), fold="stratified-0")
    return [
        {
            "image": item["image"],
            "label": datalist.classes[item["label"]],
            "mask": item["mask"],
            "group": Path(item["image"]).stem,
            "split": split,
        }
        for split in ("train", "valid", "test")
        for item in datalist.select(split, masks=True)
    ]


def sets_of(folder: Path, tables: dict[str, Path], phantoms: int) -> dict[str, list[dict[str, str]]]:
    """Rows of every set by its name: of the tables, and of phantoms with neutral and with confounded stroma.

    Args:
        folder: where phantoms are drawn.
        tables: CSV files by the names of their sets.
        phantoms: how many of each kind.
    """
    rows = {name: split_table(path) for name, path in tables.items()}
    for seed in range(1, phantoms + 1):
        for kind in ("neutral", "confounded"):
            place = folder / "phantoms" / f"{kind}_{seed}"
            rows[f"phantom_{kind}_{seed}"] = phantom_rows(place, seed, kind == "confounded")
    return rows


def held_out(name: str) -> str:
    """The split of a set that its figures are of."""
    return "test" if name.startswith("phantom") else "valid"


def add_sets(parser: argparse.ArgumentParser, phantoms: int) -> None:
    """Arguments that name the sets: ``table`` and ``phantom``, for :func:`sets_of`.

    Args:
        parser: of a command.
        phantoms: of each kind, where none are asked for.
    """
    parser.add_argument("--table", type=named, action="append", default=[], metavar="NAME=CSV")
    help_ = f"neutral and confounded phantoms, each; default {phantoms}"
    parser.add_argument("--phantom", type=int, default=phantoms, help=help_)


def named(text: str) -> tuple[str, Path]:
    """``NAME=PATH``."""
    name, _, path = text.partition("=")
    return name, Path(path)


def bundle_run(log: Path, files: Sequence[Path], settings: Mapping[str, Any]) -> int:
    """One run of the bundle, of one thread unless the environment says otherwise; its exit status.

    Args:
        log: what it prints; its folder is made.
        files: of configuration, laid on each other in this order.
        settings: by id.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    listed = json.dumps([str(file) for file in files], ensure_ascii=False)
    flags = [f"--{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", listed, *flags]
    with log.open("w", encoding="utf-8") as file:
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        return subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, env=environment).returncode
