# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""DICOM Segmentations read back: the same mask, the source's patient and no other, no error to a validator."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage

from glas_wsol.errors import ConfigError, ImageFileError
from glas_wsol.transforms import read_mask, read_rgb
from glas_wsol.writers import dicom_seg
from glas_wsol.writers.dicom_seg import require_highdicom, write_dicom_seg
from tests.dicoms import dicom, rgb, save
from tests.writers.results import H, W, asymmetric_result

highdicom = pytest.importorskip("highdicom")
STUDY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "StudyDate")
STUDY += ("StudyTime", "AccessionNumber", "ReferringPhysicianName")


def mask_in(path: Path) -> np.ndarray:
    """By highdicom's own reader."""
    read = highdicom.seg.segread(path)
    assert read.number_of_segments == 1
    return read.pixel_array.reshape(read.Rows, read.Columns).astype(bool)


def errors(path: Path) -> list[str]:
    said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    lines = (said.stdout + said.stderr).splitlines()
    assert any(line in ("Segmentation", "SCImage") for line in lines), "it knows what the file is to be"
    return [line for line in lines if line.startswith("Error")]


def from_source(folder: Path, **more) -> tuple[pydicom.Dataset, Path]:
    source = dicom(rgb(H, W), **more)
    found = asymmetric_result(path=str(save(folder / "source.dcm", source)))
    assert not write_dicom_seg(folder / "seg.dcm", folder / "image.dcm", found)
    assert not (folder / "image.dcm").exists()
    return source, folder / "seg.dcm"


def test_a_tile_s_segmentation_refers_to_the_tile_and_comes_back(tmp_path):
    found = asymmetric_result()
    assert write_dicom_seg(tmp_path / "seg.dcm", tmp_path / "image.dcm", found)
    np.testing.assert_array_equal(mask_in(tmp_path / "seg.dcm"), found.mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "seg.dcm"), found.mask)
    np.testing.assert_array_equal(read_rgb(tmp_path / "image.dcm"), rgb(H, W))
    seg, image = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(tmp_path / "image.dcm")
    assert (seg.SOPClassUID, image.SOPClassUID) == (SegmentationStorage, SecondaryCaptureImageStorage)
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == image.SeriesInstanceUID != seg.SeriesInstanceUID
    assert [one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence] == [image.SOPInstanceUID]
    assert seg.StudyInstanceUID == image.StudyInstanceUID


def test_nothing_is_invented_about_a_patient(tmp_path):
    write_dicom_seg(tmp_path / "seg.dcm", tmp_path / "image.dcm", asymmetric_result())
    for path in (tmp_path / "seg.dcm", tmp_path / "image.dcm"):
        read = pydicom.dcmread(path)
        known = [e.keyword for e in read if e.tag.group == 0x10 and e.value]
        assert known == []
        empty = [name for name in STUDY if name != "StudyInstanceUID"]
        assert all(name in read and not read[name].value for name in empty)


def test_patient_study_and_image_of_a_dicom_file_are_kept(tmp_path):
    source, path = from_source(tmp_path, PixelSpacing=[0.0005, 0.00025])
    read = pydicom.dcmread(path)
    np.testing.assert_array_equal(mask_in(path), asymmetric_result().mask)
    assert {name: read[name].value for name in STUDY} == {name: source[name].value for name in STUDY}
    (series,) = read.ReferencedSeriesSequence
    (instance,) = series.ReferencedInstanceSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID != read.SeriesInstanceUID
    assert instance.ReferencedSOPInstanceUID == source.SOPInstanceUID != read.SOPInstanceUID
    assert instance.ReferencedSOPClassUID == source.SOPClassUID


def test_what_a_dicom_file_leaves_out_stays_unknown(tmp_path):
    source = dicom(rgb(H, W))
    del source.PatientID, source.PatientSex, source.ReferringPhysicianName, source.StudyID
    found = asymmetric_result(path=str(save(tmp_path / "source.dcm", source)))
    write_dicom_seg(tmp_path / "seg.dcm", tmp_path / "image.dcm", found)
    read = pydicom.dcmread(tmp_path / "seg.dcm")
    assert read.PatientName == "Doe^Jane"
    assert all(name in read and not read[name].value for name in ("PatientID", "PatientSex", "StudyID"))


