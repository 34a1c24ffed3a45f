# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""DICOM images made by hand, with a patient to be kept and pixels that no turn leaves as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

H, W = 33, 58


def rgb(height: int = H, width: int = W) -> np.ndarray:
    """``[H, W, 3]`` uint8, different along both axes and in every channel."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 5, columns * 4, 255 - rows * 3 - columns * 2], axis=-1).astype(np.uint8)


def dicom(pixels: np.ndarray, photometric: str = "RGB", **more) -> Dataset:
    """A secondary capture image of some patient; the bits stored are all there are."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.PatientID, image.PatientName, image.PatientBirthDate, image.PatientSex = "P-17", "Doe^Jane", "19700102", "F"
    image.StudyID, image.StudyDate, image.StudyTime, image.AccessionNumber = "S5", "20260102", "101112", "A9"
    image.ReferringPhysicianName = "Roe^Richard"
    image.Modality, image.SeriesNumber, image.InstanceNumber, image.ConversionType = "OT", 3, 4, "WSD"
    image.Manufacturer, image.PatientOrientation = "", ""
    image.Rows, image.Columns = pixels.shape[:2]
    image.SamplesPerPixel, image.PhotometricInterpretation = (1 if pixels.ndim == 2 else 3), photometric
    if pixels.ndim == 3:
        image.PlanarConfiguration = 0
    image.BitsAllocated = image.BitsStored = 8 * pixels.itemsize
    image.HighBit, image.PixelRepresentation = image.BitsStored - 1, int(pixels.dtype.kind == "i")
    for name, value in more.items():
        setattr(image, name, value)
    image.HighBit = image.BitsStored - 1
    data = pixels.tobytes()
    image.PixelData = data + b"\0" * (len(data) % 2)
    image["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    return image


def save(path: Path, image: Dataset) -> Path:
    image.save_as(path, enforce_file_format=True)
    return path
