# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""All writers of one result say the same, each read back by a reader that is not the project's own."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from glas_wsol.writers.formats import FORMATS, check_formats, check_mpp, pixel_size_of, write_localization
from tests.dicoms import dicom, rgb, save
from tests.test_polygons import filled
from tests.writers.results import H, W, asymmetric_result


def masks_of(folder: Path, name: str) -> dict[str, np.ndarray]:
    highdicom = pytest.importorskip("highdicom")
    shapes = [one["geometry"] for one in json.loads((folder / f"geojson/{name}.geojson").read_text())["features"]]
    polygons = [p for s in shapes for p in ([s["coordinates"]] if s["type"] == "Polygon" else s["coordinates"])]
    return {
        "png": np.asarray(Image.open(folder / f"masks/{name}.png")) == 255,
        "geojson": filled(polygons, (H, W)) == 1,
        "nifti": np.asarray(nibabel.load(folder / f"masks/{name}.nii.gz").dataobj)[..., 0].T == 1,
        "tiff": tifffile.imread(folder / f"masks/{name}.tif") == 255,
        "dicom": highdicom.seg.segread(folder / f"dicom/{name}_seg.dcm").pixel_array.reshape(H, W) == 1,
    }


@pytest.mark.parametrize("evidence", [True, False])
@pytest.mark.parametrize("of_dicom", [True, False])
def test_all_writers_of_one_result_give_the_same_mask(tmp_path, evidence, of_dicom):
    pytest.importorskip("highdicom")
    path = str(save(tmp_path / "tile.dcm", dicom(rgb(H, W)))) if of_dicom else ""
    found = asymmetric_result(path=path, evidence=evidence)
    written = write_localization(tmp_path, found, rgb(H, W), FORMATS, (0.5, 0.25))
    assert found.mask.any() == evidence
    masks = masks_of(tmp_path, found.name)
    assert set(masks) == set(FORMATS) - {"png_map"}
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, found.mask, err_msg=name)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / f"maps/{found.name}.tif"), found.decidable)
    soft = np.asarray(nibabel.load(tmp_path / f"maps/{found.name}.nii.gz").dataobj)[..., 0].T
    np.testing.assert_array_equal(soft, found.decidable)
    grey = np.asarray(Image.open(tmp_path / f"maps/{found.name}.png"))
    assert grey.dtype == np.uint16
    np.testing.assert_allclose(grey / 65535, found.decidable, atol=0.51 / 65535)
    everything = {Path(tmp_path, file.format(found.name)) for one in FORMATS.values() for file in one.files}
    image = tmp_path / f"dicom/{found.name}_image.dcm"
    assert set(written) == everything - ({image} if of_dicom else set())
    assert {path for path in tmp_path.rglob("*/*") if path.is_file()} - {tmp_path / "tile.dcm"} == set(written)


def test_names_with_braces_dots_and_other_scripts_name_their_files(tmp_path):
    found = asymmetric_result(name="a{0}.b 悪性")
    written = write_localization(tmp_path, found, rgb(H, W), ["png", "geojson"])
    assert [path.name for path in written] == ["a{0}.b 悪性.png", "a{0}.b 悪性.geojson"]
    assert all(path.is_file() for path in written)


def test_no_two_formats_and_no_two_images_share_a_file():
    names = ("a", "a_seg", "a_image", "a_map", "a.nii")
    files = [file.format(name) for one in FORMATS.values() for file in one.files for name in names]
    assert len(set(files)) == len(files)


def test_formats_are_checked_each_once():
    assert check_formats("geojson") == ("geojson",)
    assert check_formats(["tiff", "png", "tiff"]) == ("tiff", "png")
    assert check_formats([]) == ()


def test_pixels_may_be_square_or_not_or_of_unknown_size(tmp_path):
    assert check_mpp(None) is None
    assert check_mpp(0.5) == (0.5, 0.5)
    assert check_mpp([0.5, 0.25]) == (0.5, 0.25)
    found = asymmetric_result(path=str(save(tmp_path / "a.dcm", dicom(rgb(), PixelSpacing=[0.001, 0.002]))))
    assert pixel_size_of(found) == (2, 1)
    assert pixel_size_of(found, (0.5, 0.25)) == (0.5, 0.25)
    assert pixel_size_of(asymmetric_result()) is None
