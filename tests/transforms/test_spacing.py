# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The size of a pixel: read from files that other programs wrote, believed or not, given in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Compose, LoadImaged
from PIL import Image
from pydicom import Dataset

from glas_wsol.errors import ConfigError
from glas_wsol.transforms import PixelSized
from glas_wsol.transforms.reading import read_image
from glas_wsol.transforms.reading.spacing import mpp_of, pixel_size
from tests.dicoms import dicom, rgb, save

PIXELS = np.random.default_rng(0).integers(0, 255, (6, 10, 3), dtype=np.uint8)


def by_pillow(path: Path, mpp: float | tuple[float, float], **more: Any) -> Path:
    across, down = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    Image.fromarray(PIXELS).save(path, dpi=(25400 / across, 25400 / down), **more)
    return path


def tiff(path: Path, **more: Any) -> Path:
    tifffile.imwrite(path, PIXELS, **({"photometric": "rgb"} | more))
    return path


def ome(path: Path, size: float, unit: str | None) -> Path:
    units = {} if unit is None else {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    return tiff(path, metadata={"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size, **units})


def imagej(path: Path, per_unit: float, unit: str) -> Path:
    tifffile.imwrite(path, PIXELS, imagej=True, resolution=(per_unit, per_unit), metadata={"unit": unit})
    return path


def with_measures(where: str) -> Dataset:
    made, group, measures = dicom(rgb(6, 10)), Dataset(), Dataset()
    measures.PixelSpacing = ["0.00031", "0.00031"]
    group.PixelMeasuresSequence = [measures]
    setattr(made, where, [group])
    return made


APERIO = "Aperio Image Library v12\r\n10x6 [0,0 10x6]|AppMag = 40|MPP = 0.31|Left = 3.2"
WRITTEN = {
    "png": lambda f: by_pillow(f / "a.png", 0.31),
    "bmp": lambda f: by_pillow(f / "a.bmp", 0.31),
    "jpeg, dots per inch": lambda f: by_pillow(f / "a.jpg", 0.62),
    "tiff, inches": lambda f: by_pillow(f / "a.tif", 0.31),
    "tiff, centimetres": lambda f: tiff(f / "a.tif", resolution=(1e4 / 0.31,) * 2, resolutionunit="CENTIMETER"),
    "tiff of ome, micrometres": lambda f: ome(f / "a.ome.tif", 0.31, "µm"),
    "tiff of ome, nanometres": lambda f: ome(f / "a.ome.tif", 310, "nm"),
    "tiff of ome, default unit": lambda f: ome(f / "a.ome.tif", 0.31, None),
    "tiff of aperio": lambda f: tiff(f / "a.tif", description=APERIO, metadata=None),
    "tiff of imagej": lambda f: imagej(f / "a.tif", 1 / 0.31, "micron"),
    "tiff of imagej, micro sign": lambda f: imagej(f / "a.tif", 1 / 0.31, "\\u00B5m"),
    "tiff of imagej, millimetres": lambda f: imagej(f / "a.tif", 1000 / 0.31, "mm"),
    "dicom": lambda f: save(f / "a.dcm", dicom(rgb(6, 10), PixelSpacing=["0.00031", "0.00031"])),
    "dicom, imager": lambda f: save(f / "a.dcm", dicom(rgb(6, 10), ImagerPixelSpacing=["0.00031", "0.00031"])),
    "dicom, scanned": lambda f: save(f / "a.dcm", dicom(rgb(6, 10), NominalScannedPixelSpacing=["0.00031"] * 2)),
    "dicom, shared": lambda f: save(f / "a.dcm", with_measures("SharedFunctionalGroupsSequence")),
    "dicom, per frame": lambda f: save(f / "a.dcm", with_measures("PerFrameFunctionalGroupsSequence")),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_pixel_size_is_read_from_every_format(kind, tmp_path):
    found = pixel_size(WRITTEN[kind](tmp_path))
    expected = 0.62 if kind.startswith("jpeg") else 0.31  # JFIF counts to 65535 an inch, 0.39 um
    assert found.mpp == pytest.approx((expected, expected), rel=1e-4)
    assert found.doubt == ""


def test_pixel_size_of_jpeg_per_centimetre_is_read(tmp_path):
    path = by_pillow(tmp_path / "a.jpg", 0.62)
    data = bytearray(path.read_bytes())
    assert data[6:11] == b"JFIF\0"
    data[13:18] = b"\x02" + (40000).to_bytes(2, "big") * 2
    path.write_bytes(data)
    assert pixel_size(path).mpp == pytest.approx((0.25, 0.25))


@pytest.mark.parametrize("dots", [72, 96, 150, 300, 600, 1200, 2400])
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_screen_and_printer_resolutions_are_not_believed(dots, suffix, tmp_path):
    found = pixel_size(by_pillow(tmp_path / f"a.{suffix}", 25400 / dots))
    assert found == (None, "a resolution of screens and printers")


@pytest.mark.parametrize(
    ("size", "doubt"),
    [
        (0.049, "smaller than 0.05 um"),
        (20.5, "larger than 20 um"),
        ((0.5, 0.506), "pixels that are not square"),
        ((0.25, 0.5), "pixels that are not square"),
        (0.051, ""),
        (19.5, ""),
        ((0.5, 0.504), ""),
    ],
)
def test_absurd_sizes_are_not_believed(size, doubt, tmp_path):
    found = pixel_size(by_pillow(tmp_path / "a.png", size))
    assert found.doubt == doubt
    assert (found.mpp is None) == bool(doubt)


def test_file_that_says_nothing_has_no_size_and_no_doubt(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg")
    paths = [tmp_path / "a.png", tmp_path / "a.jpg", tiff(tmp_path / "a.tif"), imagej(tmp_path / "b.tif", 2, "pixel")]
    (tmp_path / "damaged.tif").write_bytes(b"II*\0\x08\0\0\0\xff\xff")
    for path in (*paths, tmp_path / "damaged.tif", tmp_path / "none.png"):
        assert pixel_size(path) == (None, ""), path


def test_description_counts_where_the_tags_are_not_believed(tmp_path):
    path = tiff(tmp_path / "a.tif", description=APERIO, metadata=None, resolution=(72, 72), resolutionunit="INCH")
    assert pixel_size(path).mpp == (0.31, 0.31)
    no_length = ome(tmp_path / "b.ome.tif", 3.0, "pixel")
    assert pixel_size(no_length) == (None, "")


def test_sides_change_places_with_the_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read_image(by_pillow(tmp_path / "a.jpg", (0.6, 0.604), exif=exif))
    assert picture.pixels.shape == (10, 6, 3)
    assert picture.mpp == pytest.approx((0.604, 0.6), abs=1e-3)
    assert picture.mpp[0] > picture.mpp[1]


def read(path: Path, mpp: Any = None, **item: Any) -> MetaTensor:
    load = LoadImaged("image", reader="glas_wsol.transforms.TileReader", ensure_channel_first=True)
    found = Compose([load, PixelSized("image", mpp)])({"image": str(path), **item})
    assert "mpp" not in found
    return found["image"]


def test_given_counts_before_table_before_file(tmp_path):
    path = by_pillow(tmp_path / "a.png", 0.31)
    assert mpp_of(read(path)) == pytest.approx((0.31, 0.31))
    assert mpp_of(read(path, mpp=None)) == pytest.approx((0.31, 0.31))
    assert mpp_of(PixelSized("image")({"image": read(path), "mpp": 0.5})["image"]) == (0.5, 0.5)
    both = PixelSized("image", [0.25, 0.5])({"image": read(path), "mpp": 1.0})
    assert mpp_of(both["image"]) == (0.25, 0.5)
    with pytest.raises(ConfigError, match="mpp=72"):
        PixelSized("image", 72)


def test_batch_has_one_size_or_is_refused(tmp_path):
    one, other, unknown = (read(by_pillow(tmp_path / f"{size}.png", size)) for size in (0.31, 0.62, 352.8))
    batch = list_data_collate([{"image": one}, {"image": one}])["image"]
    assert mpp_of(batch) == pytest.approx((0.31, 0.31))
    assert mpp_of(list_data_collate([{"image": unknown}] * 2)["image"]) is None
    for second in (other, unknown):
        with pytest.raises(ConfigError, match="images of different pixel sizes in one batch"):
            mpp_of(list_data_collate([{"image": one}, {"image": second}])["image"])
