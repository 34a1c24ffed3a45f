# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged
from PIL import Image, ImageOps

from glas_wsol.errors import ConfigError, ImageFileError
from glas_wsol.transforms import TileReader, read_mask, read_rgb

H, W = 23, 38


def rgb_array():
    """Smooth (so that JPEG keeps it) and different along both axes and in every channel."""
    rows, columns = np.mgrid[:H, :W]
    return np.stack([rows * 8, columns * 6, 255 - rows * 3 - columns * 2], axis=-1).astype(np.uint8)


def grey_array():
    rows, columns = np.mgrid[:H, :W]
    return (rows * 6 + columns * 3).astype(np.uint8)


def label_array():
    labels = np.zeros((H, W), np.uint8)
    labels[2:6, 3:30], labels[10:20, 1:5], labels[21, 37] = 1, 2, 3
    return labels


def palette_image():
    image = Image.fromarray(label_array())  # mode L
    image.putpalette([255, 255, 255, 200, 30, 90, 200, 30, 91, 0, 0, 255])  # turns it into P, indices kept
    return image


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write(path, data):
    path.write_bytes(data)
    return path


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, colour, rows, *chunks):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body + png_chunk(b"IEND", b"")


# ------------------------------------------------------------------ through MONAI's loader


@pytest.mark.parametrize("channel_first", [True, False])
@pytest.mark.parametrize(("name", "exact"), [("a.png", True), ("a.bmp", True), ("a.tif", True), ("a.jpg", False)])
def test_load_imaged_gives_channel_first_bytes_never_transposed(tmp_path, name, exact, channel_first):
    array = rgb_array()
    Image.fromarray(array).save(tmp_path / name, **({} if exact else {"quality": 95, "subsampling": 0}))
    Image.fromarray(label_array()).save(tmp_path / "mask.png")
    load = Compose(
        [
            LoadImaged(
                "image",
                reader="glas_wsol.transforms.TileReader",
                mode="rgb",
                ensure_channel_first=channel_first,
                dtype=np.uint8,
            ),
            LoadImaged(
                "mask",
                reader="glas_wsol.transforms.TileReader",
                mode="mask",
                ensure_channel_first=channel_first,
                dtype=np.int32,
            ),
        ]
    )
    item = load({"image": tmp_path / name, "mask": tmp_path / "mask.png", "label": 1})
    image, mask = item["image"], item["mask"]
    assert isinstance(image, MetaTensor)
    assert image.dtype == torch.uint8
    assert mask.dtype == torch.int32
    assert image.shape == (3, H, W)
    assert image.is_contiguous()
    np.testing.assert_allclose(image.numpy().astype(int), array.transpose(2, 0, 1), atol=0 if exact else 6)
    np.testing.assert_array_equal(mask.numpy(), label_array()[None])
    assert image.meta["filename_or_obj"] == str(tmp_path / name)
    assert tuple(image.meta["spatial_shape"]) == (H, W)
    np.testing.assert_array_equal(image.affine, np.eye(4))


def test_load_imaged_unreadable_file_has_no_fallback_reader(tmp_path):
    Image.fromarray(grey_array()).save(tmp_path / "a.png")
    two = [Image.fromarray(rgb_array())] * 2
    two[0].save(tmp_path / "a.gif", save_all=True, append_images=two[1:])  # PILReader would take its first frame
    load = LoadImaged("image", reader="glas_wsol.transforms.TileReader", mode="rgb")
    with pytest.raises(ImageFileError, match=r"a\.gif"):
        load({"image": tmp_path / "a.gif"})
    with pytest.raises(ImageFileError, match="2 files"):
        load({"image": [tmp_path / "a.png", tmp_path / "a.png"]})


def test_options_are_checked():
    with pytest.raises(ConfigError, match="'gray'"):
        LoadImaged("image", reader="glas_wsol.transforms.TileReader", mode="gray")
    with pytest.raises(ConfigError, match="max_pixel "):
        LoadImaged("image", reader="glas_wsol.transforms.TileReader", mode="rgb", max_pixel=5)
    with pytest.raises(ConfigError, match="max_pixels"):
        TileReader(max_pixels=0)
    assert TileReader().verify_suffix("x.TIF")
    assert not TileReader().verify_suffix("x.svs")


