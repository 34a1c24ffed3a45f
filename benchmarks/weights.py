# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Makes the model that comes with the tissue bundle: trains the candidates, measures them, copies the chosen one.

The rule was written down before any candidate was measured. There are three candidates: the recommended recipe with
seed 0 on GlaS, on EBHI-Seg, and on both. Chosen is the one with the best mean of F1+ and F1-, first over the held-out
images of a laboratory, then over the two laboratories. The outlines of held-out images enter this choice between three
and nothing else: no training, no choice of an epoch, no threshold.

GlaS is split by patient (fold patient-0). EBHI-Seg is split by case: a quarter of the cases, by a digest of their
names, is held out; six of these tiles come with the bundle.

    python benchmarks/weights.py DATA    # DATA holds glas/ (the official folder) and ebhi_seg/ (with index.csv)

``--seeds 0 1 2`` trains each candidate with these seeds, and prints their means with 95 % intervals over images and
seeds. The model is chosen and shipped among those of seed 0 all the same.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from laboratories import TITLES, line
from matplotlib.figure import Figure
from PIL import Image

import glas_wsol
from glas_wsol.data import load_datalist
from glas_wsol.transforms import read_mask
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.csv_files import read_table, write_csv
from glas_wsol.utils.json_files import format_config, read_json
from glas_wsol.utils.shipped_bundles import sample_table
from glas_wsol.visualize.comparison_figure import save_png
from glas_wsol.writers.drawing import draw_mask

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "glas_minmax_entropy"
KINDS = {"normal": "benign", "polyp": "benign", "adenocarcinoma": "malignant"}
"""The class of EBHI-Seg's images; neoplasia and serrated adenoma, between the two, are left out."""
GLAS_MPP, EBHI_MPP = 0.62, 1.5  # micrometres per pixel; EBHI-Seg's is an estimate: docs/other_laboratories.md
CANDIDATES = {"glas": ("glas",), "ebhi": ("ebhi",), "both": ("glas", "ebhi")}
NAMES = {"glas": "GlaS", "ebhi": "EBHI-Seg"}
SAMPLES = 2  # held-out tiles of each kind that come with the bundle
MEASURES = ("classification_error", "f1_foreground", "f1_background", "pixel_average_precision")
Row = dict[str, Any]


def glas_rows(folder: Path) -> list[Row]:
    """GlaS's training images, a fold of the patients held out."""
    found = load_datalist(folder, fold="patient-0")
    own = {"source": "GlaS", "mpp": GLAS_MPP}
    return [
        {"image": one.image, "label": found.classes[one.labels[0]], "mask": one.mask, "group": f"GlaS {one.group}"}
        | own
        | {"split": split, "kind": ""}
        for split in ("train", "valid")
        for one in found.splits[split]
    ]


def ebhi_rows(folder: Path) -> list[Row]:
    """The images of EBHI-Seg that are benign or malignant."""
    with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["label"] in KINDS]
    return [
        {
            "image": folder / row["image"],
            "label": KINDS[row["label"]],
            "mask": folder / row["mask"],
            "group": row["case_id"].upper(),
            "source": "EBHI-Seg",
            "mpp": EBHI_MPP,
            "split": "valid" if hashlib.sha256(row["case_id"].upper().encode()).digest()[0] % 4 == 0 else "train",
            "kind": row["label"],
        }
        for row in found
    ]


def run(*words: object) -> None:
    """A command of the package; its end is this program's if it fails."""
    subprocess.run([sys.executable, "-m", "glas_wsol", *map(str, words)], check=True)


def table(path: Path, rows: Sequence[Row]) -> Path:
    """A data set as a table."""
    write_csv(path, [{key: str(value) for key, value in row.items() if key != "kind"} for row in rows])
    return path


def measured(output: Path, laboratory: Path) -> dict[str, Any]:
    """A model's measures of a laboratory's held-out images."""
    keep = output / laboratory.stem
    if not (keep / "evaluation.json").exists():
        run("evaluate", output, "--data", laboratory, "--split", "valid")
        keep.mkdir(exist_ok=True)
        for name in ("evaluation.csv", "evaluation.json"):
            shutil.move(output / name, keep / name)
    found = read_json(keep / "evaluation.json")
    return {"n": found["n"]} | {name: found["measures"][name] for name in MEASURES if name in found["measures"]}


def print_seeds(runs: dict[str, Sequence[Path]], laboratories: Sequence[str]) -> None:
    """A line per candidate and laboratory: means over images and seeds, intervals by drawing both again."""
    print(TITLES)
    for name, folders in runs.items():
        for laboratory in laboratories:
            tables = [read_table(folder / laboratory / "evaluation.csv")[1] for folder in folders]
            keys = ("f1_foreground", "f1_background", "classification_error")
            rows = np.array([[[float(row[key]) for key in keys] for row in table] for table in tables])
            print(line(name, laboratory, rows))


def score(figures: dict[str, dict[str, Any]]) -> float:
    """What the rule compares: the mean of F1+ and F1- over a laboratory's images, then over laboratories."""
    means = [(one["f1_foreground"]["value"] + one["f1_background"]["value"]) / 2 for one in figures.values()]
    return sum(means) / len(means)


