# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Good files, changed at random places by a seed: reading one may end in success or a typed error, in nothing else."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from glas_wsol.data import images_datalist, table_datalist
from glas_wsol.data.outlines import read_outlines
from glas_wsol.errors import GlasWsolError
from glas_wsol.networks.weights import load_strictly, read_state_dict
from glas_wsol.transforms import read_mask, read_rgb
from glas_wsol.writers.geojson import write_geojson
from tests.dicoms import dicom, save
from tests.reliability.files import encoded, picture
from tests.writers.results import asymmetric_result


@dataclass
class Ends:
    """How reading the changed files of one kind ended.

    Attributes:
        counts: how often by what: ``"success"``, or the name of a typed error.
        faults: what must not be: any other exception, an error of more than one line, or one that took too long.
        slowest: seconds of the slowest.
    """

    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """The data, changed in one to three of seven ways."""
    changed = bytearray(data)
    for _ in range(random.integers(1, 4)):
        size = max(1, len(changed))
        place, length = int(random.integers(size)), int(random.choice((1, 2, 4, 16, 64)))
        way = random.integers(7)
        if way == 0:
            for spot in random.integers(0, size, length):
                changed[spot : spot + 1] = bytes([random.integers(256)])
        elif way == 1:
            changed[place : place + 1] = bytes([changed[place] ^ (1 << int(random.integers(8)))]) if changed else b""
        elif way == 2:
            del changed[place:]
        elif way == 3:
            del changed[place : place + length]
        elif way == 4:
            changed[place:place] = random.bytes(length)
        elif way == 5:
            changed[place:place] = changed[place : place + 16 * length]
        else:  # numbers that are the largest, the smallest, negative
            changed[place : place + 4] = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"9999", b"-1,\n")[
                random.integers(5)
            ]
    return bytes(changed)


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def _load(path: Path) -> None:
    load_strictly(_network(), read_state_dict(path), path, "give another file")


def _outlines(path: Path) -> None:
    read_outlines(path, 33, 58)


def _image(path: Path) -> None:
    assert read_rgb(path, max_pixels=1 << 20).ndim == 3


def _mask(path: Path) -> None:
    assert read_mask(path, max_pixels=1 << 20).ndim == 2


def _train_table(path: Path) -> None:
    assert table_datalist(path).classes


def _list(path: Path) -> None:
    assert len(images_datalist(path)) > 0


def good_files(folder: Path) -> dict[str, list[tuple[Path, Callable[[Path], None]]]]:
    """Files by kind, each with what reads it; tables name images that are in the folder."""
    for number in range(6):
        (folder / f"a{number}.png").write_bytes(encoded(picture(number), "PNG"))
    labels = Image.fromarray((np.asarray(picture().convert("L")) > 99).astype(np.uint8))
    images = {
        "image.png": encoded(picture(), "PNG"),
        "image.jpg": encoded(picture(), "JPEG"),
        "image.bmp": encoded(picture(), "BMP"),
        "image.tif": encoded(picture(), "TIFF", compression="tiff_lzw"),
        "mask.png": encoded(labels, "PNG"),
    }
    splits = ("train", "train", "valid", "valid", "test", "test")
    lines = [f"a{n}.png,{('benign', 'malignant')[n % 2]},p{n},{split}" for n, split in enumerate(splits)]
    tables = {
        "train.csv": "\n".join(["image,label,group,split", *lines, ""]).encode(),
        "list.csv": '\ufeffimage;note\r\na0.png;"x; y"\r\na1.png;\r\n'.encode(),
    }
    for name, data in {**images, **tables}.items():
        (folder / name).write_bytes(data)
    save(folder / "image.dcm", dicom(np.asarray(picture())))
    write_geojson(folder / "a.geojson", asymmetric_result(), undecidable=True)
    torch.save(_network().state_dict(), folder / "weights.pt")
    save_file(_network().state_dict(), folder / "weights.safetensors")
    read = {name: _mask if name == "mask.png" else _image for name in (*images, "image.dcm")}
    return {
        "image": [(folder / name, reader) for name, reader in read.items()],
        "CSV": [(folder / "train.csv", _train_table), (folder / "list.csv", _list)],
        "GeoJSON": [(folder / "a.geojson", _outlines)],
        "weights": [(folder / "weights.pt", _load), (folder / "weights.safetensors", _load)],
    }


def fuzz(folder: Path, cases: int, seed: int = 0, slow: float = 10.0) -> dict[str, Ends]:
    """Change each kind of file so many times, and read it.

    Args:
        folder: to work in.
        cases: of each kind, shared by its files.
        seed: of the changes.
        slow: seconds that none may take.
    """
    found: dict[str, Ends] = {}
    for kind, files in good_files(folder).items():
        ends = found[kind] = Ends()
        for path, read in files:
            read(path)  # the file itself is good
        for number in range(cases):
            path, read = files[number % len(files)]
            random = np.random.default_rng([seed, number])
            changed = path.with_name(f"changed{path.suffix}")
            changed.write_bytes(mutated(path.read_bytes(), random))
            begun, case = time.process_time(), f"{path.name}, seed [{seed}, {number}]"
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(changed)
                end = "success"
            except GlasWsolError as error:
                end = type(error).__name__
                if len(str(error).splitlines()) != 1:
                    ends.faults.append(f"{case}: {error}")
            except Exception as error:
                end = f"{type(error).__name__}, which is not typed"
                ends.faults.append(f"{case}: {end}: {error}")
            seconds = time.process_time() - begun
            ends.slowest = max(ends.slowest, seconds)
            if seconds > slow:
                ends.faults.append(f"{case}: {seconds:.1f} s")
            ends.counts[end] += 1
    return found
