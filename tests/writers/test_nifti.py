# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""NIfTI read back by nibabel and MONAI: the same pixels, neither turned nor transposed, of the right size."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from monai.transforms import LoadImage

from glas_wsol.errors import OutputError
from glas_wsol.writers.nifti import write_nifti
from tests.writers.results import H, W, asymmetric_result


def written(folder, found):
    write_nifti(folder / "mask.nii.gz", folder / "map.nii.gz", found)
    return nibabel.load(folder / "mask.nii.gz"), nibabel.load(folder / "map.nii.gz")


def test_nibabel_reads_the_same_mask_and_map(tmp_path):
    found = asymmetric_result()
    mask, soft = written(tmp_path, found)
    assert mask.shape == soft.shape == (W, H, 1)
    assert mask.get_data_dtype() == np.uint8
    assert soft.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(mask.dataobj)[:, :, 0].T, found.mask)
    np.testing.assert_array_equal(np.asarray(soft.dataobj)[:, :, 0].T, found.decidable)
    assert np.asarray(mask.dataobj)[1, H - 2, 0] == 1, "the speck is in column 1 of the last row but one"


def test_monai_reads_them_as_they_lie(tmp_path):
    found = asymmetric_result()
    written(tmp_path, found)
    read = LoadImage(image_only=True)(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(read[..., 0].numpy().T, found.decidable)


def test_the_affine_has_the_size_of_a_pixel_in_millimetres(tmp_path):
    for image in written(tmp_path, asymmetric_result(mpp=(0.5, 0.25))):
        assert image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(image.header.get_zooms(), (0.0005, 0.00025, 0.0005))
        # three columns to the right are 1.5 um to the patient's left (-x), two rows down 0.5 um to the back (-y)
        np.testing.assert_allclose(image.affine @ [3, 2, 0, 1], [-0.0015, -0.0005, 0, 1], atol=1e-9)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-9)
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")


def test_without_a_pixel_size_lengths_are_pixels(tmp_path):
    for image in written(tmp_path, asymmetric_result()):
        assert image.header.get_xyzt_units()[0] == "unknown"
        assert image.header.get_zooms() == (1, 1, 1)


def test_without_evidence_the_mask_is_empty_and_the_map_is_kept(tmp_path):
    mask, soft = written(tmp_path, asymmetric_result(evidence=False))
    assert not np.asarray(mask.dataobj).any()
    assert np.asarray(soft.dataobj).max() == 1


def test_the_same_result_is_the_same_file(tmp_path, monkeypatch):
    written(tmp_path, asymmetric_result(mpp=(0.5, 0.5)))
    first = [(tmp_path / name).read_bytes() for name in ("mask.nii.gz", "map.nii.gz")]
    monkeypatch.setattr("time.time", lambda: 1e9)
    written(tmp_path, asymmetric_result(mpp=(0.5, 0.5)))
    assert [(tmp_path / name).read_bytes() for name in ("mask.nii.gz", "map.nii.gz")] == first


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OutputError, match="make the folder first"):
        write_nifti(tmp_path / "none" / "a.nii.gz", tmp_path / "b.nii.gz", asymmetric_result())