def test_dicom_seg_takes_the_position_of_its_image(tmp_path):
    path = get_testdata_file("MR_small.dcm", download=False)
    source = pydicom.dcmread(path)
    decidable = np.zeros((source.Rows, source.Columns), np.float32)
    decidable[3:9, 20:50] = 1
    found = asymmetric_result(path=path, decidable=decidable)
    write_dicom_seg(tmp_path / "seg.dcm", tmp_path / "image.dcm", found)
    read = pydicom.dcmread(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(mask_in(tmp_path / "seg.dcm"), found.mask)
    assert read.FrameOfReferenceUID == source.FrameOfReferenceUID
    shared = read.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == source.PixelSpacing
    place = read.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    assert place == source.ImagePositionPatient


def test_the_segment_says_the_class_and_no_anatomy(tmp_path):
    _, path = from_source(tmp_path)
    (segment,) = pydicom.dcmread(path).SegmentSequence
    assert segment.SegmentLabel == "malignant"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Selected region"
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Spatial and Relational Concept"


def test_dicom_seg_long_class_name_is_cut_to_a_label(tmp_path):
    found = asymmetric_result(classes=("benign", "bösartig 悪性 " + "x" * 80))
    write_dicom_seg(tmp_path / "seg.dcm", tmp_path / "image.dcm", found)
    (segment,) = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    assert segment.SegmentLabel == found.predicted[:64]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_come_back(tmp_path, value):
    found = asymmetric_result(decidable=np.full((H, W), value, np.float32))
    write_dicom_seg(tmp_path / "seg.dcm", tmp_path / "image.dcm", found)
    np.testing.assert_array_equal(mask_in(tmp_path / "seg.dcm"), found.mask)


def test_segmentation_and_capture_have_the_size_of_a_pixel(tmp_path):
    write_dicom_seg(tmp_path / "seg.dcm", tmp_path / "image.dcm", asymmetric_result(mpp=(0.5, 0.25)))
    assert pydicom.dcmread(tmp_path / "image.dcm").NominalScannedPixelSpacing == [0.00025, 0.0005]
    assert spacing(tmp_path / "seg.dcm") == [0.00025, 0.0005]


def test_given_pixel_size_counts_before_that_of_a_dicom_image(tmp_path):
    for more in ({}, {"PixelSpacing": [0.0005, 0.0005]}):
        path = str(save(tmp_path / "source.dcm", dicom(rgb(H, W), **more)))
        write_dicom_seg(tmp_path / "seg.dcm", tmp_path / "none.dcm", asymmetric_result(path=path, mpp=(0.25, 0.25)))
        assert spacing(tmp_path / "seg.dcm") == [0.00025, 0.00025]


def spacing(path: Path) -> list[float]:
    shared = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0]
    return list(shared.PixelMeasuresSequence[0].PixelSpacing)


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (Debian package dicom3tools) is not installed")
@pytest.mark.parametrize("evidence", [True, False])
def test_dciodvfy_finds_no_error(tmp_path, evidence):
    _, path = from_source(tmp_path, PixelSpacing=[0.0005, 0.00025])
    assert errors(path) == []
    found = asymmetric_result(evidence=evidence, mpp=(0.5, 0.5))
    write_dicom_seg(tmp_path / "seg2.dcm", tmp_path / "image.dcm", found)
    assert errors(tmp_path / "seg2.dcm") == []
    assert errors(tmp_path / "image.dcm") == []
    for name in ("MR_small.dcm", "examples_rgb_color.dcm"):
        path = get_testdata_file(name, download=False)
        size = pydicom.dcmread(path, stop_before_pixels=True)
        found = asymmetric_result(path=path, decidable=np.eye(size.Rows, size.Columns, dtype=np.float32))
        write_dicom_seg(tmp_path / "seg3.dcm", tmp_path / "none.dcm", found)
        assert errors(tmp_path / "seg3.dcm") == []


