# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""PNG, JPEG and BMP files in which Pillow's own modes lose what the file says."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from glas_wsol.errors import ImageFileError
from glas_wsol.transforms import read_mask, read_rgb
from tests.transforms.test_reading import encoded, grey_array, label_array, png, png_chunk, rgb_array, write


def rows_of(values: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in values)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_transparent_grey_of_few_bits_is_white(tmp_path, depth):
    labels = label_array()[:, :16] % 2**depth
    columns = 8 // depth
    packed = sum(labels[:, n::columns] << np.uint8(8 - depth * (n + 1)) for n in range(columns)).astype(np.uint8)
    transparent = png_chunk(b"tRNS", struct.pack(">H", 1))
    path = write(tmp_path / "a.png", png(16, len(labels), depth, 0, rows_of(packed), transparent))
    expected = np.where(labels == 1, 255, labels * (255 // (2**depth - 1)))
    np.testing.assert_array_equal(read_rgb(path), np.repeat(expected[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_mask(path), labels)


@pytest.mark.parametrize("dtype", ["u1", ">u2"])
def test_a_transparent_colour_is_white(tmp_path, dtype):
    values = (rgb_array().astype(dtype) * np.dtype(dtype).type(1 if dtype == "u1" else 257)).astype(dtype)
    transparent = png_chunk(b"tRNS", struct.pack(">HHH", *values[4, 7].tolist()))
    height, width = values.shape[:2]
    path = write(tmp_path / "a.png", png(width, height, 8 * values.itemsize, 2, rows_of(values), transparent))
    expected = rgb_array()
    expected[(expected == expected[4, 7]).all(-1)] = 255
    np.testing.assert_array_equal(read_rgb(path), expected)


def test_raster_16_bit_colours_and_alpha_are_scaled_by_range(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (23, 38, 4), dtype=np.uint16)
    path = write(tmp_path / "a.png", png(38, 23, 16, 2, rows_of(values[..., :3].astype(">u2"))))
    np.testing.assert_array_equal(read_rgb(path), np.rint(values[..., :3] / 257))
    alpha = values[..., 3:] / 65535
    path = write(tmp_path / "a.png", png(38, 23, 16, 6, rows_of(values.astype(">u2"))))
    assert np.abs(read_rgb(path) - (values[..., :3] / 257 * alpha + 255 * (1 - alpha))).max() < 1.5
    path = write(tmp_path / "a.png", png(38, 23, 16, 4, rows_of(values[..., :2].astype(">u2"))))
    np.testing.assert_array_equal(read_mask(path), values[..., 0])


def test_raster_cmyk_jpeg_of_unknown_inversion_is_refused(tmp_path):
    data = encoded(Image.fromarray(rgb_array()).convert("CMYK"), "JPEG", quality=98)
    assert np.abs(read_rgb(write(tmp_path / "a.jpg", data)).astype(int) - rgb_array()).max() <= 8
    place = data.index(b"\xff\xee")
    without = data[:place] + data[place + 2 + struct.unpack_from(">H", data, place + 2)[0] :]
    with pytest.raises(ImageFileError, match="stored as CMYK without Adobe's mark"):
        read_rgb(write(tmp_path / "a.jpg", without))


@pytest.mark.parametrize("black_first", [True, False])
def test_raster_bilevel_bmp_is_bits_as_mask_and_palette_as_image(tmp_path, black_first):
    bits = grey_array() > 60
    data = bytearray(encoded(Image.fromarray(bits), "BMP"))
    entries = [bytes(4), bytes([255, 255, 255, 0])]
    data[54:62] = b"".join(entries if black_first else entries[::-1])
    path = write(tmp_path / "a.bmp", data)
    np.testing.assert_array_equal(read_mask(path), bits)
    np.testing.assert_array_equal(read_rgb(path)[..., 0], np.where(bits == black_first, 255, 0))