def ship(candidate: Path, chosen: str, figures: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Copy the model into the bundle, and its figures into metadata.json and among the benchmarks' results."""
    models = BUNDLE / "models"
    models.mkdir(exist_ok=True)
    shutil.copyfile(candidate / "models" / "model.pt", models / "model.pt")
    card = read_json(candidate / "models" / "model.json")
    card["training_data"]["name"] = " and ".join(NAMES[one] for one in CANDIDATES[chosen])  # not the table's name
    metadata = read_json(BUNDLE / "configs" / "metadata.json")
    metadata["eval_metrics"] = {
        f"{name}_{laboratory}_held_out": round(one["value"], 4)
        for laboratory, measures in figures[chosen].items()
        for name, one in measures.items()
        if name != "n"
    }
    for path, content in (
        (BUNDLE / "configs" / "metadata.json", metadata),
        (models / "model.json", card),
        (
            ROOT / "benchmarks" / "results" / "weights.json",
            {"chosen": chosen, "score": {k: score(v) for k, v in figures.items()}} | figures,
        ),
    ):
        with atomic_write(path, "w", encoding="utf-8") as file:
            file.write(format_config(content))


def samples(rows: Sequence[Row]) -> None:
    """The first held-out tiles of each kind, in the order of their names: PNG, with masks, as a table."""
    folder = BUNDLE / "samples"
    folder.mkdir(exist_ok=True)
    held_out = sorted((row for row in rows if row["split"] == "valid"), key=lambda row: row["image"].name)
    chosen = []
    for kind in KINDS:
        of_kind = {row["group"]: row for row in reversed(held_out) if row["kind"] == kind}  # one of a case
        chosen += sorted(of_kind.values(), key=lambda row: row["image"].name)[:SAMPLES]
    lines = []
    for number, row in enumerate(chosen):
        name = f"{row['kind']}_{number % SAMPLES + 1}"
        size = 25400 / row["mpp"]  # pixels per inch: the file itself says how large its pixels are
        Image.open(row["image"]).convert("RGB").save(folder / f"{name}.png", optimize=True, dpi=(size, size))
        Image.open(row["mask"]).convert("L").point(lambda v: 255 * (v > 0)).convert("1").save(
            folder / f"{name}_mask.png"
        )
        own = {"image": f"{name}.png", "label": row["label"], "mask": f"{name}_mask.png", "group": row["group"]}
        lines.append(own | {"source": row["source"], "split": "test"})
    write_csv(folder / "samples.csv", lines)


def picture() -> None:
    """The samples, their true glands and what the shipped model finds, side by side."""
    localize, table = glas_wsol.load(), read_table(sample_table())[1]
    figure = Figure((2 * len(table), 6.5), 100, layout="constrained")
    axes = figure.subplots(3, len(table))
    for (tile, true, found), row in zip(axes.T, table, strict=True):
        result = localize(sample_table().parent / row["image"])
        truth = read_mask(sample_table().parent / row["mask"]) > 0
        tile.imshow(result.image)
        for axis, mask in ((true, truth), (found, result.mask > 0)):
            axis.imshow(draw_mask(result.image, np.zeros(mask.shape, np.float32), mask))
        tile.set_title(f"{row['image'].split('_')[0]}\nlabel: {row['label']}", fontsize=9)
        found.set_xlabel(f"{result.class_name} {result.probability:.0%}", fontsize=9)
    for axis, name in zip(axes[:, 0], ("tile", "true glands", "found"), strict=True):
        axis.set_ylabel(name, fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    save_png(ROOT / "docs" / "figures" / "tissue.png", figure)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with glas/ and ebhi_seg/")
    parser.add_argument(
        "--output", type=Path, default=Path("weights"), help="receives the candidates (default: weights)"
    )
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    given = parser.parse_args()
    output = given.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    rows = {"glas": glas_rows(given.data / "glas"), "ebhi": ebhi_rows((given.data / "ebhi_seg").resolve())}
    laboratories = {name: table(output / f"{name}.csv", found) for name, found in rows.items()}
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    runs = {name: [output / (f"{name}_{seed}" if seed else name) for seed in given.seeds] for name in given.candidates}
    for name in given.candidates:
        training = table(output / f"train_{name}.csv", [row for one in CANDIDATES[name] for row in rows[one]])
        for seed, folder in zip(given.seeds, runs[name], strict=True):
            if not (folder / "models" / "model.pt").exists():  # a candidate that is there stays, and its measures
                run("train", training, "--output", folder, "--mpp", GLAS_MPP, "--seed", seed)
            found = {one: measured(folder, file) for one, file in laboratories.items()}
            if seed == 0:
                figures[name] = found
                print(json.dumps({name: found, "score": score(found)}), flush=True)
    print_seeds(runs, list(laboratories))
    if set(figures) == set(CANDIDATES):
        chosen = max(figures, key=lambda name: score(figures[name]))
        ship(output / chosen, chosen, figures)
        samples(rows["ebhi"])
        picture()
        print(f"chosen: {chosen}")


if __name__ == "__main__":
    main()
