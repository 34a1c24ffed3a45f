# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The micrometres of EBHI-Seg, which are not published: at which size do the nuclei of GlaS look as its nuclei do?

    python benchmarks/nuclei.py GLAS EBHI [--sizes 1.0 1.24 1.5 1.86]

Normal mucosa of EBHI-Seg, and every third benign tile of GlaS brought to several sizes of a pixel. Nuclei are regions
of haematoxylin above Otsu's threshold, of glands and of stroma apart; per set, medians over nuclei, in pixels.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.color import rgb2hed
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label, regionprops

from glas_wsol.data import glas_datalist
from glas_wsol.transforms import read_mask

_ENLARGED = 2  # before regions are measured: a nucleus has few pixels
_EVERY = 3
Pair = tuple[Image.Image, Image.Image]


def nuclei(image: Image.Image, glands: Image.Image, factor: float) -> list[list[float]]:
    """Minor axes of all nuclei and diameters of round ones, in pixels: of glands, then of stroma."""
    size = round(image.width * factor), round(image.height * factor)
    image = image.resize(size, Image.Resampling.BOX) if factor < 1 else image
    image = image.resize((size[0] * _ENLARGED, size[1] * _ENLARGED), Image.Resampling.BICUBIC)
    mask = np.asarray(glands.resize(image.size, Image.Resampling.NEAREST)) > 0
    haematoxylin = gaussian(rgb2hed(np.asarray(image))[..., 0], 1.0)
    found: list[list[float]] = []
    for region in (mask, ~mask):
        if region.sum() < 2000:
            found += [[], []]
            continue
        regions = regionprops(label((haematoxylin > threshold_otsu(haematoxylin[region])) & region))
        regions = [one for one in regions if one.area > 12 * _ENLARGED]
        found.append([one.axis_minor_length / _ENLARGED for one in regions if one.solidity > 0.85])
        round_ones = [one for one in regions if one.solidity > 0.9 and one.eccentricity < 0.75]
        found.append([one.equivalent_diameter_area / _ENLARGED for one in round_ones])
    return found


def line(name: str, pairs: Iterable[Pair], factor: float) -> str:
    """A row of the table: medians, and how many nuclei."""
    found = zip(*(nuclei(*pair, factor) for pair in pairs), strict=True)
    sizes = [[one for tile in tiles for one in tile] for tiles in found]
    return f"| {name} | " + " | ".join(f"{np.median(one):.2f} ({len(one)})" for one in sizes) + " |"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("glas", type=Path)
    parser.add_argument("ebhi", type=Path)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1.0, 1.24, 1.5, 1.86], help="um per pixel")
    arguments = parser.parse_args(argv)
    with (arguments.ebhi / "index.csv").open(newline="", encoding="utf-8") as file:
        normal = [row for row in csv.DictReader(file) if row["label"] == "normal"]
    pictures = [[Image.open(arguments.ebhi / row[key]) for key in ("image", "mask")] for row in normal]
    ebhi = [(image.convert("RGB"), mask.convert("L")) for image, mask in pictures]
    found = glas_datalist(arguments.glas)
    items = [item for split in ("train", "valid") for item in found.select(split, masks=True)]
    benign = sorted((item for item in items if item["label"] == 0), key=lambda item: int(item["name"].split("_")[1]))
    glas = [
        (Image.open(item["image"]).convert("RGB"), Image.fromarray(np.uint8(read_mask(item["mask"]) > 0)))
        for item in benign[::_EVERY]
    ]
    print("| | glands: minor axis | glands: round nuclei | stroma: minor axis | stroma: round nuclei |")
    print("|---|---|---|---|---|")
    print(line("EBHI-Seg, normal mucosa", ebhi, 1.0))
    for size in arguments.sizes:
        print(line(f"GlaS, benign, at {size:g} um", glas, 0.62 / size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
