# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Image files that a stranger may send: those that are to be read, and those that are to be refused."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (45, 64)


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    """Blocks of colour, unlike along both axes."""
    blocks = np.random.default_rng(seed).integers(0, 255, (size[0] // 8 + 1, size[1] // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]])


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file of a kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _flat(colour: int) -> bytes:
    return encoded(Image.new("RGB", SIZE[::-1], (colour,) * 3), "PNG")


def chunk(name: bytes, data: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG file that says it has this size, whatever its parts are."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def good_files() -> dict[str, bytes]:
    """Files that are images, whatever they are called and however they are stored."""
    image, grey = picture(), picture().convert("L")
    turned = Image.Exif()
    turned[0x0112] = 6
    wide = Image.fromarray(np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE))
    return {
        "png_named.jpg": encoded(image, "PNG"),
        "one_bit.png": encoded(grey.convert("1"), "PNG"),
        "palette.png": encoded(image.convert("P"), "PNG"),
        "grey.png": encoded(grey, "PNG"),
        "grey_alpha.png": encoded(grey.convert("LA"), "PNG"),
        "rgba.png": encoded(image.convert("RGBA"), "PNG"),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "deep.png": encoded(wide, "PNG"),
        "deep.tif": encoded(wide, "TIFF"),
        "float.tif": encoded(Image.fromarray(np.float32(np.asarray(grey) / 255)), "TIFF"),
        "turned.jpg": encoded(image, "JPEG", exif=turned),
        "icc.png": encoded(image, "PNG", icc_profile=b"not a profile"),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "big.tif": encoded(image, "TIFF", big_tiff=True),
        "pixel.png": encoded(picture(1, (1, 1)), "PNG"),
        "line.png": encoded(picture(1, (1, 5000)), "PNG"),
        "column.png": encoded(picture(1, (5000, 1)), "PNG"),
        "small.png": encoded(picture(2, (31, 31)), "PNG"),
        "odd.png": encoded(picture(3, (481, 479)), "PNG"),
        "white.png": _flat(255),
        "black.png": _flat(0),
        "constant.png": _flat(127),
        "a b.png": encoded(image, "PNG"),
        "é.png": encoded(image, "PNG"),
        "组织.png": encoded(image, "PNG"),
        "🔬.png": encoded(image, "PNG"),
        "new\nline.png": encoded(image, "PNG"),
        "-x.png": encoded(image, "PNG"),
        "dot..png": encoded(image, "PNG"),
        "=cmd|'calc'!A0.png": encoded(image, "PNG"),
        "@sum.png": encoded(image, "PNG"),
        f"{'n' * 251}.png": encoded(image, "PNG"),
    }


def bad_files() -> dict[str, tuple[bytes, str]]:
    """Files that are no image that one could run on, each with a word that its failure must say."""
    image = picture()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (97, 61, 3), dtype=np.uint8))
    unit = np.float32(np.asarray(image.convert("L")) / 255)
    others = [picture(1), picture(2)]
    bad = {
        "empty.png": (b"", "empty"),
        "text.png": (b"hello, world\n", "not a PNG"),
        "eps.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a PNG"),
        "svg.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a PNG"),
        "pdf.png": (b"%PDF-1.7\n%...", "not a PNG"),
        "gif.png": (encoded(image, "GIF", save_all=True, append_images=others), "not a PNG"),
        "animated.png": (encoded(image, "PNG", save_all=True, append_images=others), "3 frames"),
        "pages.tif": (encoded(image, "TIFF", save_all=True, append_images=others), "3 pages"),
        "pyramid.tif": (encoded(image, "TIFF", save_all=True, append_images=[image.resize((32, 22))]), "2 pages"),
        "nan.tif": (encoded(Image.fromarray(np.where(unit > 0.5, np.float32("nan"), unit)), "TIFF"), "NaN"),
        "infinite.tif": (encoded(Image.fromarray(np.where(unit > 0.5, np.float32("inf"), unit)), "TIFF"), "infinite"),
        "huge.png": (png(100_000, 100_000, chunk(b"IDAT", zlib.compress(b""))), "max_pixels=10000000000"),
        "bomb.png": (png(9, 9, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 27)))), "cannot be decoded"),
    }
    for kind, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("BMP", "bmp"), ("TIFF", "tif")):
        data = encoded(noise, kind)
        for percent in (10, 50, 99):
            bad[f"cut_{percent}.{suffix}"] = (data[: len(data) * percent // 100], "")
    return bad


def bad_places(folder: Path) -> dict[str, str]:
    """Make what is called like an image and is none that could be opened; words that the failures must say."""
    (folder / "broken.png").symlink_to(folder / "nowhere.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    said = {"broken.png": "no such file", "loop.png": "", "pipe.png": "not a file"}
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/latin_\xe9.png")).write_bytes(encoded(picture(), "PNG"))
    except OSError:  # a file system that takes UTF-8 only
        return said
    return {**said, "latin_\\udce9.png": "not UTF-8"}
