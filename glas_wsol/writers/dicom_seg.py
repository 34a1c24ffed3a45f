# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes the mask as a DICOM Segmentation that refers to its image; needs the package highdicom."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from glas_wsol.errors import ConfigError, ImageFileError
from glas_wsol.results.how_to_read import familiarity_in_words
from glas_wsol.results.localization import Localization
from glas_wsol.results.slide_localization import SlideLocalization
from glas_wsol.transforms.reading.dicom import is_dicom
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.version import __version__

__all__ = ["check_slide_is_dicom", "require_highdicom", "secondary_capture", "write_dicom_seg", "write_slide_seg"]

_LONG_STRING = 64  # characters of this kind of value
_SEG_TILE, _SEG_PIXELS = 512, 64_000_000  # px, of a slide
_EMPTY_IF_ABSENT = (  # type 2: present in every image, empty where nothing is known
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)


def require_highdicom() -> None:
    """Refuse to write DICOM Segmentations, by a ConfigError, if highdicom is not installed."""
    if not optional_import("highdicom")[1]:
        fix = "install it with `pip install highdicom`, or leave out dicom"
        raise ConfigError("the package highdicom is missing, which writes dicom", "formats", fix)


def write_dicom_seg(path: str | PathLike[str], image_path: str | PathLike[str], found: Localization) -> bool:
    """Write the mask as a binary DICOM Segmentation of one segment, the decidable region.

    Made from a DICOM file, it belongs to that file's patient and study, refers to its image and copies what it says of
    space; where it says nothing of space, the size of a pixel is the result's. Any other image has no DICOM object to
    refer to: it is written too, as a Secondary Capture image in a new study with nothing in it about a patient. Every
    call makes new instances, with UIDs and the time of their own.

    The segment is labelled with the class named; its type is no anatomy but "Selected region", a concept of space:
    that pixels decided is all that is known of them.

    Args:
        image_path: the Secondary Capture image, where one is needed.
        found: the result; ``path`` is its image's file. Its ``image`` and ``mpp`` are read where that is no DICOM file.

    Returns:
        Whether ``image_path`` was written.

    Raises:
        ConfigError: if highdicom is not installed.
        ImageFileError: if the image's DICOM file lacks what a reference to it needs, or there is neither such a file
            nor the image itself.
        OutputError: where a file cannot be written.
    """
    require_highdicom()
    alone = not is_dicom(found.path)
    if alone and found.image is None:
        fix = "keep the image in the result, or leave dicom out of formats"
        raise ImageFileError("there is no image that a segmentation could refer to", found.path or found.name, fix)
    source = secondary_capture(found.image, found.mpp) if alone and found.image is not None else _header(found.path)
    try:
        with _quiet():
            segmentation = _segmentation(found, source)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # highdicom's words for an incomplete header
        what, fix = f"its DICOM header allows no segmentation ({error})", "correct it, or leave dicom out of formats"
        raise ImageFileError(what, found.path or found.name, fix) from error
    if alone:
        _save(image_path, source)
    _save(path, segmentation)
    return alone


def secondary_capture(image: np.ndarray, pixel_size: tuple[float, float] | None = None) -> Dataset:
    """An image as a DICOM Secondary Capture, in a study and a series of its own, about nobody.

    Args:
        image: ``[H, W, 3]`` uint8.
        pixel_size: width and height of a pixel in micrometres; None where unknown.
    """
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    for name in _EMPTY_IF_ABSENT:
        setattr(made, name, None)
    made.Modality, made.SeriesNumber, made.InstanceNumber = "OT", 1, 1
    made.Manufacturer, made.ConversionType, made.PatientOrientation, made.Laterality = "", "WSD", None, None
    made.Rows, made.Columns, made.SamplesPerPixel = *image.shape[:2], 3
    made.PhotometricInterpretation, made.PlanarConfiguration = "RGB", 0
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    if pixel_size is not None:
        made.NominalScannedPixelSpacing = [side / 1000 for side in reversed(pixel_size)]  # rows first, mm
    data = np.ascontiguousarray(image).tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    made["PixelData"].VR = "OB"
    return made


def _header(path: str) -> Dataset:
    header = dcmread(path, stop_before_pixels=True)
    for name in _EMPTY_IF_ABSENT:
        if name not in header:
            setattr(header, name, None)
    if header.get("SliceThickness") is None and "PixelSpacing" in header:  # readers want both or none
        if {"FrameOfReferenceUID", "ImageOrientationPatient"} <= set(header.dir()):
            what = "it has a place in the patient and no SliceThickness, without which no segmentation is read"
            raise ImageFileError(what, path, "add SliceThickness (in mm) to its header, or leave dicom out of formats")
        del header.PixelSpacing  # the image referred to has it
    return header


