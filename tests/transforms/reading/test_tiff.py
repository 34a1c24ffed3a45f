# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""TIFF of every layout is read right or refused by its name; judged by what was written, by libtiff and by Pillow."""

from __future__ import annotations

import itertools
import re
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from glas_wsol.errors import ImageFileError
from glas_wsol.transforms import read_mask, read_rgb
from tests.transforms.reading.tiffs import (
    CHANNELS,
    COMPRESSIONS,
    PHOTOMETRICS,
    TYPES,
    Layout,
    colour_map,
    samples,
    shown,
    write,
)

RGB = samples(Layout("rgb", "u8"))
GREY = np.ascontiguousarray(RGB[..., 0])
LABELS = (GREY > 120).astype(np.uint8) * 3
REFUSED = r"TIFF with .*, which is not read|signed integers have no agreed white"


def written(path, layout, values) -> bool:
    try:
        write(path, layout, values)
    except (NotImplementedError, ValueError, KeyError, MemoryError, RuntimeError):
        return False  # tifffile does not write it
    return True


def seen(path) -> np.ndarray | None:
    """The image, or None where it is refused by the name of what is not read."""
    try:
        return read_rgb(path)
    except ImageFileError as error:
        if re.search(REFUSED, str(error)):
            return None
        raise


@pytest.mark.parametrize("photometric", PHOTOMETRICS)
def test_every_layout_is_right_or_refused_by_name(tmp_path, photometric):
    flags = itertools.cycle(itertools.product((False, True), repeat=4))
    path, right = tmp_path / "a.tif", set()
    for kind, compression in itertools.product(TYPES, COMPRESSIONS):
        planar, *others = next(flags)
        layout = Layout(photometric, kind, compression, planar and photometric in CHANNELS, *others)
        values = samples(layout)
        if not written(path, layout, values):
            continue
        if (read := seen(path)) is None:
            continue
        wrong = np.abs(read - shown(layout, values))
        if compression == "jpeg":  # lossy, and at the right and lower edges mixed with the padding of its tile
            assert wrong[:32, :48].max() < 10, layout
        else:
            assert wrong.max() < 2.5, layout
            right.add(kind)
    assert "u8" in right
    assert not {"i8", "i16", "i32", "u32"} & right, "of which nobody knows the white"
    whole = {"u1", "u2", "u4", "u12", "u16", "f16", "f32", "f64"}
    if photometric in ("minisblack", "miniswhite"):
        assert right == whole | {"u8"}


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "palette", "rgb"])
def test_masks_of_every_layout_are_the_stored_values(tmp_path, photometric):
    path, read = tmp_path / "m.tif", 0
    for flags, kind in enumerate(TYPES * 2):
        layout = Layout(
            photometric, kind, "deflate" if flags % 3 else "none", *(bool(flags & bit) for bit in (1, 2, 4))
        )
        labels = LABELS if kind not in ("u1", "u2") else LABELS // 3
        dtype = samples(layout).dtype
        values = np.repeat(labels[..., None], CHANNELS.get(photometric, 1), axis=2).astype(dtype)
        if written(path, layout, values):
            np.testing.assert_array_equal(read_mask(path), labels, str(layout))
            read += 1
    assert read >= (4 if photometric == "palette" else 16)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.float32])
def test_a_mask_as_tifffile_writes_it_is_not_inverted(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "m.tif", LABELS.astype(dtype), photometric=None if dtype is bool else "miniswhite")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif"), LABELS.astype(dtype).astype(int))


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("kind", ["u8", "u16", "f32"])
def test_libtiff_reads_the_same_planes(tmp_path, kind, big_endian):
    layout = Layout("rgb", kind, "lzw", planar=True, tiled=True, big_endian=big_endian)
    path = write(tmp_path / "a.tif", layout, samples(layout))
    stored = np.moveaxis(imagecodecs.tiff_decode(path.read_bytes()), 0, -1)
    assert np.abs(read_rgb(path) - stored / (1 if kind == "f32" else 2 ** int(kind[1:]) - 1) * 255).max() <= 0.51


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCbCr", "RGBA", "LA"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", "zstd"])
def test_what_pillow_writes_is_read_as_pillow_reads_it(tmp_path, mode, compression):
    image = Image.fromarray(np.dstack([RGB, 255 - GREY])).convert(mode)
    try:
        image.save(tmp_path / "a.tif", compression=compression)
    except (OSError, RuntimeError, SystemError):
        pytest.skip("Pillow does not write it")
    image = Image.open(tmp_path / "a.tif").convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    read = seen(tmp_path / "a.tif")
    if read is None:
        assert (compression, "A" in mode) == ("jpeg", True)
    else:
        np.testing.assert_allclose(read.astype(int), np.asarray(expected).astype(int), atol=2)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_compression_is_read(tmp_path, compression):
    Image.fromarray(LABELS > 0).save(tmp_path / "m.tif", compression=compression)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif"), LABELS > 0)
    np.testing.assert_array_equal(read_rgb(tmp_path / "m.tif")[..., 1], (LABELS > 0) * 255)