# ------------------------------------------------------------------ every kind of image becomes what a viewer shows


def test_grey_palette_and_bits_become_rgb(tmp_path):
    grey = grey_array()
    for image in (Image.fromarray(grey), Image.fromarray(grey > 60), palette_image()):
        path = write(tmp_path / "a.png", encoded(image, "PNG"))
        expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(read_rgb(path), expected)
    assert read_rgb(path)[4, 4].tolist() == [200, 30, 90]  # the palette's colour, not index 1


def test_transparency_is_laid_on_white(tmp_path):
    rgba = np.dstack([rgb_array(), grey_array()])
    read = read_rgb(write(tmp_path / "a.png", encoded(Image.fromarray(rgba), "PNG")))
    alpha = rgba[..., 3:].astype(float) / 255
    np.testing.assert_allclose(read, rgba[..., :3] * alpha + 255 * (1 - alpha), atol=1)

    la = np.dstack([grey_array(), 255 - grey_array()])
    read = read_rgb(write(tmp_path / "a.png", encoded(Image.fromarray(la), "PNG")))
    alpha = la[..., 1].astype(float) / 255
    np.testing.assert_allclose(read[..., 0], la[..., 0] * alpha + 255 * (1 - alpha), atol=1)

    read = read_rgb(write(tmp_path / "a.png", encoded(palette_image(), "PNG", transparency=1)))
    assert read[4, 4].tolist() == [255, 255, 255]
    assert read[12, 2].tolist() == [200, 30, 91]

    read = read_rgb(write(tmp_path / "a.png", encoded(Image.fromarray(grey_array()), "PNG", transparency=9)))
    assert read[0, 3].tolist() == [255, 255, 255]
    assert read[0, 4].tolist() == [12, 12, 12]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_cmyk_and_ycbcr_become_rgb(tmp_path, kind, mode):
    image = Image.fromarray(rgb_array()).convert(mode)
    path = write(tmp_path / "a", encoded(image, kind, **({"quality": 98, "subsampling": 0} if kind == "JPEG" else {})))
    np.testing.assert_allclose(read_rgb(path).astype(int), np.asarray(image.convert("RGB")).astype(int), atol=8)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})])
