# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Files that are small and would take much time or memory: each ends soon, in little memory, and never in a trace."""

from __future__ import annotations

import io
import json
import multiprocessing
import resource
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from pydicom.uid import DeflatedExplicitVRLittleEndian

from glas_wsol.bundle.overrides import load
from glas_wsol.data import images_datalist, table_datalist
from glas_wsol.data.archives import extract
from glas_wsol.errors import GlasWsolError
from glas_wsol.networks.checkpoint import model_card
from glas_wsol.networks.weights import read_state_dict
from glas_wsol.transforms import read_mask, read_rgb
from glas_wsol.transforms.reading.outlines import read_outlines
from tests.dicoms import dicom, rgb, save
from tests.reliability.files import chunk, encoded, picture, png

BOMB = 1 << 27  # bytes
SECONDS, MEGABYTES = 10.0, 100.0
"""What each may take at most: processor time, and memory beyond what the process has already."""


@dataclass(frozen=True)
class Taken:
    """What reading a file took.

    Attributes:
        end: ``"success"``, or the message of a typed error; of any other exception its name.
        typed: whether it is one of the first two.
        seconds: of the processor.
        megabytes: by which the memory in use grew at most.
    """

    end: str
    typed: bool
    seconds: float
    megabytes: float


def measure(read: Callable[[Path], object], path: Path) -> Taken:
    """Read a file in a process of its own, which may take 3 GB of addresses more than it has, and no more."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(read, path, there))
    process.start()
    there.close()
    try:
        found = here.recv() if here.poll(10 * SECONDS) else Taken("it had to be stopped", False, 10 * SECONDS, 0)
    except EOFError:
        found = Taken("the process died", False, 0, 0)
    process.kill()
    process.join()
    return found


def _measured(read: Callable[[Path], object], path: Path, answer: Connection) -> None:
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (3 << 30), hard))
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        read(path)
        end, typed = "success", True
    except GlasWsolError as error:
        end, typed = " ".join(str(error).replace(str(path), path.name).split("\n")), "\n" not in str(error)
    except BaseException as error:
        end, typed = f"{type(error).__name__}: {error}"[:200], False
    seconds = time.process_time() - begun
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
    answer.send(Taken(end, typed, seconds, grown))


def _outlines(path: Path) -> object:
    return read_outlines(path, 33, 58)


def _card(path: Path) -> object:
    return model_card(str(path.with_suffix(".pt")))


def _list(path: Path) -> object:
    return images_datalist(path)


def _unpack(path: Path) -> object:
    return extract(path, path.with_name("unpacked"))


def _squeezed(size: int, byte: bytes = b"\0") -> bytes:
    squeeze = zlib.compressobj(1)
    block = byte * (1 << 20)
    return b"".join(squeeze.compress(block) for _ in range(size >> 20)) + squeeze.flush()


def _huge_tensor() -> bytes:
    """A weights file that says its tensor has 1800 times the numbers that it has, 14 GB of them."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1000, 2000)}, buffer)
    data, changed = zipfile.ZipFile(buffer), io.BytesIO()
    with zipfile.ZipFile(changed, "w") as file:
        for name in data.namelist():
            content = data.read(name)
            if name.endswith("data.pkl"):  # the opcodes of the shape and the stride, and of the size of the storage
                for old, new in ((b"M" + struct.pack("<H", n), b"J" + struct.pack("<i", 60_000)) for n in (1000, 2000)):
                    content = content.replace(old, new)
                content = content.replace(
                    b"J" + struct.pack("<i", 2_000_000), b"\x8a\x05" + struct.pack("<Q", 60_000**2)[:5]
                )
            file.writestr(name, content)
    return changed.getvalue()


def _deflated_dicom(folder: Path) -> bytes:
    image = dicom(rgb())
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.add_new((0x0009, 0x0010), "LO", "bomb")
    image.add_new((0x0009, 0x1001), "OB", bytes(BOMB))
    return save(folder / "made.dcm", image).read_bytes()


def _wide_dicom(folder: Path) -> bytes:
    image = dicom(rgb())
    image.Rows = image.Columns = 60_000
    return save(folder / "made.dcm", image).read_bytes()


def _many_values_dicom(folder: Path) -> bytes:
    image = dicom(rgb())
    image.Rows = image.Columns = 13_000  # within the budget, and the file has a hundred thousandth of it
    return save(folder / "made.dcm", image).read_bytes()


def _jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(picture(), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    struct.pack_into(">HH", data, place, height, width)
    return bytes(data)


def _tiff_of(width: int, height: int) -> bytes:
    """Header of an image without compression whose one strip is as long as it says, and is not there."""
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    entries.append((279, width * height % 2**32))
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + bytes(4)


def _tiff_bomb() -> bytes:
    strip = _squeezed(BOMB)
    entries = [(256, 64), (257, 45), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1), (278, 45), (279, len(strip))]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + struct.pack("<H", len(entries)) + body + bytes(4)


