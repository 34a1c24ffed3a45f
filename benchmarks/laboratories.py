# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Models on the images of several laboratories: F1+, F1- and class error, with intervals over images and seeds.

    python benchmarks/laboratories.py tables GLAS EBHI TABLES
    python benchmarks/laboratories.py measure VALUES.csv --model NAME=RUN ... --table NAME=TABLE.csv ...
    python benchmarks/laboratories.py table VALUES.csv --table NAME=TABLE.csv ...
    python benchmarks/laboratories.py seeds RUN TABLE.csv

``tables`` writes the tables of GlaS, of EBHI-Seg (normal mucosa, polyps and adenocarcinoma, enlarged to GlaS's 0.62
um) and of both, to train on and to measure on. ``measure`` localizes the test images of the tables with every model
and writes a line per model and image; what is there already is left. Models of one name are the seeds of one recipe.
``table`` prints a line per name and table: means over images and seeds, with 95 % intervals by drawing both again.
``seeds`` prints how many of the first round's pseudo-labels of a run are right, by laboratory. Masks are read for
measuring alone.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sets import named
from tqdm import tqdm

import glas_wsol
from glas_wsol.data import glas_datalist, table_datalist
from glas_wsol.metrics.bootstrap import redraw, share_interval
from glas_wsol.pseudo_labels.seeds import IGNORE
from glas_wsol.transforms import read_mask

COLUMNS = ("model", "run", "image", "f1_foreground", "f1_background", "error")
RESAMPLES = 4999
TITLES = (
    "| trained on | measured on | seeds | F1+ | F1- | class error | mean of F1+ and F1-, by seed |\n"
    "|---|---|---|---|---|---|---|"
)
EBHI_MPP, GLAS_MPP = 1.5, 0.62
KINDS = {"normal": "benign", "polyp": "benign", "adenocarcinoma": "malignant"}
MOST = 3  # tiles of a case that train: a few cases have most of the normal ones


def glas_rows(glas: Path) -> list[dict[str, str]]:
    """The paper's fold 0; its held-out images are validation and measured on. Patients are on both sides of it."""
    found = glas_datalist(glas)
    return [
        {"image": item["image"], "mask": item["mask"], "label": found.classes[item["label"]], "kind": "",
         "group": f"GlaS-{item['group']}-{split}", "split": split, "source": "GlaS"}
        for split in ("train", "valid") for item in found.select(split, masks=True)
    ]  # fmt: skip


