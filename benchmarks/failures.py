# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Where masks are wrong, and in what tissue.

    python benchmarks/failures.py RUN [RUN ...] --dataset DATA [--picture FILE.png] [--tiles 3]

RUN is an evaluated folder, with its masks, of DATA. Every wrong pixel gets one reason, the first of
:data:`REASONS` that fits; the table gives each reason's share of all pixels, a mean over images (an image that several
runs evaluated counts with the mean of them), with a 95 % interval over images. The picture shows the worst tiles by the
mean of F1+ and F1- of the first run, the reasons in colour. True masks are read after the evaluation.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_closing, distance_transform_edt, gaussian_filter
from skimage.color import rgb2hed
from skimage.draw import disk
from skimage.filters import threshold_otsu

from glas_wsol.data import load_datalist
from glas_wsol.metrics.bootstrap import redraw
from glas_wsol.transforms.reading import read_mask, read_rgb

REASONS: Mapping[str, tuple[str, tuple[int, int, int]]] = {
    "outline": ("within 8 px of a true outline, on either side", (150, 150, 150)),
    "missed, bright": ("a gland's white or pale parts: lumen, mucin, goblet cells", (0, 114, 178)),
    "missed, stained": ("a gland's stained parts: epithelium", (86, 180, 233)),
    "added, bright": ("outside glands, white or pale: clefts, fat, background", (240, 228, 66)),
    "added, between glands": ("stroma in a gap below 30 px: crowded glands taken for one", (0, 158, 115)),
    "added, nuclei": ("other stroma with as much haematoxylin as the glands: inflammation", (213, 94, 0)),
    "added, other": ("other stroma: muscle, collagen, blood", (204, 121, 167)),
}
_OUTLINE, _GAP = 8, 15  # px: at most this far from an outline; half of a gap between glands
_BRIGHT = 0.8  # mean of red, green and blue in [0, 1], after a blur of 3 px


def reasons_of(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Why each pixel is wrong.

    Args:
        image: ``[H, W, 3]`` uint8.
        truth: ``[H, W]`` bool.
        mask: ``[H, W]`` bool.

    Returns:
        ``[H, W]`` int: 0 where it is right, else 1 + the place in :data:`REASONS`.
    """
    near = np.full(truth.shape, False)
    if truth.any() and not truth.all():
        near = np.where(truth, distance_transform_edt(truth), distance_transform_edt(~truth)) <= _OUTLINE
    bright = gaussian_filter(image.mean(axis=2) / 255, 3) > _BRIGHT
    haematoxylin = gaussian_filter(rgb2hed(image)[..., 0], 3)
    nuclei = haematoxylin > threshold_otsu(haematoxylin)
    ball = np.zeros((2 * _GAP + 1,) * 2, bool)
    ball[disk((_GAP, _GAP), _GAP + 0.5)] = True
    padded = np.pad(truth, _GAP)  # closing must not end at the image's border
    between = binary_closing(padded, ball)[_GAP:-_GAP, _GAP:-_GAP]
    wrong = truth != mask
    tests = (near, truth & bright, truth, bright, between, nuclei, np.full(truth.shape, True))
    found = np.zeros(truth.shape, int)
    for number, test in reversed(list(enumerate(tests, start=1))):
        found[wrong & test] = number
    return found


def look(runs: Sequence[Path], dataset: str) -> dict[str, dict[Path, np.ndarray]]:
    """The reasons of every image of every run."""
    found: dict[str, dict[Path, np.ndarray]] = defaultdict(dict)
    for run in runs:
        facts = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
        items = load_datalist(dataset, fold=facts["fold"], seed=facts["fold_seed"]).select(facts["split"], masks=True)
        for item in items:
            truth = read_mask(item["mask"]) > facts["mask_threshold"]
            mask = read_mask(run / facts["split"] / "masks" / f"{item['name']}.png") > 0
            image = read_rgb(item["image"])
            found[item["name"]][run] = reasons_of(image, truth, mask)
    return found


def table_of(found: Mapping[str, Mapping[Path, np.ndarray]]) -> str:
    """A Markdown table: each reason's share of all pixels, and of the wrong ones."""
    numbers = range(1, len(REASONS) + 1)
    rows = np.array([np.mean([[(one == n).mean() for n in numbers] for one in runs.values()], axis=0)
                     for runs in found.values()])  # fmt: skip
    drawn = redraw(len(rows)) @ rows / len(rows)
    lines = ["| reason | what it is | share of all pixels, % | of the wrong ones, % |", "|---|---|---|---|"]
    for column, (name, (what, _)) in enumerate(REASONS.items()):
        value = rows[:, column].mean()
        low, high = np.quantile(drawn[:, column], (0.025, 0.975))
        share = 100 * rows[:, column].mean() / rows.sum(axis=1).mean()
        lines.append(f"| {name} | {what} | {100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f}) | {share:.0f} |")
    total = 100 * rows.sum(axis=1).mean()
    return "\n".join([*lines, "", f"{len(rows)} images; {total:.1f} % of the pixels are wrong, a mean over images."])


def draw(run: Path, dataset: str, found: Mapping[str, Mapping[Path, np.ndarray]], path: Path, count: int) -> None:
    """The worst tiles of a run: the tile with the true outlines, the mask's outline, the reasons in colour."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    facts = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    with np.load(run / "evaluation.npz", allow_pickle=False) as values:
        both = [np.asarray(values[key])[:, 0] for key in ("f1_foreground", "f1_background")]
        score = dict(zip(values["names"].tolist(), np.mean(both, axis=0), strict=True))
    items = load_datalist(dataset, fold=facts["fold"], seed=facts["fold_seed"]).select(facts["split"], masks=True)
    worst = sorted(items, key=lambda item: score[item["name"]])[:count]
    figure = Figure(figsize=(12, 3.1 * count + 0.9), layout="constrained")
    axes = figure.subplots(count, 3, squeeze=False)
    colours = np.array([(255, 255, 255), *(colour for _, colour in REASONS.values())])
    for row, item in zip(axes, worst, strict=True):
        image, truth = read_rgb(item["image"]), read_mask(item["mask"]) > facts["mask_threshold"]
        mask = read_mask(run / facts["split"] / "masks" / f"{item['name']}.png") > 0
        reasons = found[item["name"]][run]
        faded = (0.35 * image + 0.65 * 255).astype(np.uint8)
        shown = np.where((reasons > 0)[..., None], colours[reasons], faded)
        for axis, (title, picture, outline) in zip(
            row,
            (("tile, true outlines", image, truth), ("", image, mask), ("wrong pixels, true outlines", shown, truth)),
            strict=True,
        ):
            axis.imshow(picture)
            axis.contour(outline, [0.5], colors="black", linewidths=1)
            axis.set_axis_off()
            axis.set_title(title, fontsize=10)
        row[1].set_title(f"the model's mask: mean of F1+ and F1- {100 * score[item['name']]:.0f}", fontsize=10)
    keys = [
        Patch(facecolor=np.array(colour) / 255, edgecolor="black", label=f"{name}: {what}")
        for name, (what, colour) in REASONS.items()
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Print the table, and draw the picture where one is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--tiles", type=int, default=3)
    given = parser.parse_args()
    found = look(given.runs, given.dataset)
    print(table_of(found))
    if given.picture:
        draw(given.runs[0], given.dataset, found, given.picture, given.tiles)


if __name__ == "__main__":
    main()
