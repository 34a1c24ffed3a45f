# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""DICOM images become what a viewer shows: rows first, of the right brightness; what is ambiguous is refused."""

from __future__ import annotations

import numpy as np
import pytest
from monai.data import decollate_batch, list_data_collate
from monai.transforms import LoadImaged
from pydicom import Dataset
from pydicom.pixels import convert_color_space

from glas_wsol.errors import ImageFileError
from glas_wsol.transforms import read_mask, read_rgb
from glas_wsol.transforms.reading import mpp_of_metadata
from glas_wsol.transforms.reading.dicom import dicom_pixel_size, is_dicom
from tests.dicoms import H, W, dicom, rgb, save


def grey(dtype=np.uint8) -> np.ndarray:
    rows, columns = np.mgrid[:H, :W]
    return (rows * 4 + columns).astype(dtype)


def three(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def at(row: int, column: int) -> dict[str, list[Dataset]]:
    """The functional groups of a frame that begins there in the total pixel matrix."""
    place, group = Dataset(), Dataset()
    place.RowPositionInTotalImagePixelMatrix, place.ColumnPositionInTotalImagePixelMatrix = row, column
    group.PlanePositionSlideSequence = [place]
    return {"PerFrameFunctionalGroupsSequence": [group]}


def test_dicom_rgb_any_name_is_read_by_monai_loader(tmp_path):
    load = LoadImaged("image", reader="glas_wsol.transforms.TileReader", mode="rgb", dtype=np.uint8)
    for name in ("a.dcm", "b", "c.png"):
        loaded = load({"image": save(tmp_path / name, dicom(rgb()))})["image"]
        np.testing.assert_array_equal(loaded.numpy(), rgb().transpose(2, 0, 1))


def test_colours_are_converted(tmp_path):
    ybr = convert_color_space(rgb(), "RGB", "YBR_FULL")
    read = read_rgb(save(tmp_path / "a.dcm", dicom(ybr, "YBR_FULL")))
    assert np.abs(read.astype(int) - rgb()).max() <= 2  # of rounding
    planes = dicom(rgb(), PlanarConfiguration=1)
    planes.PixelData = rgb().transpose(2, 0, 1).tobytes()
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "b.dcm", planes)), rgb())
    deep = dicom(rgb().astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "c.dcm", deep)), rgb())


def test_a_palette_is_looked_up(tmp_path):
    image = dicom(grey() % 4, "PALETTE COLOR")
    shades = {"Red": (0, 10, 20, 30), "Green": (40, 50, 60, 70), "Blue": (255, 5, 6, 7)}
    for name, values in shades.items():
        setattr(image, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 8])
        setattr(image, f"{name}PaletteColorLookupTableData", bytes(values))
    read = read_rgb(save(tmp_path / "a.dcm", image))
    np.testing.assert_array_equal(read, np.stack([np.array(v)[grey() % 4] for v in shades.values()], -1))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.dcm"), grey() % 4)


def test_dicom_grey_is_scaled_and_monochrome1_inverted(tmp_path):
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "a.dcm", dicom(grey(), "MONOCHROME2"))), three(grey()))
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "b.dcm", dicom(grey(), "MONOCHROME1"))), three(255 - grey()))
    twelve = dicom(grey(np.uint16) * 16, "MONOCHROME2", BitsStored=12)
    expected = three(np.rint(grey(np.uint16) * 16 / 4095 * 255))
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "c.dcm", twelve)), expected)


def test_a_window_says_what_is_black_and_white(tmp_path):
    # from 10 to 60 after the look-up 2 v - 100, as PS3.3 C.11.2.1.2.1 says: ((x - (c - 0.5)) / (w - 1) + 0.5) 255
    stored = grey(np.int16)
    image = dicom(stored, "MONOCHROME2", RescaleSlope=2, RescaleIntercept=-100, WindowCenter=35.5, WindowWidth=51)
    expected = (((2.0 * stored - 100) - 35) / 50 + 0.5).clip(0, 1) * 255
    read = read_rgb(save(tmp_path / "a.dcm", image)).astype(float)
    assert np.abs(read - np.repeat(expected[..., None], 3, 2)).max() <= 0.51
    assert read.min() == 0
    assert read.max() == 255


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (dicom(grey(np.int16), "MONOCHROME2"), "without a window.*set a window"),
        (dicom(rgb(), NumberOfFrames=2), "2 frames in one DICOM file.*export one frame"),
        (dicom(rgb(), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"), "a DICOM Segmentation is no picture"),
        (dicom(rgb(), "HSV"), "photometric interpretation 'HSV' of type uint8 is not known"),
        (dicom(rgb(), "YBR_PARTIAL_420"), "'YBR_PARTIAL_420' of type uint8 is not known"),
        (dicom(rgb(), "YBR_ICT"), "'YBR_ICT' of type uint8 is not known"),
        (dicom(rgb().astype(np.int16)), "'RGB' of type int16 is not known"),
        (dicom(rgb(), TotalPixelMatrixRows=9, TotalPixelMatrixColumns=9, **at(10, 1)), "row 10 of a total pixel mat"),
        (dicom(grey(), "XYZ"), "cannot be decoded.*Photometric Interpretation"),
        (dicom(rgb(), Rows=H + 1), "cannot be decoded"),
    ],
)
def test_what_is_no_tile_is_refused_in_one_line(tmp_path, image, message):
    with pytest.raises(ImageFileError, match=message) as caught:
        read_rgb(save(tmp_path / "a.dcm", image))
    assert "a.dcm" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("more", [{}, at(1, 1), at(101, 41)])