@contextmanager
def _quiet() -> Iterator[None]:
    """Highdicom logs every module that it copies, some ten lines per image."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _segmentation(found: Localization, source: Dataset) -> Any:
    highdicom, _ = optional_import("highdicom")
    # the frame of a slide may be larger than the slide's pixels, which alone were read: none of the others is decidable
    height, width = found.mask.shape
    mask = np.pad(found.mask.astype(np.uint8), ((0, source.Rows - height), (0, source.Columns - width)))
    measures = None
    if found.mpp is not None and not {"ImageOrientationPatient", "ImageOrientationSlide"} & set(source.dir()):
        width, height = (side / 1000 for side in found.mpp)  # mm; as in NIfTI, the slice is as thick as a pixel is wide
        measures = highdicom.PixelMeasuresSequence(pixel_spacing=(height, width), slice_thickness=width)
    label = found.predicted if found.named else "Decidable"
    made = _made(source, mask[None], label, _said(found), found, omit_empty_frames=False, pixel_measures=measures)
    if "ImageOrientationPatient" not in source:  # required then, and empty where it is not known
        made.PatientOrientation = source.get("PatientOrientation")
    return made


def _made(
    source: Dataset, mask: np.ndarray, label: str, said: str, found: Localization | SlideLocalization, **more: Any
) -> Any:
    """A segmentation of one segment; ``mask``: ``[1, H, W]`` uint8."""
    seg, _ = optional_import("highdicom.seg")
    highdicom, _ = optional_import("highdicom")
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="glas_wsol", family=codes.cid7162.ArtificialIntelligence, version=__version__
    )
    segment = seg.SegmentDescription(
        segment_number=1,
        segment_label=label[:_LONG_STRING],
        segmented_property_category=codes.cid7150.SpatialAndRelationalConcept,
        segmented_property_type=codes.DCM.SelectedRegion,
        algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
    # not an argument of highdicom's: a Short Text, which viewers show beside the label
    segment.SegmentDescription = said
    return seg.Segmentation(
        source_images=[source],
        pixel_array=mask,
        segmentation_type=seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="glas_wsol",
        manufacturer_model_name="glas_wsol",
        software_versions=__version__,
        device_serial_number="none",
        content_label="DECIDABLE",
        content_description=f"Pixels that decided, R+ at least {found.threshold:g}",
        series_description=f"Decidable region, {found.trained_on}"[:_LONG_STRING],
        **more,
    )


def write_slide_seg(path: str | PathLike[str], found: SlideLocalization) -> None:
    """Write the mask of a DICOM slide as a Segmentation in tiles, which refers to the slide's finest level.

    It has the pixels of the mask; of a mask of more than 64 million pixels every third, fifth, ...: the file is made in
    memory. Tiles without a decidable pixel are left out.

    Raises:
        ConfigError: if highdicom is not installed.
        ImageFileError: if the slide is not DICOM, or its header lacks what a reference to it needs.
        OutputError: where the file cannot be written.
    """
    check_slide_is_dicom(found.path)
    highdicom, _ = optional_import("highdicom")
    source = _finest_level(Path(found.path))
    every = math.ceil(math.sqrt(found.size[0] * found.size[1] / _SEG_PIXELS))
    every += 1 - every % 2  # odd, so that the middle one of them stands for all
    mask = np.asarray(found.mask[every // 2 :: every, every // 2 :: every]).astype(np.uint8)
    # exactly, so that the mask ends where the slide does
    spacing = source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    rows, columns = (float(one) * step * every for one, step in zip(spacing, reversed(found.step), strict=True))
    try:
        with _quiet():
            made = _made(
                source,
                mask[None],
                "Decidable",
                ". ".join(filter(None, (found.trained_on, found.reason)))[:1024],
                found,
                tile_pixel_array=True,
                tile_size=(_SEG_TILE, _SEG_TILE),
                dimension_organization_type="TILED_SPARSE",
                omit_empty_frames=True,
                pixel_measures=highdicom.PixelMeasuresSequence((rows, columns), _thickness(source)),
            )
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:  # of an incomplete header
        what, fix = f"its DICOM header allows no segmentation ({error})", "correct it, or leave dicom out of --formats"
        raise ImageFileError(what, found.path, fix) from error
    _save(path, made)


def check_slide_is_dicom(path: str | PathLike[str]) -> None:
    """Refuse a slide that a segmentation cannot refer to, by an ImageFileError."""
    require_highdicom()
    if not is_dicom(path):
        fix = "leave dicom out of --formats, or convert the slide to DICOM"
        raise ImageFileError("this slide is not DICOM, which a segmentation could refer to", path, fix)


def _thickness(source: Dataset) -> float:
    return float(source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness)


def _finest_level(path: Path) -> Dataset:
    """The header of the largest image of a slide's series, whose files lie in one folder."""
    own = dcmread(path, stop_before_pixels=True)
    levels = [own]
    for other in sorted(path.parent.iterdir()):
        if other != path and other.is_file() and is_dicom(other):
            header = dcmread(other, stop_before_pixels=True)
            if header.get("SeriesInstanceUID") == own.SeriesInstanceUID and "VOLUME" in header.get("ImageType", ()):
                levels.append(header)
    return max(levels, key=lambda one: one.get("TotalPixelMatrixColumns", 0))


def _said(found: Localization) -> str:
    """Remarks on the model and the result, within a Short Text."""
    alarm = found.provenance.alarm if found.provenance else None
    strange = familiarity_in_words(found.familiarity) if found.unlike_training else ""
    parts = (found.trained_on, strange, "" if alarm is None else str(alarm), found.remark, found.pixel_size_remark)
    return ". ".join(filter(None, parts))[:1024]


def _save(path: str | PathLike[str], dataset: Dataset) -> None:
    with atomic_write(Path(path)) as file:
        dataset.save_as(file, enforce_file_format=True)
