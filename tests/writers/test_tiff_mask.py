# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""TIFF read back by tifffile, by Pillow and by the reader of tiles."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from glas_wsol.errors import OutputError
from glas_wsol.transforms import read_mask, read_rgb
from glas_wsol.writers.tiff_mask import write_tiff
from tests.writers.results import H, W, asymmetric_result


def written(folder, found):
    write_tiff(folder / "mask.tif", folder / "map.tif", found)
    return folder / "mask.tif", folder / "map.tif"


def test_mask_and_map_come_back(tmp_path):
    found = asymmetric_result()
    mask, soft = written(tmp_path, found)
    np.testing.assert_array_equal(tifffile.imread(mask), found.mask * np.uint8(255))
    np.testing.assert_array_equal(tifffile.imread(soft), found.decidable)
    assert tifffile.imread(soft).dtype == np.float32
    np.testing.assert_array_equal(read_mask(mask), found.mask * 255)
    np.testing.assert_array_equal(np.asarray(Image.open(soft)), found.decidable)
    np.testing.assert_array_equal(read_rgb(soft)[..., 1], np.rint(found.decidable * 255))
    assert Image.open(mask).size == (W, H)


def test_the_resolution_is_in_pixels_per_centimetre(tmp_path):
    for path in written(tmp_path, asymmetric_result(mpp=(0.5, 0.25))):
        with tifffile.TiffFile(path) as file:
            tags = file.pages[0].tags
            assert tags["ResolutionUnit"].value == 3
            across, down = ((lambda n, d: n / d)(*tags[f"{axis}Resolution"].value) for axis in "XY")
        assert (across, down) == (20000, 40000)  # a centimetre is 20000 times 0.5 um
        assert Image.open(path).info["dpi"] == pytest.approx((50800, 101600), rel=1e-6)


def test_a_pixel_size_survives_to_six_digits(tmp_path):
    path, _ = written(tmp_path, asymmetric_result(mpp=(0.620014, 0.620014)))
    with tifffile.TiffFile(path) as file:
        numerator, denominator = file.pages[0].tags["XResolution"].value
    assert 1e4 / (numerator / denominator) == pytest.approx(0.620014, abs=5e-7)


def test_without_a_pixel_size_the_resolution_has_no_unit(tmp_path):
    for path in written(tmp_path, asymmetric_result()):
        with tifffile.TiffFile(path) as file:
            assert file.pages[0].tags["ResolutionUnit"].value == 1


def test_without_evidence_the_mask_is_empty(tmp_path):
    mask, soft = written(tmp_path, asymmetric_result(evidence=False))
    assert not tifffile.imread(mask).any()
    assert tifffile.imread(soft).max() == 1


def test_the_same_result_is_the_same_file(tmp_path):
    first = [path.read_bytes() for path in written(tmp_path, asymmetric_result(mpp=(0.5, 0.5)))]
    assert [path.read_bytes() for path in written(tmp_path, asymmetric_result(mpp=(0.5, 0.5)))] == first


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OutputError, match="make the folder first"):
        write_tiff(tmp_path / "none" / "a.tif", tmp_path / "b.tif", asymmetric_result())
