# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Whether familiarity tells held-out tiles from strange images, and ranks another laboratory's tiles by their masks.

    python benchmarks/familiarity.py MODEL GLAS [--tiles CSV --mpp 1.5] [--birds DIR] [--every 1]

``MODEL`` was trained on the paper's fold of ``GLAS``. Its training images are described anew; the held-out ones, what
was done to three of them, and the pictures of scikit-image are scored. ``CSV`` (``image,mask,label``) is of another
laboratory: its tiles are brought to GlaS's 0.62 um. Masks are read for the last figures alone. Prints Markdown tables;
says so and ends where the data are not there.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence import photographs
from PIL import Image
from scipy import ndimage
from scipy.stats import spearmanr
from skimage.color import hsv2rgb, rgb2hsv

import glas_wsol
from glas_wsol.data import load_datalist
from glas_wsol.failure_detection.training_images import describe_images
from glas_wsol.inferers import WholeTileInferer
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.networks.familiarity import Familiarity
from glas_wsol.results.how_to_read import STRANGE
from glas_wsol.transforms import read_mask, read_rgb

Picture = np.ndarray  # [H, W, 3] uint8

GLAS_MPP = 0.62
PICTURES = (
    *("astronaut", "camera", "chelsea", "coffee", "coins", "rocket", "brick", "grass", "gravel", "moon", "page"),
    *("text", "clock", "retina", "horse", "cell", "colorwheel", "hubble_deep_field"),
)


def resized(picture: Picture, factor: float) -> Picture:
    """A picture of other magnification."""
    size = [max(32, round(side * factor)) for side in picture.shape[1::-1]]
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def hue(turn: float) -> Callable[[Picture], Picture]:
    """Turn all hues by a part of the circle."""

    def change(picture: Picture) -> Picture:
        values = rgb2hsv(picture)
        values[..., 0] = (values[..., 0] + turn) % 1
        return (255 * hsv2rgb(values)).round().astype(np.uint8)

    return change


def centre(picture: Picture) -> Picture:
    """Its middle, twice as large."""
    height, width = picture.shape[:2]
    return resized(picture[height // 4 : height - height // 4, width // 4 : width - width // 4], 2)


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "negative": lambda picture: 255 - picture,
    "red and blue exchanged": lambda picture: picture[..., ::-1].copy(),
    "hue turned by 90 degrees": hue(0.25),
    "hue turned by 180 degrees": hue(0.5),
    "grey": lambda picture: np.repeat(np.asarray(Image.fromarray(picture).convert("L"))[..., None], 3, axis=2),
    "Gaussian blur 6 px": lambda picture: ndimage.gaussian_filter(picture, (6, 6, 0)),
    "twice the magnification": centre,
    "half the magnification": lambda picture: resized(picture, 0.5),
    "a quarter of the magnification": lambda picture: resized(picture, 0.25),
}
HARMLESS: dict[str, Callable[[Picture], Picture]] = {
    "mirrored": lambda picture: picture[:, ::-1].copy(),
    "a quarter of the tile": lambda picture: picture[: picture.shape[0] // 2, : picture.shape[1] // 2].copy(),
}


def auroc(familiar: list[float], strange: list[float]) -> float:
    """How often a familiar image has the higher score than a strange one; a tie counts half."""
    first, second = np.array(familiar)[:, None], np.array(strange)
    return float(((first > second) + 0.5 * (first == second)).mean())


def row(name: str, scores: list[float], held: list[float] | None = None) -> None:
    """Print a line of the table."""
    flagged = sum(score < STRANGE for score in scores)
    against = "" if held is None else f"{auroc(held, scores):.3f}"
    print(f"| {name} | {len(scores)} | {np.median(scores):.3g} | {flagged} | {against} |", flush=True)


def tiles(table: Path, every: int) -> Iterator[tuple[str, Picture, np.ndarray]]:
    """Label, image and mask of some lines of a table."""
    with table.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))[::every]
    for line in lines:
        yield line["label"], read_rgb(table.parent / line["image"]), read_mask(table.parent / line["mask"]) > 0