def ebhi_rows(ebhi: Path, folder: Path) -> list[dict[str, str]]:
    """Half of the cases of each kind train, a sixth validates, the others are measured on; tiles are enlarged."""
    cases = defaultdict(list)
    with (ebhi / "index.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["label"] in KINDS:
                cases[row["case_id"].upper()].append(row)
    draw, split = random.Random(0), {}  # noqa: S311 - no secret
    for kind in KINDS:
        names = sorted(name for name, tiles in cases.items() if tiles[0]["label"] == kind)
        draw.shuffle(names)
        split |= {name: "train" if n % 2 == 0 else "valid" if n % 6 == 1 else "test" for n, name in enumerate(names)}
    rows = []
    for case, tiles in sorted(cases.items()):
        for tile in tiles[: MOST if split[case] == "train" else None]:
            paths = {}
            for key, mode, how in (("image", "RGB", Image.Resampling.BICUBIC), ("mask", "L", Image.Resampling.NEAREST)):
                paths[key] = str(folder / tile["label"] / f"{Path(tile['image']).stem}{'_mask' * (key == 'mask')}.png")
                Path(paths[key]).parent.mkdir(parents=True, exist_ok=True)
                with Image.open(ebhi / tile[key]) as picture:
                    side = round(picture.width * EBHI_MPP / GLAS_MPP)
                    picture.convert(mode).resize((side, side), how).save(paths[key])
            known = {"kind": tile["label"], "group": case, "split": split[case], "source": "EBHI-Seg"}
            rows.append({**paths, "label": KINDS[tile["label"]], **known})
    return rows


def write_tables(glas: Path, ebhi: Path, out: Path) -> None:
    """Tables to train on, and ``on_*.csv`` to measure on."""
    first, second = glas_rows(glas), ebhi_rows(ebhi, out / "EBHI")
    training = {"glas": first, "ebhi": second, "both": first + second}
    measured = {
        "on_glas": [row for row in first if row["split"] == "valid"],
        "on_ebhi": [row for row in second if row["split"] == "test"],
        "on_glas_all": first,
        "on_ebhi_all": second,
        "on_ebhi_normal_adenocarcinoma": [row for row in second if row["kind"] != "polyp"],
    }
    for name, rows in (training | measured).items():
        titles = ["image", "label", "mask", *(["group", "source"] if name in training else []), "split"]
        with (out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, titles, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(row if name in training else {**row, "split": "test"} for row in rows)


def f1(found: np.ndarray, true: np.ndarray) -> float:
    """Twice the overlap over both areas; 1 where both are empty."""
    both = found.sum() + true.sum()
    return 2 * float((found & true).sum()) / float(both) if both else 1.0


def measure(values: Path, models: Sequence[tuple[str, Path]], tables: Sequence[tuple[str, Path]]) -> None:
    """Add the lines that ``values`` lacks."""
    items = {item["image"]: item for _, path in tables for item in table_datalist(path).select("test", masks=True)}
    done = {(row["run"], row["image"]) for row in read(values)}
    with values.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if not done:
            writer.writerow(COLUMNS)
        for name, run in models:
            missing = [item for image, item in items.items() if (str(run), image) not in done]
            if not missing:
                continue
            localize = glas_wsol.load(run, class_scores="class")
            for item in tqdm(missing, f"{name} {run}"):
                found, true = localize(item["image"]), read_mask(item["mask"]) > 0
                scores = f1(found.mask, true), f1(~found.mask, ~true)
                writer.writerow([name, run, item["image"], *scores, int(found.label != item["label"])])
                file.flush()


def read(values: Path) -> list[dict[str, str]]:
    """The lines measured so far."""
    if not values.exists():
        return []
    with values.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def estimate(seeds: np.ndarray) -> list[str]:
    """A cell per column of ``[seeds, images, columns]``: the mean, and its interval where images and seeds vary."""
    images = redraw(seeds.shape[1], RESAMPLES) / seeds.shape[1]
    runs = redraw(len(seeds), RESAMPLES, seed=1) / len(seeds)
    drawn = np.einsum("rs,ri,sic->rc", runs, images, seeds, optimize=True)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    if seeds[..., -1].min() == seeds[..., -1].max():  # no error, or nothing else: drawing again gives no width
        low[-1], high[-1] = share_interval(list(seeds[0, :, -1]))
    found = zip(seeds.mean(axis=(0, 1)), low, high, strict=True)
    return [f"{100 * value:.1f} ({100 * a:.1f} to {100 * b:.1f})" for value, a, b in found]


def line(name: str, table: str, seeds: np.ndarray) -> str:
    """A line under :data:`TITLES`; ``seeds``: ``[seeds, images, 3]``, F1+, F1- and error."""
    by_seed = ", ".join(f"{100 * one[:, :2].mean():.1f}" for one in seeds)
    cells = [name, f"{table} ({seeds.shape[1]})", str(len(seeds)), *estimate(seeds), by_seed]
    return "| " + " | ".join(cells) + " |"


def print_table(values: Path, tables: Sequence[tuple[str, Path]]) -> None:
    """A line per recipe and table."""
    lines: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(dict))
    for row in read(values):
        lines[row["model"]][row["run"]][row["image"]] = [float(row[key]) for key in COLUMNS[3:]]
    print(TITLES)
    for name, runs in lines.items():
        for table, path in tables:
            images = [item["image"] for item in table_datalist(path).select("test")]
            whole = [run for run in runs.values() if all(image in run for image in images)]
            if whole:
                print(line(name, table, np.array([[run[image] for image in images] for run in whole])))


def print_seeds(run: Path, table: Path) -> None:
    """Of each laboratory's training pixels: how many are pseudo-labels of either side, and how many of these right."""
    pixels: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for item in table_datalist(table).select("train", masks=True):
        seeds = read_mask(run / "models" / "seeds" / "round_1" / f"{item['name']}.png")
        pixels[item.get("source", "all")].append((seeds.ravel(), read_mask(item["mask"]).ravel() > 0))
    for source, pairs in sorted(pixels.items()):
        seeds, true = (np.concatenate(one) for one in zip(*pairs, strict=True))
        sides = ((seeds > IGNORE, true), (seeds < IGNORE, ~true))
        cells = [
            f"{100 * side.mean():.1f} % of pixels, {100 * wanted[side].mean():.1f} % right" for side, wanted in sides
        ]
        print(f"{source}: decidable {cells[0]}; undecidable {cells[1]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    tables = commands.add_parser("tables")
    for name in ("glas", "ebhi", "out"):
        tables.add_argument(name, type=Path)
    seeds = commands.add_parser("seeds")
    for name in ("run", "table"):
        seeds.add_argument(name, type=Path)
    for name in ("measure", "table"):
        command = commands.add_parser(name)
        command.add_argument("values", type=Path)
        command.add_argument("--table", type=named, action="append", default=[], metavar="NAME=CSV")
        if name == "measure":
            command.add_argument("--model", type=named, action="append", default=[], metavar="NAME=RUN")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    if arguments.command == "tables":
        write_tables(arguments.glas, arguments.ebhi, arguments.out)
        return 0
    if arguments.command == "seeds":
        print_seeds(arguments.run, arguments.table)
        return 0
    if arguments.command == "measure":
        measure(arguments.values, arguments.model, arguments.table)
    print_table(arguments.values, arguments.table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
