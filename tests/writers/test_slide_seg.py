# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The mask of a DICOM slide as a Segmentation in tiles, read back with highdicom; other slides are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from pydicom import Dataset
from pydicom.uid import VLWholeSlideMicroscopyImageStorage, generate_uid

from glas_wsol.cohorts.slide_jobs import SlideJob, run_slide
from glas_wsol.slides.localize_slide import SlideModel
from glas_wsol.writers import dicom_seg
from tests.dicoms import dicom, save
from tests.slides.slide_images import local_network, tissue_image, write_slide_file

seg = pytest.importorskip("highdicom.seg")
SIDE, HEIGHT, WIDTH, MPP = 64, 290, 430, 0.5


def parts(**values) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def dicom_slide(image: np.ndarray, series: str, mpp: float) -> Dataset:
    """A level of a slide, its frames in full rows, uncompressed."""
    rows, columns = (-(-side // SIDE) for side in image.shape[:2])
    padded = np.pad(image, ((0, rows * SIDE - len(image)), (0, columns * SIDE - image.shape[1]), (0, 0)), mode="edge")
    frames = padded.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, 3)
    slide = dicom(np.ascontiguousarray(frames), SOPClassUID=VLWholeSlideMicroscopyImageStorage)
    slide.Rows = slide.Columns = SIDE
    slide.Modality, slide.NumberOfFrames, slide.SeriesInstanceUID = "SM", rows * columns, series
    slide.ImageType, slide.DimensionOrganizationType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "TILED_FULL"
    slide.TotalPixelMatrixRows, slide.TotalPixelMatrixColumns = image.shape[:2]
    slide.TotalPixelMatrixFocalPlanes = slide.NumberOfOpticalPaths = 1
    slide.ImagedVolumeWidth, slide.ImagedVolumeHeight = (side * mpp / 1000 for side in reversed(image.shape[:2]))
    slide.ImagedVolumeDepth = 0.001
    slide.FrameOfReferenceUID, slide.PositionReferenceIndicator = "1.2.3.4", "SLIDE_CORNER"
    slide.ImageOrientationSlide, slide.ContainerIdentifier = [0.0, -1.0, 0.0, -1.0, 0.0, 0.0], "C1"
    slide.ContainerTypeCodeSequence = [parts(CodeValue="433466003", CodingSchemeDesignator="SCT", CodeMeaning="slide")]
    slide.IssuerOfTheContainerIdentifierSequence = []
    slide.SpecimenDescriptionSequence = [parts(SpecimenIdentifier="S1", SpecimenUID=generate_uid())]
    origin = parts(XOffsetInSlideCoordinateSystem=20.0, YOffsetInSlideCoordinateSystem=30.0)
    slide.TotalPixelMatrixOriginSequence = [origin]
    slide.OpticalPathSequence = [parts(OpticalPathIdentifier="1")]
    measures = parts(SliceThickness=0.001, PixelSpacing=[mpp / 1000] * 2)
    slide.SharedFunctionalGroupsSequence = [parts(PixelMeasuresSequence=[measures])]
    return slide


@pytest.fixture(scope="module")
def model() -> SlideModel:
    return SlideModel(local_network(), ("a", "b"), 0.8)


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    """Two levels, of which the smaller is named."""
    folder, image, series = tmp_path_factory.mktemp("dicom"), tissue_image(HEIGHT, WIDTH), generate_uid()
    save(folder / "b.dcm", dicom_slide(image, series, MPP))
    small = image.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    return save(folder / "a.dcm", dicom_slide(small, series, 2 * MPP))


@pytest.mark.parametrize("most", [64_000_000, 8_000])
def test_segmentation_of_a_slide_is_its_mask_and_place(model, slide, tmp_path, monkeypatch, most):
    monkeypatch.setattr(dicom_seg, "_SEG_PIXELS", most)
    result = run_slide(SlideJob(str(slide), "one"), model, tmp_path, ("tiff", "dicom"), core=128)
    assert result.failure is None
    folder, every = tmp_path / "slides" / "one", 1 if most > 8_000 else 3
    mask = tifffile.imread(folder / "mask.tif", key=0) > 0
    assert mask.shape == (181, 269)
    assert 0.05 < mask.mean() < 0.95
    found = seg.segread(folder / "mask.dcm")
    matrix = found.get_total_pixel_matrix(combine_segments=True)
    assert np.array_equal(matrix > 0, mask[every // 2 :: every, every // 2 :: every])
    measures = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    size = [MPP / 1000 * n / m * every for n, m in zip((HEIGHT, WIDTH), mask.shape, strict=True)]
    assert [float(one) for one in measures.PixelSpacing] == pytest.approx(size)
    origin = found.TotalPixelMatrixOriginSequence[0]
    assert (origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem) == (20, 30)
    assert (found.PatientID, found.StudyID) == ("P-17", "S5")
    assert found.FrameOfReferenceUID == "1.2.3.4"
    (referred,) = found.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    source = dicom_seg.dcmread(slide.with_name("b.dcm"))
    assert referred.ReferencedSOPInstanceUID == source.SOPInstanceUID, "of the finest level"


def test_slide_of_another_format_is_refused_before_it_is_read(model, tmp_path, monkeypatch):
    path = write_slide_file(tmp_path / "one.tiff", tissue_image(100, 130), MPP)
    monkeypatch.setattr("glas_wsol.cohorts.slide_jobs.localize_slide", None)
    failure = run_slide(SlideJob(str(path), "one"), model, tmp_path / "out", ("dicom",)).failure
    assert failure is not None
    assert failure.what == "this slide is not DICOM, which a segmentation could refer to"
    assert failure.fix == "leave dicom out of --formats, or convert the slide to DICOM"