def f1(mask: np.ndarray, truth: np.ndarray) -> float:
    """Of the foreground."""
    both = mask.sum() + truth.sum()
    return float(2 * (mask & truth).sum() / both) if both else 1.0


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model.pt, or the output folder of its training")
    parser.add_argument("glas", type=Path, help="the GlaS training images")
    parser.add_argument("--tiles", type=Path, metavar="CSV", help="another laboratory's tiles with masks")
    parser.add_argument("--mpp", type=float, default=1.5, help="their micrometres per pixel (default: 1.5)")
    parser.add_argument("--every", type=int, default=1, help="take every nth of them (default: 1)")
    parser.add_argument("--birds", type=Path, metavar="DIR", help="photographs of birds")
    options = parser.parse_args(arguments)
    missing = [path for path in (options.model, options.glas) if not path.exists()]
    if missing:
        print(f"nothing is measured: {missing[0]} is not there")
        return
    torch.set_num_threads(1)
    localizer = glas_wsol.load(options.model, class_scores="localizer")
    network, items = localizer.network, load_datalist(options.glas, fold="paper", log=False)
    card = model_card(str(options.model if options.model.is_file() else options.model / "models" / "model.pt"))

    def read(item: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"image": torch.from_numpy(read_rgb(item["image"]).copy()).permute(2, 0, 1) / 255}

    inferer = WholeTileInferer(card["scale"], card.get("short_side"))
    network.familiarity = Familiarity.read(describe_images(network, items.select("train"), read, inferer))

    def score(picture: Picture) -> float:
        return float(localizer(np.ascontiguousarray(picture)).familiarity)

    held_out = [read_rgb(item["image"]) for item in items.select("valid")]
    held, strange = [score(one) for one in held_out], []
    some = held_out[:: max(1, len(held_out) // 3)][:3]
    print("| images | n | median familiarity | unlike | AUROC against held-out tiles |\n|---|---|---|---|---|")
    row("held-out tiles", held)
    for name, change in HARMLESS.items():
        row(f"three of them, {name}", [score(change(one)) for one in some])
    for name, change in CHANGES.items():
        scores = [score(change(one)) for one in some]
        row(f"three of them, {name}", scores, held)
        strange += scores
    for name, names in {"photographs and drawings": PICTURES, "IHC of colon": ("immunohistochemistry",)}.items():
        scores = [score(one) for one in photographs(names)]
        row(f"scikit-image's {name}", scores, held)
        strange += scores
    if options.birds is not None:
        scores = [score(read_rgb(path)) for path in sorted(options.birds.rglob("*.jpg"))[::15]]
        row("photographs of birds", scores, held)
        strange += scores
    row("all strange images", strange, held)
    if options.tiles is None:
        return
    found: dict[str, list[tuple[float, float, float]]] = {}
    for label, picture, truth in tiles(options.tiles, options.every):
        result = localizer(resized(picture, options.mpp / GLAS_MPP))
        mask = np.asarray(Image.fromarray(result.mask).resize(truth.shape[::-1]))
        scores = (float(result.familiarity), f1(mask, truth), f1(~mask, ~truth))
        found.setdefault(label, []).append(scores)
    print("\n| tiles of another laboratory | n | median familiarity | unlike | F1+ | F1- |\n|---|---|---|---|---|---|")
    for label, scores in found.items():
        values = np.array(scores)
        flagged = (values[:, 0] < STRANGE).sum()
        means = " | ".join(f"{100 * one:.1f}" for one in values[:, 1:].mean(axis=0))
        print(f"| {label} | {len(values)} | {np.median(values[:, 0]):.3g} | {flagged} | {means} |")
    values = np.concatenate([np.array(one) for one in found.values()])
    for column, name in ((1, "F1+"), (2, "F1-")):
        rank = spearmanr(values[:, 0], values[:, column])
        print(
            f"\nSpearman of familiarity and {name}: {rank.statistic:.2f} (p = {rank.pvalue:.2g}, {len(values)} tiles)"
        )


if __name__ == "__main__":
    main()
