# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from monai.transforms import LoadImaged
from PIL import Image
from scipy.ndimage import distance_transform_edt

from glas_wsol.errors import OutputError
from glas_wsol.transforms import read_mask, read_rgb
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.writers.drawing import _squared_distance, overlay, text_font, write_png

H, W = 60, 97


def tile(height=H, width=W):
    """Pink to purple, different in every corner."""
    rows, columns = np.mgrid[:height, :width].astype(float)
    rows, columns = rows / height, columns / width
    return np.stack([230 - 90 * rows, 120 - 60 * columns, 190 - 30 * rows + 20 * columns], -1).astype(np.uint8)


def region(height=H, width=W):
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 2, width // 8 : width // 2] = True
    return mask


def find(sheet, rows):
    """Top of the rows of ``sheet`` that hold a picture, given the picture's only width-long rows."""
    (found,) = [top for top in range(len(sheet) - len(rows) + 1) if (sheet[top : top + len(rows)] == rows).all()]
    return found


# ------------------------------------------------------------------ PNG


def test_images_read_back_have_every_pixel_in_place(tmp_path):
    image, mask = tile(), region()
    write_png(tmp_path / "image.png", image)
    write_png(str(tmp_path / "mask.png"), mask)
    np.testing.assert_array_equal(read_rgb(tmp_path / "image.png"), image)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask * 255)
    assert Image.open(tmp_path / "image.png").size == (W, H)
    load = LoadImaged("image", reader="glas_wsol.transforms.TileReader", mode="rgb", dtype=np.uint8)
    np.testing.assert_array_equal(load({"image": tmp_path / "image.png"})["image"].numpy(), image.transpose(2, 0, 1))
    load = LoadImaged("mask", reader="glas_wsol.transforms.TileReader", mode="mask", dtype=np.int32)
    np.testing.assert_array_equal(load({"mask": tmp_path / "mask.png"})["mask"].numpy(), mask[None] * 255)


def test_views_and_labels_are_written_as_they_look(tmp_path):
    turned = tile().transpose(1, 0, 2)[::-1]
    write_png(tmp_path / "a.png", turned)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), turned)
    labels = region().astype(np.uint8) * 3
    write_png(tmp_path / "b.png", labels)
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png"), labels)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 20, 30), np.uint8),  # channel-first
        np.zeros((20, 30), np.float32),
        np.zeros((20, 30, 4), np.uint8),
        np.zeros((20, 30, 3), bool),
        np.zeros((0, 30), np.uint8),
    ],
)
def test_other_arrays_are_refused_and_leave_no_file(tmp_path, array):
    with pytest.raises(ValueError, match="uint8"):
        write_png(tmp_path / "a.png", array)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ atomic writing


def test_text_is_utf8_and_replaces_the_older_file(tmp_path):
    path = tmp_path / "é.csv"
    path.write_text("old")
    with atomic_write(path, "w", newline="\n") as file:
        file.write("Drüse,µm\n")
        assert path.read_text() == "old"
    assert path.read_bytes() == "Drüse,µm\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["é.csv"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_write_interrupted_keeps_older_file_and_leaves_nothing(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def interrupted():
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_an_output_error(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"No space left.*a\.png"):
        write_png(tmp_path / "a.png", tile())
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(OutputError, match="make the folder"):
        write_png(tmp_path / "nowhere" / "a.png", tile())
    (tmp_path / "b.png").mkdir()
    with pytest.raises(OutputError, match="this is a folder"):
        write_png(tmp_path / "b.png", tile())
    assert [p.name for p in tmp_path.iterdir()] == ["b.png"]
    with pytest.raises(OutputError):
        write_png(tmp_path / ("x" * 300), tile())
    with pytest.raises(ValueError, match="mode"), atomic_write(tmp_path / "a", "a"):
        pass


def test_a_name_as_long_as_allowed_and_ordinary_rights(tmp_path):
    path = tmp_path / ("x" * 251 + ".png")
    write_png(path, tile())
    np.testing.assert_array_equal(read_rgb(path), tile())
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)  # not a temporary file's 0600


# ------------------------------------------------------------------ overlay


@pytest.mark.parametrize(("height", "width"), [(96, 96), (60, 97), (300, 420), (522, 775), (400, 31)])
def test_the_tile_keeps_its_size_and_the_mask_its_colours(height, width):
    image, mask = tile(height, width), region(height, width)
    sheet = overlay(image, mask.astype(np.float32), mask, "malignant 0.97", "case 1")
    assert sheet.dtype == np.uint8
    left = (sheet.shape[1] - width) // 2
    assert left == 0 or width < 300
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inside = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    strip = sheet[:, left + columns[0] : left + columns[-1] + 1]
    top = find(strip, inside) - rows[0]  # fails where the mask is moved sideways, turned or recoloured
    assert 0 < top < sheet.shape[0] - height


def body(sheet, image, marked):
    """The tile's part of a sheet, found by a marked part whose pixels are untouched."""
    rows, columns = np.flatnonzero(marked.any(1)), np.flatnonzero(marked.any(0))
    left = (sheet.shape[1] - image.shape[1]) // 2
    block = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    top = find(sheet[:, left + columns[0] : left + columns[-1] + 1], block) - rows[0]
    return sheet[top : top + image.shape[0], left : left + image.shape[1]]