def files(folder: Path) -> dict[str, tuple[str, Callable[[], bytes], Callable[[Path], object]]]:
    """What is tried, by name: the file's name, how it is made, and what reads it."""
    ring = "[[0,0],[9,0],[9,9],[0,0]]"
    polygon = '{"type":"Feature","geometry":{"type":"Polygon","coordinates":[%s]}}'
    return {
        "a PNG of 100,000 x 100,000 px": ("a.png", lambda: png(100_000, 100_000), read_rgb),
        "a PNG whose pixels go on for 128 MB": (
            "a.png",
            lambda: png(64, 45, chunk(b"IDAT", _squeezed(BOMB))),
            read_rgb,
        ),
        "a PNG whose text goes on for 128 MB": (
            "a.png",
            lambda: png(64, 45, chunk(b"zTXt", b"a\0\0" + _squeezed(BOMB))),
            read_rgb,
        ),
        "a PNG whose colour profile goes on for 128 MB": (
            "a.png",
            lambda: png(64, 45, chunk(b"iCCP", b"a\0\0" + _squeezed(BOMB))),
            read_rgb,
        ),
        "a PNG chunk that says it has 2 GB": (
            "a.png",
            lambda: png(64, 45)[:33] + struct.pack(">I", 0x7FFFFFFF) + b"tEXt" + b"x" * 99,
            read_rgb,
        ),
        "a JPEG of 65,500 x 65,500 px": ("a.jpg", lambda: _jpeg_of(65_500, 65_500), read_rgb),
        "a TIFF of 200,000 x 200,000 px": ("a.tif", lambda: _tiff_of(200_000, 200_000), read_rgb),
        "a TIFF of 13,000 x 13,000 px with none of them": ("a.tif", lambda: _tiff_of(13_000, 13_000), read_rgb),
        "a TIFF of 64 x 45 px whose deflated strip goes on for 128 MB": ("a.tif", _tiff_bomb, read_rgb),
        "a BMP of 2 billion x 2 billion px": (
            "a.bmp",
            lambda: encoded(picture(), "BMP")[:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + bytes(99),
            read_rgb,
        ),
        "a mask of 100,000 x 100,000 px": ("a.png", lambda: png(100_000, 100_000), read_mask),
        "a DICOM image of 60,000 x 60,000 px": ("a.dcm", lambda: _wide_dicom(folder), read_rgb),
        "a DICOM image of 13,000 x 13,000 px with none of them": (
            "a.dcm",
            lambda: _many_values_dicom(folder),
            read_rgb,
        ),
        "a deflated DICOM file of 128 MB": ("a.dcm", lambda: _deflated_dicom(folder), read_rgb),
        "a table of a line of 10 MB": ("a.csv", lambda: b"image\n" + b"x" * 10_000_000, _list),
        "a table of 50,000 images that are not there": (
            "a.csv",
            lambda: b"image\n" + b"".join(b"%d.png\n" % n for n in range(50_000)),
            _list,
        ),
        "a table of 100,000 columns": (
            "a.csv",
            lambda: b",".join(b"c%d" % n for n in range(100_000)) + b"\n1\n",
            _list,
        ),
        "a table of 3,000 columns that are nearly known": (
            "a.csv",
            lambda: b"image,label," + b",".join(b"grup%d" % n for n in range(3_000)) + b"\n1\n",
            table_datalist,
        ),
        "GeoJSON nested 100,000 deep": ("a.geojson", lambda: b"[" * 100_000 + b"]" * 100_000, _outlines),
        "GeoJSON with a number of 400 digits": (
            "a.geojson",
            lambda: (polygon % ring.replace("9", "9" * 400)).encode(),
            _outlines,
        ),
        "GeoJSON with a number of 100,000 digits": (
            "a.geojson",
            lambda: (polygon % ring.replace("9", "9" * 100_000)).encode(),
            _outlines,
        ),
        "GeoJSON with a polygon of 999,999,999 px": (
            "a.geojson",
            lambda: (polygon % ring.replace("9", "999999999")).encode(),
            _outlines,
        ),
        "GeoJSON with 20,000 holes": (
            "a.geojson",
            lambda: (polygon % ",".join([ring] * 20_000)).encode(),
            _outlines,
        ),
        "safetensors with a header of 4 EB": (
            "a.safetensors",
            lambda: struct.pack("<Q", 1 << 62) + b"{}",
            read_state_dict,
        ),
        "safetensors with a tensor of 4 EB": (
            "a.safetensors",
            lambda: _safetensors({"a": {"dtype": "F32", "shape": [1 << 30, 1 << 30], "data_offsets": [0, 1 << 62]}}),
            read_state_dict,
        ),
        "weights that say they have 1800 times their numbers": ("a.pt", _huge_tensor, read_state_dict),
        "weights whose pickle goes on for 128 MB": (
            "a.pt",
            lambda: _zip_of("a/data.pkl", bytes(BOMB)),
            read_state_dict,
        ),
        "a model.json nested 100,000 deep": ("a.json", lambda: b"[" * 100_000 + b"]" * 100_000, _card),
        "a model.json of one number of 100,000 digits": ("a.json", lambda: b'{"a":' + b"9" * 100_000 + b"}", _card),
        "a model.json of 60 MB": ("a.json", lambda: b'{"a":"' + b"9" * 60_000_000 + b'"}', _card),
        "a config nested 100,000 deep": ("a.json", lambda: b"[" * 100_000 + b"]" * 100_000, _config),
        "an archive of 128 MB": ("a.zip", lambda: _zip_of("a.png", bytes(BOMB)), _unpack),
        "an archive of 10,000 files": (
            "a.zip",
            lambda: _zip_of(*(x for n in range(10_000) for x in (f"{n}", b""))),
            _unpack,
        ),
    }


def _config(path: str) -> None:
    load(Path(path))


def _safetensors(header: dict) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def _zip_of(*parts: str | bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, data in zip(parts[::2], parts[1::2], strict=True):
            file.writestr(str(name), data)
    return buffer.getvalue()


def measure_all(folder: Path) -> dict[str, Taken]:
    """Make each file, read it, and say what that took."""
    found = {}
    for number, (name, (file, make, read)) in enumerate(files(folder).items()):
        path = folder / str(number) / file
        path.parent.mkdir()
        path.write_bytes(make())
        if read is _card:
            path.with_suffix(".pt").write_bytes(b"")
        found[name] = measure(read, path)
        path.unlink()
    return found