def test_dicom_seg_without_its_image_is_refused(tmp_path):
    with pytest.raises(ImageFileError, match=r"no image that a segmentation could refer to.*leave dicom out"):
        write_dicom_seg(tmp_path / "seg.dcm", tmp_path / "image.dcm", asymmetric_result(image=None))
    assert list(tmp_path.iterdir()) == []


def test_dicom_seg_header_without_references_is_refused(tmp_path):
    source = dicom(rgb(H, W))
    del source.StudyInstanceUID
    found = asymmetric_result(path=str(save(tmp_path / "source.dcm", source)))
    with pytest.raises(ImageFileError, match=r"StudyInstanceUID.*source\.dcm.*leave dicom out"):
        write_dicom_seg(tmp_path / "seg.dcm", tmp_path / "image.dcm", found)
    assert [path.name for path in tmp_path.iterdir()] == ["source.dcm"]


@pytest.mark.parametrize("more", [{}, {"SliceThickness": None}])
def test_a_place_without_thickness_is_refused_by_its_name(tmp_path, more):
    place = {"FrameOfReferenceUID": "1.2.3", "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    source = dicom(rgb(H, W), PixelSpacing=[0.0005, 0.001], ImagePositionPatient=[0, 0, 0], **place, **more)
    found = asymmetric_result(path=str(save(tmp_path / "source.dcm", source)))
    with pytest.raises(ImageFileError, match=r"no SliceThickness.*source\.dcm.*add SliceThickness"):
        write_dicom_seg(tmp_path / "seg.dcm", tmp_path / "image.dcm", found)


def test_dicom_seg_of_padded_slide_has_no_outside_pixel(tmp_path):
    frame = np.full((H + 9, W + 20, 3), 255, np.uint8)
    frame[:H, :W] = rgb(H, W)
    source = dicom(frame, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.6", NumberOfFrames=1, FrameOfReferenceUID="1.2.3")
    source.TotalPixelMatrixRows, source.TotalPixelMatrixColumns, source.TotalPixelMatrixFocalPlanes = H, W, 1
    source.ImageOrientationSlide, source.DimensionOrganizationType = [0, -1, 0, -1, 0, 0], "TILED_FULL"
    source.ContainerIdentifier, source.SpecimenDescriptionSequence = "S1", []
    origin, path, measures, group = (pydicom.Dataset() for _ in range(4))
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 10, 20
    path.OpticalPathIdentifier, source.NumberOfOpticalPaths = "1", 1
    measures.PixelSpacing, measures.SliceThickness, group.PixelMeasuresSequence = [0.0005, 0.001], 0.001, [measures]
    source.TotalPixelMatrixOriginSequence, source.OpticalPathSequence = [origin], [path]
    source.SharedFunctionalGroupsSequence = [group]
    found = asymmetric_result(path=str(save(tmp_path / "source.dcm", source)))
    np.testing.assert_array_equal(read_rgb(found.path), rgb(H, W))
    assert not write_dicom_seg(tmp_path / "seg.dcm", tmp_path / "image.dcm", found)
    mask = mask_in(tmp_path / "seg.dcm")
    assert mask.shape == (H + 9, W + 20)
    np.testing.assert_array_equal(mask[:H, :W], found.mask)
    assert mask.sum() == found.mask.sum()
    np.testing.assert_array_equal(read_mask(tmp_path / "seg.dcm"), found.mask)


def test_without_highdicom_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(dicom_seg, "optional_import", lambda name: (None, False))
    with pytest.raises(ConfigError, match=r"highdicom is missing.*pip install highdicom") as caught:
        require_highdicom()
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="highdicom is missing"):
        write_dicom_seg(tmp_path / "seg.dcm", tmp_path / "image.dcm", asymmetric_result())
    assert list(tmp_path.iterdir()) == []