def saturation(pixels):
    return pixels.max(-1).astype(int) - pixels.min(-1)


def test_overlay_fades_undecidable_and_outlines_the_mask():
    image, mask = tile(300, 420), region(300, 420)
    drawn = body(overlay(image, mask.astype(np.float32), mask, "t"), image, mask)
    far = np.zeros_like(mask)
    far[200:, 250:] = True
    assert (saturation(drawn[far]) < 0.6 * saturation(image[far])).all()
    yellow = (drawn == (255, 222, 0)).all(-1)
    assert yellow.any()
    assert not (yellow & mask).any()
    assert yellow[70:75, 52:210].any(0).all()  # above, below and on both sides of rows 75..149, columns 52..209
    assert yellow[150:155, 52:210].any(0).all()
    assert yellow[75:150, 47:52].any(1).all()
    assert yellow[75:150, 210:215].any(1).all()
    assert not yellow[170:].any()


def test_fading_follows_the_map():
    image, mask = tile(300, 420), region(300, 420)
    soft = np.where(mask, 1, 0.1).astype(np.float32)
    soft[200:, :200] = 0.45
    drawn = body(overlay(image, soft, mask, "t"), image, mask)
    lost = np.abs(drawn.astype(int) - image).sum(-1)
    assert lost[220:, :180].mean() < 0.9 * lost[220:, 220:].mean()


def test_all_or_nothing_decidable_has_no_line():
    image = tile()
    full, none = np.ones((H, W), bool), np.zeros((H, W), bool)
    sheet = overlay(image, full.astype(np.float32), full, "t")
    np.testing.assert_array_equal(body(sheet, image, full), image)
    faded = overlay(image, none.astype(np.float32), none, "t")
    left = (faded.shape[1] - W) // 2
    assert not (faded[:-40, left : left + W] == (255, 222, 0)).all(-1).any()


def test_no_evidence_shows_the_tile_as_it_is_and_says_so():
    image, none = tile(), np.zeros((H, W), bool)
    soft = np.zeros((H, W), np.float32)
    sheet = overlay(image, soft, none, "benign 0.52", evidence=False)
    np.testing.assert_array_equal(body(sheet, image, ~none), image)
    header = find(sheet[:, (sheet.shape[1] - W) // 2 :][:, :W], image)
    with_evidence = overlay(image, soft, none, "benign 0.52")
    assert header > 40  # one line more than the title
    assert sheet.shape[0] != with_evidence.shape[0]


def test_text_is_wrapped_whatever_it_is():
    image, mask = tile(), region()
    short = overlay(image, mask.astype(np.float32), mask, "t", "")
    for caption in ("word " * 60, "x" * 300, "two\nlines", "Ünïcode µ → 🔬", ""):
        sheet = overlay(image, mask.astype(np.float32), mask, "t", caption)
        assert sheet.shape[1] == short.shape[1]
        assert sheet.shape[0] >= short.shape[0]
    assert (overlay(image, mask.astype(np.float32), mask, "a") != overlay(image, mask * 1.0, mask, "b")).any()


def test_pillows_own_font_serves_without_matplotlib(monkeypatch):
    monkeypatch.setattr("glas_wsol.writers.drawing.importlib.util.find_spec", lambda name: None)
    text_font.cache_clear()
    assert overlay(tile(), region() * 1.0, region(), "malignant 0.97").shape[1] >= W
    text_font.cache_clear()


@pytest.mark.parametrize(("height", "width", "limit"), [(1, 1, 5), (2, 9, 7), (41, 67, 5), (67, 41, 130)])
def test_squared_distance_equals_scipy_up_to_its_limit(height, width, limit):
    for share in (0.003, 0.05, 0.6):
        mask = np.random.default_rng(width).random((height, width)) < share
        mask[height // 2, width // 3] = True
        expected = np.minimum(np.rint(distance_transform_edt(~mask) ** 2), limit**2)
        np.testing.assert_array_equal(_squared_distance(mask, limit), expected)


@pytest.mark.parametrize(
    ("image", "soft", "mask"),
    [
        (tile().transpose(2, 0, 1), region() * 1.0, region()),
        (tile() / 255, region() * 1.0, region()),
        (tile(), (region() * 1.0).T, region()),
        (tile(), region() * 1.0, region().T),
        (tile(), region() * 1.0, region() * 1.0),
        (tile(), region() * 2.0, region()),
        (tile(), np.where(region(), np.nan, 0), region()),
    ],
)
def test_mismatched_input_is_refused(image, soft, mask):
    with pytest.raises(ValueError, match=r"needed|must lie"):
        overlay(image, soft, mask, "t")


def test_inputs_are_untouched():
    image, soft, mask = tile(), region().astype(np.float32) * 0.8, region()
    copies = image.copy(), soft.copy(), mask.copy()
    overlay(image, soft, mask, "t")
    for array, copy in zip((image, soft, mask), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_no_temporary_file_stays(tmp_path):
    for index in range(3):
        write_png(tmp_path / f"{index}.png", tile())
    assert sorted(p.name for p in Path(tmp_path).iterdir()) == ["0.png", "1.png", "2.png"]
