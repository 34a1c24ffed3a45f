# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Nothing is shifted: not where a level was cut (2.0005), nor at a factor that is not whole, nor at bounds."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np
import openslide
import pytest
import tifffile
import torch
from shapely.geometry import shape
from torch.nn import functional as F

from glas_wsol.results.slide_localization import SlideLocalization
from glas_wsol.slides import slide_file
from glas_wsol.slides.slide_file import SlideFile
from glas_wsol.slides.strips import find_parts
from glas_wsol.transforms.reading.slide_formats import is_slide
from glas_wsol.writers.slide_files import SLIDE_FORMATS, write_slide
from tests.slides.slide_images import tissue_image, write_slide_file

HEIGHT, WIDTH, SQUARE = 355, 4443, 50


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Squares of 50 px, 4443 px wide: the second level is cut to 2221, and OpenSlide's ratio is not its pixels'."""
    rows, columns = np.arange(HEIGHT) // SQUARE, np.arange(WIDTH) // SQUARE
    dark = (rows[:, None] + columns) % 2 == 0
    image = np.where(dark[..., None], (90, 40, 120), (240, 235, 240)).astype(np.uint8)
    path = write_slide_file(tmp_path_factory.mktemp("board") / "board.tiff", image, 0.5)
    with openslide.OpenSlide(path) as slide:
        assert slide.level_downsamples[1] > 2.0005
    return path


@pytest.mark.parametrize("mpp", [0.5, 0.8, 1.0, 1.24], ids=str)
def test_view_of_a_cut_level_is_not_shifted(board, mpp):
    view = SlideFile(board).at_mpp(mpp)
    assert view.level == (1 if mpp >= 1 else 0)
    width, height = view.size
    row = view.read((0, height), (0, width))[int(25 / view.step[1]), :, 0]
    crossings = np.flatnonzero(np.diff(np.sign(row - 0.65)))
    share = (0.65 - row[crossings]) / (row[crossings + 1] - row[crossings])
    at = (crossings + 0.5 + share) * view.step[0]
    assert len(at) == WIDTH // SQUARE
    assert np.abs(at - SQUARE * np.arange(1, len(at) + 1)).max() < 0.5  # px of level 0


def test_files_of_a_result_are_not_shifted(board, tmp_path):
    view = SlideFile(board).at_mpp(1.24)
    width, height = view.size
    mask = view.read((0, height), (0, width))[..., 0] < 0.65
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "decidable.npy", np.where(mask, 200, 30).astype(np.uint8))
    files = tmp_path / "mask.npy", tmp_path / "decidable.npy"
    found = SlideLocalization(
        "board",
        str(board),
        ("a", "b"),
        *files,
        (height, width),
        view.step,
        view.mpp,
        tuple(find_parts(*files, None, 0)),
        None,
        0,
        (0, 0),
        np.full((44, 555, 3), 240, np.uint8),
        1.0,
        1,
        1,
        1,
        (WIDTH, HEIGHT),
        (0.5, 0.5),
        "slide",
    )
    write_slide(tmp_path, found, tuple(one for one in SLIDE_FORMATS if one != "dicom"))
    middles = [(x, y) for y in range(25, HEIGHT, 50) for x in range(25, WIDTH, 50)]
    dark = np.array([(x // 50 + y // 50) % 2 == 0 for x, y in middles])
    with openslide.OpenSlide(tmp_path / "mask.tif") as slide:
        assert slide.dimensions == (width, height)
        assert slide.level_count == 3
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(view.mpp[0], rel=1e-4)
        shown = np.asarray(slide.read_region((0, 0), 0, (width, height)).convert("L")) > 127
        half = np.asarray(slide.read_region((0, 0), 1, slide.level_dimensions[1]).convert("L")) > 127
    assert (shown == mask).all()
    assert (half == mask[::2, ::2]).all()
    assert (tifffile.imread(tmp_path / "mask.tif") == mask * 255).all()
    assert (tifffile.imread(tmp_path / "map.tif") == np.where(mask, 200, 30)).all()
    with tifffile.TiffFile(tmp_path / "mask.ome.tif") as ome:
        assert [level.shape for level in ome.series[0].levels] == [mask[:: 2**n, :: 2**n].shape for n in range(3)]
        assert (ome.series[0].asarray() == mask * 255).all()
        assert f'PhysicalSizeX="{view.mpp[0]}"' in (ome.ome_metadata or "")
    before = (tmp_path / "mask.ome.tif").read_bytes()
    write_slide(tmp_path, found, ("ome_tiff",))
    assert (tmp_path / "mask.ome.tif").read_bytes() == before
    at = np.array([shown[int(y / view.step[1]), int(x / view.step[0])] for x, y in middles])
    assert (at == dark).all()
    for name in ("outlines", "outlines_exact"):
        features = json.loads((tmp_path / f"{name}.geojson").read_text(encoding="utf-8"))["features"]
        outlines = [shape(one["geometry"]) for one in features]
        assert all(one.is_valid for one in outlines)
        assert sum(one.area for one in outlines) == pytest.approx(mask.sum() * view.step[0] * view.step[1], rel=0.02)
        squares = [one for whole in outlines for one in getattr(whole, "geoms", [whole])]
        edges = np.array([edge for one in squares for edge in one.bounds])
        inner = edges[(edges > 1) & (edges < np.tile((WIDTH - 3, HEIGHT - 3, WIDTH - 3, HEIGHT - 3), len(squares)))]
        off = np.abs(inner - SQUARE * np.round(inner / SQUARE))
        # a pixel of the mask is 2.48 px wide: an edge lies within half of that, to the right as often as to the left
        assert off.max() <= view.step[0] / 2 + 0.5
        assert abs(np.mean(inner - SQUARE * np.round(inner / SQUARE))) < 0.5


def test_part_of_a_view_is_that_of_the_whole(tmp_path):
    image = tissue_image(301, 407)
    view = SlideFile(write_slide_file(tmp_path / "s.tiff", image, 0.4, levels=1)).at_mpp(0.73)
    width, height = view.size
    whole = view.read((0, height), (0, width))
    values = torch.from_numpy(image.transpose(2, 0, 1)).float()[None]
    shrunk = F.interpolate(values, (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy() / 255
    assert np.abs(whole - shrunk).max() < 2e-6
    assert np.abs(view.read((31, 90), (67, 153)) - whole[31:90, 67:153]).max() < 1e-6
    over = view.read((-5, 9), (width - 3, width + 4))
    assert (over[:5] == 1).all()
    assert (over[:, 3:] == 1).all()
    assert np.abs(over[5:, :3] - whole[:9, -3:]).max() < 1e-6


class Bounded:
    """What OpenSlide says of a slide with bounds, and with a hole that was not scanned."""

    dimensions, level_dimensions, level_downsamples = (400, 300), ((400, 300),), (1.0,)
    properties: ClassVar[dict[str, str]] = {
        "openslide.vendor": "mirax",
        "openslide.mpp-x": "0.5",
        "openslide.mpp-y": "0.5",
        "openslide.bounds-x": "60",
        "openslide.bounds-y": "40",
        "openslide.bounds-width": "200",
        "openslide.bounds-height": "100",
    }

    def __init__(self, path) -> None:
        self.pixels = np.zeros((300, 400, 4), np.uint8)
        self.pixels[40:140, 60:260] = (*(10, 20, 30), 255)
        self.pixels[100:140, 60:260] = 0

    def read_region(self, place, level, size):
        (x, y), (width, height) = place, size
        out = np.zeros((height, width, 4), np.uint8)
        part = self.pixels[y : y + height, x : x + width]
        out[: part.shape[0], : part.shape[1]] = part
        return out


def test_bounds_are_the_slide_and_holes_are_white(monkeypatch):
    monkeypatch.setattr(slide_file, "open_slide", Bounded)
    slide = SlideFile("a.mrxs")
    assert (slide.size, slide.corner) == ((200, 100), (60, 40))
    read = slide.at_mpp(0.5).read((0, 100), (0, 200))
    assert (np.round(read[:60] * 255) == (10, 20, 30)).all()
    assert (read[60:] == 1).all()


def test_slides_are_recognised_by_content(tmp_path):
    image = tissue_image(200, 300)
    assert is_slide(write_slide_file(tmp_path / "a slide without suffix", image, 0.5))
    assert not is_slide(write_slide_file(tmp_path / "tile.svs", image, 0.5, levels=1))
    (tmp_path / "text.svs").write_text("no slide")
    assert not is_slide(tmp_path / "text.svs")
    assert not is_slide(tmp_path / "absent.svs")