@pytest.mark.parametrize("compression", [33005, 34712])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_jpeg_2000_is_read(tmp_path, compression, planar):
    stored = RGB if planar == "contig" else np.moveaxis(RGB, -1, 0)
    options = {"planarconfig": planar, "tile": (16, 32), "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    assert np.abs(read_rgb(tmp_path / "a.tif").astype(int) - RGB).max() <= 2


def test_a_colour_map_of_8_bit_entries_is_read_as_one_of_16(tmp_path):
    for name, entries in (("a", colour_map(8)), ("b", colour_map(8) >> 8)):
        tifffile.imwrite(tmp_path / name, GREY, photometric="palette", colormap=entries)
    assert read_rgb(tmp_path / "a")[5, 30].tolist() == (colour_map(8) >> 8)[:, GREY[5, 30]].tolist()
    np.testing.assert_array_equal(read_rgb(tmp_path / "a"), read_rgb(tmp_path / "b"))


def test_premultiplied_colours_are_not_multiplied_again(tmp_path):
    alpha = 255 - GREY
    multiplied = np.rint(RGB / 255 * alpha[..., None]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([multiplied, alpha]), photometric="rgb", extrasamples=["assocalpha"])
    expected = RGB * (alpha[..., None] / 255) + (255 - alpha[..., None])
    assert np.abs(read_rgb(tmp_path / "a.tif") - expected).max() <= 1
    with pytest.raises(ImageFileError, match="multiplied by transparency"):
        read_mask(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("values", "options", "named"),
    [
        (RGB, {"photometric": "minisblack", "planarconfig": "contig"}, "3 channels that are no RGB"),
        (RGB, {"photometric": "rgb", "compression": 33003}, r"RGB in compression APERIO_JP2000_YCBC \(33003\)"),
        (RGB, {"photometric": "rgb", "compression": "jpegxr"}, "compression JPEGXR"),
        (RGB, {"photometric": "rgb", "compression": "png"}, "compression PNG"),
        (RGB, {"photometric": "cielab"}, "photometric interpretation CIELAB"),
        (GREY, {"photometric": "cfa"}, "photometric interpretation CFA"),
        (GREY.astype(np.complex64), {"photometric": "minisblack"}, "64 bits in sample format COMPLEXIEEEFP"),
        (
            np.dstack([GREY, GREY]),
            {"photometric": "miniswhite", "extrasamples": ["assocalpha"]},
            "white is zero multip",
        ),
        (np.stack([GREY] * 5), {"imagej": True, "metadata": {"axes": "ZYX"}}, "5 pages"),
        (np.stack([GREY] * 5), {"imagej": True, "metadata": {"axes": "CYX"}}, "5 channels that are no RGB"),
        (np.stack([GREY] * 5), {"ome": True, "metadata": {"axes": "CYX"}}, "5 channels that are no RGB"),
        (np.dstack([GREY] * 5), {"photometric": "minisblack", "planarconfig": "contig"}, "5 channels that are no RGB"),
        (np.stack([GREY] * 5), {"photometric": "minisblack", "metadata": {"axes": "ZYX"}, "truncate": True}, "5 pages"),
        (
            np.stack([GREY] * 4)[None],
            {"photometric": "minisblack", "volumetric": True, "tile": (16, 16, 16)},
            "4 pages",
        ),
    ],
)
def test_what_is_not_read_is_refused_by_its_name(tmp_path, values, options, named):
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    for read in (read_rgb, read_mask):
        with pytest.raises(ImageFileError, match=rf"{named}.*a\.tif") as caught:
            read(tmp_path / "a.tif")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (-LABELS.astype(np.int8), "negative labels"),
        (LABELS / np.float32(2), "fractional"),
        (np.where(LABELS > 0, np.nan, np.float32(1)), "NaN"),
        (LABELS.astype(np.uint32) << 30, "too large"),
        (LABELS.astype(np.float64) * 2**30, "too large"),
    ],
)
def test_what_is_no_label_is_refused_by_its_name(tmp_path, values, named):
    tifffile.imwrite(tmp_path / "m.tif", values, photometric="minisblack")
    with pytest.raises(ImageFileError, match=named):
        read_mask(tmp_path / "m.tif")


def test_the_picture_of_a_pyramid_in_sub_files_is_the_whole_one(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RGB, subifds=1, photometric="rgb", metadata=None)
        file.write(RGB[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), RGB)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000"])
def test_tiff_declared_huge_tile_is_refused_before_decoding(tmp_path, compression):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", compression=compression, tile=(48, 64))
    data = bytearray((tmp_path / "a.tif").read_bytes())
    if compression == "jpeg":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, 60_000, 60_000)
    else:
        struct.pack_into(">II", data, data.index(b"\xff\x51") + 6, 60_000, 60_000)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ImageFileError, match="a strip or tile of 60000 x 60000 pixels where 64 x 48 are expected"):
        read_rgb(tmp_path / "a.tif")


def test_a_file_that_lacks_a_strip_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, rowsperstrip=8, compression="deflate", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        counts = file.pages[0].tags["StripByteCounts"]
        counts.overwrite((*counts.value[:-1], 0))
    with pytest.raises(ImageFileError, match="lacks strips or tiles"):
        read_rgb(tmp_path / "a.tif")