def test_16_bit_grey_is_scaled_by_its_whole_range(tmp_path, kind, options):
    stored = (np.arange(H * W, dtype=np.uint32) * 65535 // (H * W - 1)).astype(np.uint16).reshape(H, W)
    path = write(tmp_path / "a", encoded(Image.fromarray(stored), kind, **options))
    read = read_rgb(path)
    np.testing.assert_array_equal(read, np.repeat(np.rint(stored / 257).astype(np.uint8)[..., None], 3, axis=2))
    assert (read.min(), read.max()) == (0, 255)
    np.testing.assert_array_equal(read_mask(path), stored)  # and labels above 255 survive


def test_transparent_16_bit_grey_is_white(tmp_path):
    stored = np.array([[0, 700, 40_000], [700, 701, 65_535]], ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in stored)
    path = write(tmp_path / "a.png", png(3, 2, 16, 0, rows, png_chunk(b"tRNS", struct.pack(">H", 700))))
    assert read_rgb(path)[..., 1].tolist() == [[0, 255, 156], [255, 3, 255]]
    assert read_mask(path).tolist() == stored.tolist()


def test_float_images_need_a_known_range(tmp_path):
    def tiff(values):
        return write(tmp_path / "a.tif", encoded(Image.fromarray(values.astype(np.float32)), "TIFF"))

    unit = grey_array() / 255
    np.testing.assert_array_equal(read_rgb(tiff(unit))[..., 2], grey_array())
    for bad, message in ((unit * 255, "scale them to 0..1"), (np.where(unit > 0.5, np.nan, unit), "NaN")):
        with pytest.raises(ImageFileError, match=message):
            read_rgb(tiff(bad))
    with pytest.raises(ImageFileError, match="infinite"):
        read_rgb(tiff(np.where(unit > 0.5, np.inf, unit)))


def test_32_bit_integers_have_no_brightness_but_are_labels(tmp_path):
    labels = label_array().astype(np.int32) * 70_000
    path = write(tmp_path / "a.tif", encoded(Image.fromarray(labels), "TIFF"))
    np.testing.assert_array_equal(read_mask(path), labels)
    with pytest.raises(ImageFileError, match="8 bits"):
        read_rgb(path)
    write(path, encoded(Image.fromarray(labels - 1), "TIFF"))
    with pytest.raises(ImageFileError, match="negative"):
        read_mask(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied_to_image_and_mask(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} | ({"quality": 98, "subsampling": 0} if kind == "JPEG" else {})
    image, mask = Image.fromarray(rgb_array()), palette_image()
    path = write(tmp_path / "a", encoded(image, kind, **options))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    assert expected.shape == ((W, H, 3) if orientation > 4 else (H, W, 3))
    np.testing.assert_array_equal(read_rgb(path), expected)
    if kind != "JPEG":
        path = write(tmp_path / "m", encoded(mask, kind, exif=exif))
        turned = Image.fromarray(label_array())  # in memory: Pillow scrambles a palette TIFF that it turns
        turned.getexif()[0x0112] = orientation
        np.testing.assert_array_equal(read_mask(path), np.asarray(ImageOps.exif_transpose(turned)))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (31, 31), (481, 479)])
def test_odd_sizes(tmp_path, size):
    array = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_rgb(write(tmp_path / "a.png", encoded(Image.fromarray(array), "PNG"))), array)


def test_progressive_icc_and_16_bit_colour_files_are_read(tmp_path):
    image = Image.fromarray(rgb_array())
    for options in ({"progressive": True}, {"icc_profile": b"not a profile"}):
        path = write(tmp_path / "a.jpg", encoded(image, "JPEG", quality=95, subsampling=0, **options))
        np.testing.assert_allclose(read_rgb(path).astype(int), rgb_array(), atol=6)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgb_array().astype(np.uint16) * 257)
    path = write(tmp_path / "a.png", png(W, H, 16, 2, rows))
    np.testing.assert_array_equal(read_rgb(path), rgb_array())
    with pytest.raises(ImageFileError, match="coloured"):
        read_mask(path)
    deep = np.dstack([label_array().astype(">u2") * np.uint16(300)] * 3).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    np.testing.assert_array_equal(read_mask(write(path, png(W, H, 16, 2, rows))), deep[..., 0])


def test_content_decides_not_the_extension(tmp_path):
    for kind, name in (("PNG", "a.jpg"), ("TIFF", "a.png"), ("BMP", "a"), ("PNG", "a.svs")):
        path = write(tmp_path / name, encoded(Image.fromarray(rgb_array()), kind))
        np.testing.assert_array_equal(read_rgb(path), rgb_array())


# ------------------------------------------------------------------ masks


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_palette_masks_give_their_indices(tmp_path, kind):
    mask = read_mask(write(tmp_path / "m", encoded(palette_image(), kind)))
    assert mask.dtype == np.int32
    np.testing.assert_array_equal(mask, label_array())


def test_grey_alpha_bit_and_equal_rgb_masks_give_their_values(tmp_path):
    labels = label_array()
    opaque = np.full_like(labels, 40)
    for image in (
        Image.fromarray(labels),
        Image.fromarray(np.dstack([labels, opaque])),
        Image.fromarray(np.dstack([labels] * 3)),
        Image.fromarray(np.dstack([labels] * 3 + [opaque])),
    ):
        np.testing.assert_array_equal(read_mask(write(tmp_path / "m.png", encoded(image, "PNG"))), labels)
    bits = read_mask(write(tmp_path / "m.png", encoded(Image.fromarray(labels > 0), "PNG")))
    np.testing.assert_array_equal(bits, labels > 0)
    floats = encoded(Image.fromarray(labels.astype(np.float32)), "TIFF")
    np.testing.assert_array_equal(read_mask(write(tmp_path / "m.tif", floats)), labels)


