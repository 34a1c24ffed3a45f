# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""How many images the judge of evidence accepts, and for what reason it rejects the others.

    python benchmarks/evidence.py --tissue GlaS=DIR EBHI-Seg=DIR

Synthetic tissue, birds and glass are drawn here, photographs come with scikit-image; folders of H&E tiles are named on
the command line (only images are read: files whose names end in ``_anno`` are masks and left out). Prints a Markdown
table: one row for each set and what was done to its images.
"""

from __future__ import annotations

import argparse
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from scipy.signal import fftconvolve
from skimage import data as pictures

from glas_wsol.data.phantom.bird_drawing import SPECIES, draw_bird
from glas_wsol.data.phantom.tissue import tissue_tile
from glas_wsol.results.tissue_presence import missing_evidence
from glas_wsol.transforms import read_rgb

Picture = np.ndarray  # [H, W, 3] uint8
Change = Callable[[Picture, np.random.Generator], Picture]

_GLASS = (242, 240, 243)
_INKS = {
    "black": (35, 35, 40),
    "blue": (40, 60, 160),
    "light blue": (60, 130, 210),
    "green": (30, 120, 70),
    "red": (190, 40, 50),
    "orange": (230, 120, 40),
    "purple": (95, 50, 140),
}
_PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "coins", "rocket", "brick", "grass", "gravel", "moon")
_OTHERS = ("page", "text", "clock", "retina", "horse", "immunohistochemistry", "cell", "colorwheel")
_SUFFIXES = {".bmp", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"}


def _whole(values: np.ndarray) -> Picture:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _noisy(picture: np.ndarray, random: np.random.Generator, amount: float) -> Picture:
    return _whole(picture + amount * random.standard_normal(picture.shape))


def _gaussian(sigma: float, noise: float = 0.0) -> Change:
    def change(picture: Picture, random: np.random.Generator) -> Picture:
        soft = ndimage.gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0), mode="reflect")
        return _noisy(soft, random, noise)

    return change


def _disk(radius: int) -> Change:
    """A thin lens out of focus."""
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    kernel = (rows**2 + columns**2 <= radius**2)[..., None].astype(float)

    def change(picture: Picture, _: np.random.Generator) -> Picture:
        padded = np.pad(picture.astype(float), ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
        return _whole(fftconvolve(padded, kernel / kernel.sum(), mode="valid", axes=(0, 1)))

    return change


def _compressed(sigma: float, quality: int) -> Change:
    def change(picture: Picture, random: np.random.Generator) -> Picture:
        file = io.BytesIO()
        Image.fromarray(_gaussian(sigma)(picture, random)).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return change


def _enlarged(picture: Picture, _: np.random.Generator) -> Picture:
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((2 * width, 2 * height), Image.Resampling.BICUBIC))


def _half_glass(picture: Picture, random: np.random.Generator) -> Picture:
    made = picture.copy()
    half = made.shape[1] // 2
    made[:, :half] = glass(random, (made.shape[0], half))
    return made


def _partly_blurred(picture: Picture, random: np.random.Generator) -> Picture:
    made = _gaussian(6)(picture, random)
    sharp = 3 * made.shape[1] // 4
    made[:, sharp:] = picture[:, sharp:]
    return made


GOOD: dict[str, Change | None] = {
    "as it is": None,
    "noise 8/255": lambda picture, random: _noisy(picture, random, 8),
    "Gaussian blur 1 px": _gaussian(1),
    "enlarged twice": _enlarged,
    "half of it glass": _half_glass,
    "three quarters of it blurred": _partly_blurred,
}
BLURS: dict[str, Change | None] = {
    "Gaussian blur 2 px": _gaussian(2),
    "Gaussian blur 3 px": _gaussian(3),
    "Gaussian blur 4 px": _gaussian(4),
    "Gaussian blur 4 px, noise 3/255": _gaussian(4, 3),
    "Gaussian blur 4 px, JPEG 75": _compressed(4, 75),
    "Gaussian blur 6 px": _gaussian(6),
    "Gaussian blur 8 px": _gaussian(8),
    "Gaussian blur 8 px, noise 8/255": _gaussian(8, 8),
    "disk blur, radius 8 px": _disk(8),
}


def tissue(count: int, scale: float) -> Iterator[Picture]:
    """Synthetic tiles of both grades, at a scale of the native pixels."""
    size = (round(522 * scale), round(775 * scale))
    for seed in range(count):
        yield tissue_tile(np.random.default_rng(seed), bool(seed % 2), size, scale=scale)[0]


def birds(count: int) -> Iterator[Picture]:
    """Synthetic birds of all species in turn."""
    for seed in range(count):
        yield draw_bird(np.random.default_rng(seed), list(SPECIES.values())[seed % len(SPECIES)], (150, 200))[0]


def photographs(names: Iterable[str]) -> Iterator[Picture]:
    """Pictures that come with scikit-image."""
    for name in names:
        picture = np.asarray(getattr(pictures, name)())
        picture = 255 * picture.astype(np.uint8) if picture.dtype == bool else picture
        yield np.broadcast_to(picture[..., None], (*picture.shape, 3)) if picture.ndim == 2 else picture[..., :3]


def files(folder: str | Path) -> Iterator[Picture]:
    """The images in a folder and below."""
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() in _SUFFIXES and not path.stem.endswith("_anno") and "masks" not in path.parts:
            yield read_rgb(path)


def glass(random: np.random.Generator, size: tuple[int, int] = (224, 224)) -> Picture:
    """Empty glass with the camera's noise, a shade darker towards one side."""
    shade = np.linspace(1, random.uniform(0.97, 1), size[1])[:, None]
    return _noisy(shade * np.broadcast_to(_GLASS, (*size, 3)), random, 2)