def test_padding_outside_the_total_pixel_matrix_is_cropped(tmp_path, more):
    row, column = (101, 41) if "101" in str(more) else (1, 1)
    total = {"TotalPixelMatrixRows": row - 1 + 20, "TotalPixelMatrixColumns": column - 1 + 41, **more}
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "a.dcm", dicom(rgb(), **total))), rgb()[:20, :41])
    labels = dicom(grey(), "MONOCHROME2", **total)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "b.dcm", labels)), grey()[:20, :41])
    larger = dicom(rgb(), TotalPixelMatrixRows=H, TotalPixelMatrixColumns=900)
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "c.dcm", larger)), rgb())


def test_bits_beyond_those_stored_are_no_values(tmp_path):
    image = dicom(grey(np.uint16) | 0xF000, "MONOCHROME2", BitsStored=12)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.dcm", image)), grey())
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.dcm"), three(np.rint(grey() / 4095 * 255)))


def test_the_size_of_a_pixel_is_in_the_metadata(tmp_path):
    load = LoadImaged("image", reader="glas_wsol.transforms.TileReader", mode="rgb", dtype=np.uint8)
    known, unknown = dicom(rgb(), PixelSpacing=[0.0005, 0.000504]), dicom(rgb())
    items = [load({"image": save(tmp_path / f"{n}.dcm", image)}) for n, image in enumerate((known, unknown))]
    assert [mpp_of_metadata(item["image"].meta) for item in items] == [(0.504, 0.5), None]
    batch = decollate_batch(list_data_collate(items))  # as a loader and an engine do
    assert [mpp_of_metadata(item["image"].meta) for item in batch] == [(0.504, 0.5), None]
    assert mpp_of_metadata({}) is None


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path):
    image = dicom(rgb(), Rows=60000, Columns=60000)
    with pytest.raises(ImageFileError, match=r"more than the budget.*max_pixels=3600000000"):
        read_rgb(save(tmp_path / "a.dcm", image))


def test_a_file_without_an_image_and_a_truncated_one_are_refused(tmp_path):
    report = dicom(rgb())
    del report.PixelData, report.Rows
    with pytest.raises(ImageFileError, match="without an image"):
        read_rgb(save(tmp_path / "a.dcm", report))
    whole = save(tmp_path / "b.dcm", dicom(rgb())).read_bytes()
    for share in (0.05, 0.5, 0.99):
        (tmp_path / "c.dcm").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ImageFileError):
            read_rgb(tmp_path / "c.dcm")


def test_labels_are_the_values_stored(tmp_path):
    image = dicom(grey(np.uint16), "MONOCHROME2", RescaleSlope=2, RescaleIntercept=5)
    read = read_mask(save(tmp_path / "a.dcm", image))
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, grey())
    for bad in (dicom(rgb()), dicom(grey(np.int16) - 9, "MONOCHROME2")):
        with pytest.raises(ImageFileError, match="are no labels"):
            read_mask(save(tmp_path / "b.dcm", bad))


def test_the_size_of_a_pixel_is_width_and_height_in_micrometres(tmp_path):
    def size(**more):
        return dicom_pixel_size(save(tmp_path / "a.dcm", dicom(rgb(), **more)))

    assert size(PixelSpacing=[0.0005, 0.00025]) == (0.25, 0.5)  # DICOM says the rows' distance first, in mm
    assert size(NominalScannedPixelSpacing=[0.002, 0.001]) == (1, 2)
    measures, group = Dataset(), Dataset()
    measures.PixelSpacing, group.PixelMeasuresSequence = [0.004, 0.003], [measures]
    assert size(SharedFunctionalGroupsSequence=[group]) == (3, 4)
    assert size() is None
    assert size(PixelSpacing=[0, 0.001]) is None


def test_other_files_have_no_pixel_size(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    for path in (tmp_path / "a.png", tmp_path / "nowhere", tmp_path, ""):
        assert not is_dicom(path)
        assert dicom_pixel_size(path) is None