@pytest.mark.parametrize("depth", [2, 4])
def test_low_bit_grey_masks_are_not_stretched(tmp_path, depth):
    labels = label_array()[:, :16]
    per_byte = 8 // depth
    packed = sum(labels[:, i::per_byte].astype(np.uint8) << np.uint8(8 - depth * (i + 1)) for i in range(per_byte))
    rows = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in packed)
    np.testing.assert_array_equal(read_mask(write(tmp_path / "m.png", png(16, H, depth, 0, rows))), labels)


def test_coloured_and_fractional_masks_are_refused(tmp_path):
    with pytest.raises(ImageFileError, match=r"m\.png.*grey or palette"):
        read_mask(write(tmp_path / "m.png", encoded(Image.fromarray(rgb_array()), "PNG")))
    with pytest.raises(ImageFileError, match="fractional"):
        read_mask(write(tmp_path / "m.tif", encoded(Image.fromarray(label_array() / np.float32(2)), "TIFF")))
    with pytest.raises(ImageFileError, match="CMYK"):
        read_mask(write(tmp_path / "m.jpg", encoded(Image.fromarray(rgb_array()).convert("CMYK"), "JPEG")))


# ------------------------------------------------------------------ what is no image


@pytest.mark.parametrize("read", [read_rgb, read_mask])
@pytest.mark.parametrize(
    "data",
    [
        b"hello, world\n",
        b"%PDF-1.7\n%...",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        encoded(Image.fromarray(label_array()), "GIF"),
        encoded(Image.fromarray(rgb_array()), "WEBP"),
    ],
    ids=["text", "pdf", "eps", "svg", "gif", "webp"],
)
def test_other_formats_are_refused(tmp_path, read, data):
    with pytest.raises(ImageFileError, match="not a PNG, JPEG, TIFF, BMP or DICOM"):
        read(write(tmp_path / "a.png", data))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "LZW"])
def test_truncated_files_are_refused(tmp_path, kind, fraction):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (97, 61, 3), dtype=np.uint8))
    data = encoded(image, "TIFF", compression="tiff_lzw") if kind == "LZW" else encoded(image, kind)
    with pytest.raises(ImageFileError, match=r"a\.png"):
        read_rgb(write(tmp_path / "a.png", data[: int(len(data) * fraction)]))


@pytest.mark.parametrize("cut", [1, 4, 11, 12, 13, 20, 40])
def test_a_png_without_its_last_bytes_is_refused(tmp_path, cut):
    data = encoded(Image.fromarray(rgb_array()), "PNG")
    with pytest.raises(ImageFileError):
        read_rgb(write(tmp_path / "a.png", data[:-cut]))
    np.testing.assert_array_equal(read_rgb(write(tmp_path / "a.png", data + b"trailer")), rgb_array())