def ink(random: np.random.Generator, colour: tuple[int, int, int], size: tuple[int, int] = (224, 224)) -> Picture:
    """Two strokes of a pen on glass, uneven, with a border of a few px."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    cover = np.zeros(size)
    for _ in range(2):
        angle, place = random.uniform(0, np.pi), random.uniform(0.2, 0.8, 2) * size
        away = np.abs((columns - place[1]) * np.sin(angle) - (rows - place[0]) * np.cos(angle))
        cover = np.maximum(cover, 1 / (1 + np.exp((away - random.uniform(15, 45)) / random.uniform(0.5, 3))))
    uneven = ndimage.gaussian_filter(random.standard_normal(size), 12)
    density = np.log(np.array(_GLASS) / colour) * (cover * (1 + 0.1 * uneven / uneven.std()))[..., None]
    return _noisy(_GLASS * np.exp(-density), random, 2)


def judge(images: Iterable[Picture], change: Change | None, stain: str | None) -> Counter[str]:
    """How many images are rejected for each reason; accepted ones under the empty reason."""
    random, reasons = np.random.default_rng(0), Counter()
    for picture in images:
        changed = picture if change is None else change(picture, random)
        image = torch.from_numpy(np.array(changed)).permute(2, 0, 1).float() / 255
        height, width = image.shape[1:]
        reasons[missing_evidence(image, torch.linspace(0, 1, height * width).view(height, width), stain)] += 1
    return reasons


def show(name: str, what: str, stain: str | None, reasons: Counter[str]) -> None:
    """Print a row of the table."""
    rejected = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()) if reason) or "-"
    print(f"| {name} | {what} | {stain or '-'} | {reasons.total()} | {reasons['']} | {rejected} |", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tissue", nargs="*", default=[], metavar="NAME=DIR", help="folders of H&E tiles")
    parser.add_argument("--count", type=int, default=40, help="synthetic images of each kind (default: 40)")
    parser.add_argument("--limit", type=int, help="of the images of each folder")
    parser.add_argument("--stain", default="H&E", help="of the tissue (default: H&E)")
    options = parser.parse_args(arguments)
    print("| images | what was done to them | stain | n | accepted | rejected |\n|---|---|---|---|---|---|")
    sets: dict[str, Callable[[], Iterable[Picture]]] = {
        f"synthetic tissue, scale {scale:g}": lambda scale=scale: tissue(options.count, scale) for scale in (1.0, 0.5)
    }
    for name, _, folder in (place.partition("=") for place in options.tissue):
        sets[name] = lambda folder=folder: islice(files(folder), options.limit)
    for name, drawn in sets.items():
        images = list(drawn())
        for what, change in chain(GOOD.items(), BLURS.items()):
            show(name, what, options.stain, judge(images, change, options.stain))
    for what in ("as it is", "Gaussian blur 4 px", "Gaussian blur 8 px"):
        change = {**GOOD, **BLURS}[what]
        show("synthetic birds", what, None, judge(birds(options.count), change, None))
        show("photographs", what, None, judge(photographs(_PHOTOGRAPHS), change, None))
    show("photographs", "as it is", options.stain, judge(photographs(_PHOTOGRAPHS), None, options.stain))
    for name in _OTHERS:
        for stain in (None, options.stain):
            show(f"`{name}`", "as it is", stain, judge(photographs([name]), None, stain))
    random = np.random.default_rng(0)
    show("empty glass", "-", options.stain, judge((glass(random) for _ in range(options.count)), None, options.stain))
    for name, colour in _INKS.items():
        drawn = (ink(random, colour) for _ in range(options.count))
        show(f"{name} ink on glass", "-", options.stain, judge(drawn, None, options.stain))


if __name__ == "__main__":
    main()
