# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""TIFF files of every layout, made of known samples, and what a viewer must show of them by arithmetic of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

H, W = 37, 52

PHOTOMETRICS = ("minisblack", "miniswhite", "rgb", "palette", "separated", "ycbcr", "rgba", "grey+alpha")
TYPES = ("u1", "u2", "u4", "u8", "u12", "u16", "u32", "i8", "i16", "i32", "f16", "f32", "f64")
COMPRESSIONS = ("none", "deflate", "lzw", "packbits", "zstd", "deflate+predictor", "lzw+predictor", "jpeg", "jpeg2000")
CHANNELS = {"rgb": 3, "separated": 4, "ycbcr": 3, "rgba": 4, "grey+alpha": 2}


@dataclass(frozen=True)
class Layout:
    """How a file stores its samples."""

    photometric: str
    kind: str
    compression: str = "none"
    planar: bool = False
    tiled: bool = False
    big_endian: bool = False
    bigtiff: bool = False

    def __str__(self) -> str:
        flags = [name for name in ("planar", "tiled", "big_endian", "bigtiff") if getattr(self, name)]
        return "-".join([self.photometric, self.kind, self.compression, *flags])


def samples(layout: Layout) -> np.ndarray:
    """``[H, W, S]`` smooth, different along both axes and in every channel, from 0 to the largest value."""
    rows, columns = np.mgrid[:H, :W] / np.array([H - 1, W - 1]).reshape(2, 1, 1)
    unit = [rows * 0.6 + columns * 0.4, columns * 0.9, 1 - rows * 0.7 - columns * 0.3, 0.2 + 0.8 * rows * columns]
    count = CHANNELS.get(layout.photometric, 1)
    values = np.stack([unit[n] for n in ((0, 3) if count == 2 else range(count))], -1)
    bits = int(layout.kind[1:])
    if layout.kind[0] == "f":
        return values.astype(f"f{bits // 8}")
    if layout.kind[0] == "i":
        return np.rint(values * (2 ** (bits - 1) - 1)).astype(f"i{bits // 8}")
    stored = np.rint(values * (2**bits - 1))
    return stored.astype(bool if bits == 1 else np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


def colour_map(bits: int) -> np.ndarray:
    """``[3, 2**bits]`` uint16 whose high bytes are all different."""
    steps = np.arange(2**bits) * 255 // max(1, 2**bits - 1)
    return (np.stack([steps, 255 - steps, steps // 2 + 30]) * 256 + 7).astype(np.uint16)


def write(path: Path, layout: Layout, values: np.ndarray, **more: Any) -> Path:
    """Write with tifffile; `NotImplementedError` or `ValueError` where it cannot."""
    bits, name = int(layout.kind[1:]), layout.photometric
    compression, _, predictor = layout.compression.partition("+")
    if compression in ("jpeg", "jpeg2000") and (layout.kind not in ("u8", "u16") or (bits > 8 and layout.big_endian)):
        raise NotImplementedError("tifffile writes other numbers of bits, or swaps the bytes of a picture")
    if compression != "none" and layout.kind in ("u2", "u4", "u12"):
        raise NotImplementedError("tifffile packs no bits that it compresses")
    if (bits == 1 and values.shape[-1] > 1 and not layout.planar) or (bits == 12 and layout.big_endian):
        raise NotImplementedError("what tifffile packs here is read otherwise by libtiff too")
    stored = values if values.shape[-1] > 1 else values[..., 0]
    options: dict[str, Any] = {
        "photometric": {"rgba": "rgb", "grey+alpha": "minisblack"}.get(name, name),
        "compression": None if compression == "none" else compression,
        "predictor": bool(predictor) or None,
        "tile": (16, 32) if layout.tiled else None,
        "rowsperstrip": None if layout.tiled else 8,
        "byteorder": ">" if layout.big_endian else "<",
        "bigtiff": layout.bigtiff,
        "metadata": None,
        **more,
    }
    if (
        compression in ("deflate", "lzw", "packbits", "none", "zstd")
        and layout.kind[0] == "u"
        and bits not in (1, 8, 16, 32)
    ):
        options["bitspersample"] = bits
    if name == "palette":
        options["colormap"] = colour_map(bits)
    if name in ("rgba", "grey+alpha"):
        options["extrasamples"] = ["unassalpha"]
    if name == "ycbcr":
        options["subsampling"] = (1, 1)
    if compression == "jpeg":
        options["compressionargs"] = {"level": 98}
    if stored.ndim == 3:
        options["planarconfig"] = "separate" if layout.planar else "contig"
        stored = np.moveaxis(stored, -1, 0) if layout.planar else stored
    tifffile.imwrite(path, stored, **options)
    return path


def shown(layout: Layout, values: np.ndarray) -> np.ndarray:
    """``[H, W, 3]`` float, 0 to 255: the specification's arithmetic in double precision."""
    name = layout.photometric
    if name == "palette":
        return (colour_map(int(layout.kind[1:])) >> 8).T[values[..., 0].astype(int)].astype(float)
    white = 1 if layout.kind[0] == "f" else 2 ** int(layout.kind[1:]) - 1
    unit = values.astype(float) / white
    if name == "separated":
        return 255 * (1 - unit[..., :3]) * (1 - unit[..., 3:])
    if name == "ycbcr":
        y, b, r = (unit * 255 - [0, 128, 128]).transpose(2, 0, 1)
        rgb = np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b], -1)
        return rgb.clip(0, 255)
    if name == "miniswhite":
        unit = 1 - unit
    if name in ("rgba", "grey+alpha"):
        unit = unit[..., :-1] * unit[..., -1:] + 1 - unit[..., -1:]
    return 255 * np.repeat(unit, 3 // unit.shape[-1], axis=-1)
