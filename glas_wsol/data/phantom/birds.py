# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Write the bird phantom: drawn birds of the five CUB5 species with exact silhouettes, laid out as CUB-200-2011."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from glas_wsol.data.cub import CUB5_VALID
from glas_wsol.data.phantom.bird_drawing import SPECIES, draw_bird
from glas_wsol.data.phantom.folder import build_phantom, check_request, generator_of, run_jobs
from glas_wsol.errors import ConfigError

__all__ = ["write_bird_phantom"]

_VERSION = 2  # of the generator: raise it whenever the same request would give other bytes


class _Picture(NamedTuple):
    folder: str
    name: str
    train: bool


def write_bird_phantom(
    directory: str | Path,
    *,
    seed: int = 0,
    train: int = 150,
    test: int = 50,
    size: tuple[int, int] = (150, 200),
    workers: int | None = None,
    progress: bool = False,
) -> Path:
    """Write a data set in the layout of CUB-200-2011: its five tables, ``images/`` and ``segmentations/``.

    Class folders and file names are spelled as in CUB-200-2011. The official training split holds, for every species
    with 30 training images or more, the six validation images of the paper's CUB5; with fewer, a fifth of them has
    those names. The pictures depend on ``seed``, their name and ``size`` only.

    Args:
        directory: the folder to write; an equal phantom in it is left untouched.
        train: number of training images, spread evenly over the species.
        test: number of test images, likewise.
        size: rows and columns, px, around which the sizes of the pictures vary by a fifth; some are upright.
        workers: processes; None takes as many as there are processors and work for. The files are the same with any
            number. They are spawned: a script that is not imported safely (``if __name__ == "__main__":``) needs 1.

    Returns:
        The folder. Its ``phantom.json`` records the arguments.

    Raises:
        ConfigError: an argument out of range.
        OutputError: the folder exists and holds something else, or is not writable.
    """
    check_request(test, seed, train=train)
    if len(size) != 2 or min(size) < 48:
        raise ConfigError(
            f"a picture of {tuple(size)} px is too small", "size", "give (rows, columns) of at least 48 px"
        )
    manifest = {"phantom": "birds", "version": _VERSION, "seed": seed, "train": train, "test": test,
                "size": [int(n) for n in size]}  # fmt: skip
    pictures = _pictures(train, test)

    def fill(folder: Path) -> None:
        for species in SPECIES:
            (folder / "images" / species).mkdir(parents=True)
            (folder / "segmentations" / species).mkdir(parents=True)
        draw = partial(_write_picture, seed=seed, size=(size[0], size[1]))
        seconds = 0.02 + 1.2e-6 * size[0] * size[1]
        run_jobs(draw, folder, pictures, workers=workers, seconds=seconds, progress=progress, title="bird phantom")
        _write_tables(folder, pictures)

    return build_phantom(directory, manifest, fill)


def _pictures(train: int, test: int) -> list[_Picture]:
    """All pictures in the order of ``images.txt``: by class number, then by file name."""
    pictures = []
    for place, species in enumerate(SPECIES):
        in_train, in_test = (count // len(SPECIES) + (place < count % len(SPECIES)) for count in (train, test))
        # the raven's files capitalise "Necked", its folder does not: so it is in the real set
        stem = species.partition(".")[2].replace("necked", "Necked")
        # the validation images of CUB5 exist in the phantom too, so that the paper's fold does
        valid = list(CUB5_VALID[species][: max(1, in_train // 5)])
        taken = {name.split("_")[0] for name in CUB5_VALID[species]}
        free = (number for number in (f"{n:04d}" for n in range(1, 10_000)) if number not in taken)
        others = [
            f"{next(free)}_{900_000 + 1000 * place + n}" for n in range(in_train + in_test - len(valid[:in_train]))
        ]
        cut = len(others) - in_test
        pictures += [_Picture(species, f"{stem}_{name}", True) for name in valid[:in_train] + others[:cut]]
        pictures += [_Picture(species, f"{stem}_{name}", False) for name in others[cut:]]
    return sorted(pictures)


def _write_picture(folder: Path, picture: _Picture, *, seed: int, size: tuple[int, int]) -> None:
    rng = generator_of(seed, picture.name)
    rows, cols = (round(n * rng.uniform(0.8, 1.2)) for n in size)
    if rng.random() < 0.15:
        rows, cols = cols, rows
    image, votes = draw_bird(rng, SPECIES[picture.folder], (rows, cols))
    Image.fromarray(image).save(folder / "images" / picture.folder / f"{picture.name}.jpg", quality=92)
    Image.fromarray(votes).save(folder / "segmentations" / picture.folder / f"{picture.name}.png")


def _write_tables(folder: Path, pictures: Sequence[_Picture]) -> None:
    numbers = {species: int(species.partition(".")[0]) for species in sorted(SPECIES)}
    tables = {
        "classes.txt": [f"{number} {species}" for species, number in numbers.items()],
        "images.txt": [],
        "image_class_labels.txt": [],
        "train_test_split.txt": [],
        "bounding_boxes.txt": [],
    }
    for number, picture in enumerate(pictures, start=1):
        tables["images.txt"].append(f"{number} {picture.folder}/{picture.name}.jpg")
        tables["image_class_labels.txt"].append(f"{number} {numbers[picture.folder]}")
        tables["train_test_split.txt"].append(f"{number} {int(picture.train)}")
        box = _box(folder / "segmentations" / picture.folder / f"{picture.name}.png")
        tables["bounding_boxes.txt"].append(f"{number} " + " ".join(f"{edge:.1f}" for edge in box))
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _box(path: Path) -> tuple[int, int, int, int]:
    """Left, top, width and height of the silhouette, px."""
    with Image.open(path) as votes:
        silhouette = np.asarray(votes) > 127
    rows, cols = np.flatnonzero(silhouette.any(axis=1)), np.flatnonzero(silhouette.any(axis=0))
    return int(cols[0]), int(rows[0]), int(cols[-1] - cols[0] + 1), int(rows[-1] - rows[0] + 1)
