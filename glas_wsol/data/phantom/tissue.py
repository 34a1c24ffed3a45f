# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Draw the tissue phantom: H&E-like tiles with exact gland masks, and a whole data set of them in the GlaS layout."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from glas_wsol.data.glas import GLAS_VALID
from glas_wsol.data.phantom.canvas import Canvas
from glas_wsol.data.phantom.epithelium import paint_epithelium
from glas_wsol.data.phantom.folder import build_phantom, check_request, generator_of, run_jobs
from glas_wsol.data.phantom.glands import grow_glands
from glas_wsol.data.phantom.stroma import StromaRecipe, paint_stroma
from glas_wsol.errors import ConfigError

__all__ = ["tissue_tile", "write_tissue_phantom"]

_VERSION = 2  # of the generator: raise it whenever the same request would give other bytes
_GRADE_HEADER = (
    "name",
    "patient ID",
    " grade (GlaS)",
    " grade (Sirinukunwattana et al. 2015)",
)  # the official spelling
_OFFICIAL_TRAIN, _OFFICIAL_BENIGN = 85, 37

_HAEMATOXYLIN = (0.65, 0.70, 0.29)  # optical densities of red, green and blue: Ruifrok and Johnston (2001)
_EOSIN = (0.07, 0.99, 0.11)
_MPP = 0.62  # micrometres of a native pixel, as in GlaS