def test_empty_missing_folder_and_dangling_files_are_named(tmp_path):
    with pytest.raises(ImageFileError, match="empty"):
        read_rgb(write(tmp_path / "a.png", b""))
    with pytest.raises(ImageFileError, match="no such file"):
        read_rgb(tmp_path / "b.png")
    (tmp_path / "c.png").mkdir()
    with pytest.raises(ImageFileError, match="not a file"):
        read_rgb(tmp_path / "c.png")
    (tmp_path / "d.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "e.png").symlink_to(tmp_path / "e.png")
    for name in "de":
        with pytest.raises(ImageFileError, match=rf"{name}\.png"):
            read_rgb(tmp_path / f"{name}.png")
    with pytest.raises(ImageFileError):
        read_rgb("a\0b.png")
    with pytest.raises(ImageFileError):
        read_rgb(tmp_path / ("x" * 300))


@pytest.mark.parametrize("name", ["a b.png", "é中🔬.png", "-x.png", "new\nline.png", "trailing..png"])
def test_odd_names_are_read(tmp_path, name):
    Path(os.fspath(tmp_path / name)).write_bytes(encoded(Image.fromarray(rgb_array()), "PNG"))
    np.testing.assert_array_equal(read_rgb(str(tmp_path / name)), rgb_array())


def test_reader_multi_page_and_animated_files_are_refused(tmp_path):
    pages = [Image.fromarray(rgb_array())] * 3
    path = write(tmp_path / "a.tif", encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    with pytest.raises(ImageFileError, match=r"3 pages.*export one"):
        read_rgb(path)
    second = Image.fromarray(255 - rgb_array())
    path = write(tmp_path / "a.png", encoded(pages[0], "PNG", save_all=True, append_images=[second]))
    with pytest.raises(ImageFileError, match=r"2 frames.*export one"):
        read_rgb(path)


def test_pixel_budget_is_checked_on_the_header_and_can_be_raised(tmp_path):
    huge = write(tmp_path / "a.png", png(100_000, 100_000, 8, 2, b""))
    with pytest.raises(ImageFileError, match=r"100000 x 100000 pixels.*budget.*max_pixels=10000000000"):
        read_rgb(huge)
    small = write(tmp_path / "b.png", encoded(Image.fromarray(rgb_array()), "PNG"))
    with pytest.raises(ImageFileError, match="budget"):
        read_rgb(small, max_pixels=H * W - 1)
    assert read_rgb(small, max_pixels=H * W).shape == (H, W, 3)
    with pytest.raises(ImageFileError, match="budget"):
        LoadImaged("a", reader="glas_wsol.transforms.TileReader", mode="mask", max_pixels=9)({"a": small})


def test_an_explicit_budget_overrules_pillows_own(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow alone would raise above 200
    path = write(tmp_path / "a.png", encoded(Image.fromarray(rgb_array()), "PNG"))
    np.testing.assert_array_equal(read_rgb(path), rgb_array())


def test_random_damage_never_escapes_as_another_error(tmp_path):
    random = np.random.default_rng(0)
    image = Image.fromarray(rgb_array())
    sources = [encoded(image, kind) for kind in ("PNG", "JPEG", "BMP", "TIFF")]
    sources.append(encoded(image, "TIFF", compression="tiff_lzw"))
    read = 0
    for seed in range(200):
        data = bytearray(sources[seed % len(sources)])
        for place in random.integers(4, len(data), 6):
            data[place] = random.integers(0, 256)
        try:
            assert read_rgb(write(tmp_path / "a", bytes(data)), max_pixels=10**6).ndim == 3
            read += 1
        except ImageFileError:
            pass
    assert 0 < read < 200  # both happened, so the damage was neither harmless nor total


def test_mask_of_blurred_or_transparent_labels_is_refused(tmp_path):
    labels = np.zeros((40, 60), np.uint8)
    labels[8:21, 11:50] = 255
    jpeg = write(tmp_path / "m.jpg", encoded(Image.fromarray(labels), "JPEG", quality=80))
    with pytest.raises(ImageFileError, match="JPEG compression has blurred the labels"):
        read_mask(jpeg)
    tifffile.imwrite(tmp_path / "m.tif", np.repeat(labels[..., None], 3, 2), photometric="rgb", compression="jpeg")
    with pytest.raises(ImageFileError):
        read_mask(tmp_path / "m.tif")
    hidden = np.dstack([np.zeros_like(labels)] * 3 + [labels])
    with pytest.raises(ImageFileError, match="only the transparency differs"):
        read_mask(write(tmp_path / "a.png", encoded(Image.fromarray(hidden), "PNG")))
    flat = np.dstack([np.full_like(labels, 3)] * 3 + [np.full_like(labels, 255)])
    assert (read_mask(write(tmp_path / "b.png", encoded(Image.fromarray(flat), "PNG"))) == 3).all()
