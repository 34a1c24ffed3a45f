# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A slide that is done cell by cell has the mask of the whole: in memory and on disk, with a halo of 320 px."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glas_wsol.errors import ConfigError, ImageFileError
from glas_wsol.networks.refined import RefinedNetwork
from glas_wsol.slides.cell_network import CellNetwork
from glas_wsol.slides.cell_store import CellStore
from glas_wsol.slides.cells import CellSplitter, Grid
from glas_wsol.slides.localize_slide import SlideModel, _run, localize_slide
from glas_wsol.slides.strips import draw_mask_rows
from tests.conftest import tiny_network, tiny_trunk
from tests.slides.slide_images import local_network, tissue_image, write_slide_file

HEIGHT, WIDTH = 800, 1056


@pytest.fixture(scope="module")
def network() -> RefinedNetwork:
    return local_network().double()  # or rounding turns over the pixels that are at 0.5 exactly


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return tissue_image(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def whole(network, image) -> np.ndarray:
    with torch.no_grad():
        values = torch.from_numpy(image.transpose(2, 0, 1) / 255).float().double()[None]
        return torch.sigmoid(network.mask_logits(network.normalise(values)))[0, 0].float().numpy()


def assert_same_mask(mask, whole):
    """No pixel differs, but for one that is at 0.5 to the seventh digit."""
    differ = mask != (whole >= 0.5)
    assert differ.sum() <= 1
    assert (np.abs(whole[differ] - 0.5) < 1e-6).all()


def test_cells_of_an_array_in_memory_equal_the_whole(network, image, whole, tmp_path):
    def read(rows, columns):
        return image[slice(*rows), slice(*columns)].astype(np.float32) / 255

    grid = Grid((HEIGHT, WIDTH), 192, 320)
    cells = list(grid.cells())
    covered = np.zeros(grid.padded, int)
    for cell in cells:
        covered[cell.top : cell.bottom, cell.left : cell.right] += 1
    assert (covered == 1).all()
    store = CellStore(tmp_path / "work", grid, {})
    _run(CellNetwork(network, grid, 0), CellSplitter(grid, cells, read), store, tmp_path, lambda: None)
    soft = draw_mask_rows(np.load(store.scores_file), slice(0, HEIGHT), grid.padded, WIDTH)
    assert 0.2 < (whole >= 0.5).mean() < 0.8
    assert np.abs(soft - whole).max() < 1e-5
    assert_same_mask(soft >= 0.5, whole)


def test_cells_of_a_slide_on_disk_equal_the_whole(network, image, whole, tmp_path):
    path = write_slide_file(tmp_path / "a slide.tiff", image, 0.5)
    model = SlideModel(network, ("a", "b"), 0.5)
    found = localize_slide(model, path, tmp_path / "work", core=256)
    assert found.size == (HEIGHT, WIDTH)
    assert (found.cells, found.all_cells, found.level, found.mpp_from) == (20, 20, 0, "slide")
    assert np.abs(found.decidable / 255.0 - whole).max() <= 0.5 / 255 + 1e-5
    assert_same_mask(found.mask, whole)
    assert found.decidable_area == found.mask.sum()


def test_cells_without_tissue_are_not_read(network, tmp_path):
    path = write_slide_file(tmp_path / "half.tiff", tissue_image(320, 960, glass=640), 0.5)
    found = localize_slide(SlideModel(network, ("a", "b"), 0.5, "H&E"), path, tmp_path / "work", core=320)
    assert (found.cells, found.all_cells, found.evidence) == (1, 3, True)
    assert not np.asarray(found.mask[:, :600]).any()
    assert np.asarray(found.mask[:, 640:]).any()
    assert found.tissue == pytest.approx(320 * 320 * 0.25e-6, rel=0.1)


@pytest.mark.parametrize("colour", [(243, 242, 244), (20, 20, 20), (120, 4, 130)], ids=["glass", "black", "magenta"])
def test_slide_without_tissue_has_no_evidence(network, tmp_path, colour):
    image = np.full((300, 400, 3), 0 if colour[1] < 100 else 240, np.uint8)
    image[50:200, 60:300] = colour
    path = write_slide_file(tmp_path / "blank.tiff", image, 0.5)
    found = localize_slide(SlideModel(network, ("a", "b"), 0.5, "H&E"), path, tmp_path / "work")
    assert (found.evidence, found.reason, found.cells, found.class_name) == (
        False,
        "no H&E tissue",
        0,
        "no evidence",
    )
    assert not np.asarray(found.mask).any()


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: tiny_network(), "two stages"),
        (lambda: RefinedNetwork(tiny_trunk(), weights="none", decoder_width=8), "calibrate MODEL DATA"),
    ],
    ids=["one stage", "statistics of the tile"],
)
def test_model_whose_mask_is_not_local_is_refused(build, said):
    with pytest.raises(ConfigError, match=said):
        SlideModel(build().eval(), ("a", "b"), 0.5)


def test_model_without_a_pixel_size_is_refused(network):
    with pytest.raises(ConfigError, match="micrometres of its pixels"):
        SlideModel(network, ("a", "b"), None)


@pytest.mark.parametrize("mpp", [None, 352.8], ids=["none", "nonsense"])
def test_slide_without_a_pixel_size_is_refused(network, image, tmp_path, mpp):
    path = write_slide_file(tmp_path / "s.tiff", image[:200, :300], mpp)
    with pytest.raises(ImageFileError, match=r"--mpp 0\.5"):
        localize_slide(SlideModel(network, ("a", "b"), 0.5), path, tmp_path / "work")
    found = localize_slide(SlideModel(network, ("a", "b"), 0.5), path, tmp_path / "work", mpp=0.5)
    assert (found.size, found.mpp_from) == ((200, 300), "given")


def test_class_of_a_window_is_that_of_the_window_alone(network, image, monkeypatch, tmp_path):
    monkeypatch.setattr("glas_wsol.slides.localize_slide.window_side", lambda _: 160)
    path = write_slide_file(tmp_path / "s.tiff", image, 0.5)
    found = localize_slide(SlideModel(network, ("a", "b"), 0.5), path, tmp_path / "work", core=320)
    assert found.class_map is not None
    assert found.class_map.shape == (5, 7, 2)
    known = np.isfinite(found.class_map[..., 0])
    assert known.mean() > 0.9
    assert np.allclose(found.class_map[known].sum(axis=1), 1, atol=1e-5)
    values = torch.from_numpy(image[160:320, 320:480].transpose(2, 0, 1) / 255)[None]
    with torch.no_grad():
        alone = network(values)[0, 1:].double().sum(dim=(1, 2))
    assert np.abs(found.class_map[1, 2] - (alone / alone.sum()).numpy()).max() < 0.14  # its surroundings are seen too
    assert sum(found.class_areas) <= found.decidable_area
    assert sum(found.class_shares.values()) == pytest.approx(1)
    assert all(len(part.probabilities) == 2 for part in found.parts if part.area > 200)