def tissue_tile(
    rng: np.random.Generator,
    malignant: bool,
    size: tuple[int, int] = (522, 775),
    *,
    scale: float = 1.0,
    confounded: bool = False,
    stain_strength: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one tile.

    Args:
        rng: source of randomness; the same state gives the same tile.
        malignant: the grade: the architecture of the glands and of their epithelium.
        size: rows and columns, px, from 64 x 64 on.
        scale: pixels per native pixel (0.62 um): 0.25 shows the tissue of a full tile in a quarter of the width.
        confounded: let the stroma show the grade too.
        stain_strength: mean concentration of both stains, 1 = usual.

    Returns:
        The picture, uint8 ``[H, W, 3]`` RGB, and the glands' ids from 1, 0 = background, uint8 (uint16 beyond 255
        glands) ``[H, W]``.

    Raises:
        ConfigError: a size below 64 px, or a scale or strength that is not positive.
    """
    _check(size, scale=scale, stain_strength=stain_strength)
    canvas = Canvas((size[0], size[1]), scale)
    fraction = rng.uniform(0.42, 0.62)
    recipe = StromaRecipe.draw_confounded(rng, malignant=malignant) if confounded else StromaRecipe.draw(rng)
    glands = grow_glands(rng, canvas, malignant=malignant, fraction=fraction)
    stroma = paint_stroma(rng, canvas, glands, recipe)
    epithelium = paint_epithelium(rng, canvas, glands, malignant=malignant)
    cover = np.clip(0.5 - glands.field * np.float32(scale), 0, 1)
    h, e = (canvas.tile(s * (1 - cover) + g * cover) for s, g in zip(stroma, epithelium, strict=True))
    image = _photograph(rng, canvas, h, e, stain_strength)
    labels = canvas.tile(glands.labels)
    ids = np.unique(labels[labels > 0])
    order = np.zeros(glands.count + 1, dtype=np.uint16 if len(ids) > 255 else np.uint8)
    order[ids] = np.arange(1, len(ids) + 1)
    return image, order[labels]


def write_tissue_phantom(
    directory: str | Path,
    *,
    seed: int = 0,
    train: int = 85,
    test: int = 24,
    size: tuple[int, int] = (522, 775),
    scale: float = 1.0,
    confounded: bool = False,
    workers: int | None = None,
    progress: bool = False,
) -> Path:
    """Write a data set in the layout of GlaS: ``<name>.bmp``, ``<name>_anno.bmp`` and ``Grade.csv``.

    With 85 training tiles the grades are 37 benign and 48 malignant, and those of the paper's fold 0 are as in GlaS;
    with any other number, and in the test split, the grades alternate. Three quarters of the test tiles are ``testA``,
    the others ``testB``. No patient has tiles of two grades or in both splits. The tiles depend on the arguments from
    ``seed`` to ``confounded`` only. Their files record the size of a pixel, 0.62 um at a scale of 1.

    Args:
        directory: the folder to write; an equal phantom in it is left untouched.
        size: rows and columns of a tile, px.
        scale: pixels per native pixel, see :func:`tissue_tile`.
        confounded: let the stroma show the grade too.
        workers: processes; None takes as many as there are processors and work for. The files are the same with any
            number. They are spawned: a script that is not imported safely (``if __name__ == "__main__":``) needs 1.

    Returns:
        The folder. Its ``phantom.json`` records the arguments.

    Raises:
        ConfigError: an argument out of range.
        OutputError: the folder exists and holds something else, or is not writable.
    """
    _check(size, scale=scale, train=train, test=test, seed=seed)
    manifest = {"phantom": "tissue", "version": _VERSION, "seed": seed, "train": train, "test": test,
                "size": [int(n) for n in size], "scale": float(scale), "confounded": confounded}  # fmt: skip
    tiles = _train_tiles(train) + _test_tiles(test)

    def fill(folder: Path) -> None:
        draw = partial(_write_tile, seed=seed, size=(size[0], size[1]), scale=scale, confounded=confounded)
        seconds = 0.04 + 1.6e-6 * size[0] * size[1]
        run_jobs(draw, folder, tiles, workers=workers, seconds=seconds, progress=progress, title="tissue phantom")
        _write_grades(folder / "Grade.csv", tiles)

    return build_phantom(directory, manifest, fill)


class _Tile(NamedTuple):
    name: str
    malignant: bool
    patient: int


def _check(size: Sequence[int], test: int = 0, seed: int = 0, **positive: float) -> None:
    check_request(test, seed, **positive)
    if len(size) != 2 or min(size) < 64:
        raise ConfigError(
            f"a tile of {tuple(size)} px is too small", "size", "give (rows, columns) of at least 64 px each"
        )


def _write_tile(folder: Path, tile: _Tile, *, seed: int, size: tuple[int, int], scale: float, confounded: bool) -> None:
    rng = generator_of(seed, tile.name)
    image, labels = tissue_tile(rng, tile.malignant, size, scale=scale, confounded=confounded)
    Image.fromarray(image).save(folder / f"{tile.name}.bmp", dpi=(25400 * scale / _MPP,) * 2)
    # BMP has no 16-bit grey; more than 255 glands are folded onto 1..255, where neighbours keep different ids.
    Image.fromarray(np.where(labels > 0, (labels - 1) % 255 + 1, 0).astype(np.uint8)).save(
        folder / f"{tile.name}_anno.bmp"
    )


def _train_tiles(count: int) -> list[_Tile]:
    numbers = range(1, count + 1)
    malignant = {n: n % 2 == 1 for n in numbers}
    if count == _OFFICIAL_TRAIN:
        malignant = dict.fromkeys(GLAS_VALID["malignant"], True) | dict.fromkeys(GLAS_VALID["benign"], False)
        rest = [n for n in numbers if n not in malignant]
        benign = _OFFICIAL_BENIGN - len(GLAS_VALID["benign"])
        # spread the benign tiles evenly over the remaining numbers
        malignant |= {n: (i + 1) * benign // len(rest) == i * benign // len(rest) for i, n in enumerate(rest)}
    return _with_patients([f"train_{n}" for n in numbers], [malignant[n] for n in numbers], first=1)


def _test_tiles(count: int) -> list[_Tile]:
    in_b = count // 4
    names = [f"testA_{n}" for n in range(1, count - in_b + 1)] + [f"testB_{n}" for n in range(1, in_b + 1)]
    return _with_patients(names, [i % 2 == 0 for i in range(count)], first=101)


def _with_patients(names: list[str], malignant: list[bool], first: int) -> list[_Tile]:
    """Patients of one grade each, with about five tiles each; two at least where there are five patients."""
    total = {grade: malignant.count(grade) for grade in (False, True)}
    patients = {grade: max(1, min(n // 2, max(5, n // 5))) for grade, n in total.items()}
    seen = {False: 0, True: 0}
    tiles = []
    for name, grade in zip(names, malignant, strict=True):
        number = first + grade * patients[False] + seen[grade] % patients[grade]
        seen[grade] += 1
        tiles.append(_Tile(name, grade, number))
    return tiles


def _write_grades(path: Path, tiles: Sequence[_Tile]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(_GRADE_HEADER)
        for tile in tiles:
            grades = (" malignant", " moderately differentiated") if tile.malignant else (" benign", " healthy")
            table.writerow([tile.name, tile.patient, *grades])


def _photograph(rng: np.random.Generator, canvas: Canvas, h: np.ndarray, e: np.ndarray, strength: float) -> np.ndarray:
    """Stain concentrations to a picture: Beer-Lambert's law, a little blur, the camera's noise."""
    h_vec = np.array(_HAEMATOXYLIN) + rng.uniform(0, 1.4) * np.array((-0.10, 0.08, 0.02)) + rng.normal(0, 0.02, 3)
    e_vec = np.array(_EOSIN) + rng.uniform(0, 2) * np.array((0.05, -0.07, 0.06)) + rng.normal(0, 0.02, 3)
    h_gain, e_gain = strength * np.exp(rng.normal((0.05, 0.12), (0.16, 0.2)))
    density = h[..., None] * np.float32(h_vec * h_gain) + e[..., None] * np.float32(e_vec * e_gain)
    white = np.float32(rng.normal((243, 240, 244), 2))
    image = white * np.exp(-density)
    image = ndimage.gaussian_filter(image, (0.55 * canvas.scale + 0.1, 0.55 * canvas.scale + 0.1, 0))
    image += np.float32(1.8) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
