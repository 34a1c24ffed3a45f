# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The record of what a model learnt from; the phantom is known by its folder, whoever lists its images."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glas_wsol.data import list_images, load_datalist, training_data, training_mpp
from glas_wsol.data.phantom.birds import write_bird_phantom
from glas_wsol.data.phantom.folder import phantom_kind
from glas_wsol.data.phantom.tissue import write_tissue_phantom
from glas_wsol.errors import DatalistError
from tests.dicoms import dicom, rgb, save


@pytest.fixture(scope="module")
def tissue(tmp_path_factory) -> Path:
    return write_tissue_phantom(tmp_path_factory.mktemp("t") / "GlaS", train=20, test=4, size=(64, 90), workers=1)


def table(path: Path, images: list[Path], **columns: list[str]) -> Path:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "label", *columns])
        for n, image in enumerate(images):
            rows.writerow([image, "ab"[n % 2], *(values[n] for values in columns.values())])
    return path


def test_training_data_of_the_phantom_is_synthetic(tissue):
    datalist = load_datalist(tissue, fold="stratified-0")
    assert datalist.name == "phantom (synthetic tissue)"
    assert "phantom (synthetic tissue)" in datalist.summary()
    assert training_data(datalist) == {
        "name": "phantom (synthetic tissue)",
        "synthetic": "tissue",
        "images": 16,
        "patients": None,
        "mpp": pytest.approx([0.62, 0.62], rel=1e-5),
        "source": "",
    }
    assert json.loads(json.dumps(training_data(pickle.loads(pickle.dumps(datalist))))) == training_data(datalist)  # noqa: S301


def test_bird_phantom_is_called_synthetic_birds(tmp_path):
    folder = write_bird_phantom(tmp_path / "CUB_200_2011", train=25, test=5, size=(48, 64), workers=1)
    datalist = load_datalist(folder, fold="stratified-0")
    assert (datalist.name, datalist.synthetic) == ("phantom (synthetic birds)", "birds")


def test_table_elsewhere_that_lists_the_phantom_says_so(tissue, tmp_path):
    images = sorted(tissue.glob("train_*[0-9].bmp"))
    datalist = load_datalist(table(tmp_path / "mine.csv", images))
    assert (datalist.name, datalist.synthetic) == ("phantom (synthetic tissue)", "tissue")


def test_damaged_manifest_still_marks_a_phantom(tmp_path):
    (tmp_path / "phantom.json").write_text("{")
    assert phantom_kind(tmp_path / "images" / "a") == "images"
    assert phantom_kind(tmp_path.parent) == ""


def test_training_data_counts_images_patients_and_pixel_size(tmp_path):
    images = []
    for n in range(12):
        made = dicom(rgb(8, 12))
        made.PixelSpacing = ["0.0005", "0.0005"]
        images.append(save(tmp_path / f"{n}.dcm", made))
    cases = [f"p{n // 4}{n % 2}" for n in range(12)]
    places = [f"Laboratory {'BA'[n // 4 % 2]}" for n in range(12)]
    path = table(tmp_path / "cases.csv", images, group=cases, source=places)
    record = training_data(load_datalist(path, fold="patient-0"))
    kept = {"name": "cases.csv", "synthetic": "", "mpp": [0.5, 0.5], "source": "Laboratory A, Laboratory B"}
    assert {key: record[key] for key in kept} == kept
    assert 0 < record["patients"] < 6
    assert 0 < record["images"] < 12


def test_pixel_size_that_differs_is_not_recorded(tmp_path):
    images = [tmp_path / f"{n}.png" for n in range(10)]
    for image in images:
        Image.fromarray(np.zeros((5, 8, 3), np.uint8)).save(image)
    made = dicom(rgb(8, 12))
    made.PixelSpacing = ["0.0005", "0.0005"]
    images += [save(tmp_path / f"{n}.dcm", made) for n in range(10, 20)]
    record = training_data(load_datalist(table(tmp_path / "mixed.csv", images)))
    assert (record["mpp"], record["patients"]) == (None, None)


def tiles(folder: Path, sizes: list[float | None]) -> list[Path]:
    """Non-square PNG tiles, each with its micrometres per pixel or none."""
    paths = [folder / f"{n}.png" for n in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        more = {} if size is None else {"dpi": (25400 / size,) * 2}
        Image.fromarray(np.zeros((5, 8, 3), np.uint8)).save(path, **more)
    return paths


def test_training_mpp_is_the_images_own_where_all_agree(tmp_path):
    datalist = load_datalist(table(tmp_path / "a.csv", tiles(tmp_path, [0.5, 0.502] * 10)))
    found, said = training_mpp(datalist)
    assert (found, said) == (pytest.approx(0.5, rel=0.005), [])
    assert training_mpp(datalist, 1.0) == (1.0, [])


def test_training_mpp_of_a_table_counts_before_the_files(tmp_path):
    images = tiles(tmp_path, [0.25] * 10 + [352.8] * 10)
    datalist = load_datalist(table(tmp_path / "a.csv", images, mpp=["0,31", "0.31"] * 10))
    assert training_mpp(datalist) == (0.31, [])
    assert all(item["mpp"] == 0.31 for item in datalist.select("valid"))
    assert training_data(datalist)["mpp"] == [0.31, 0.31]


def test_training_mpp_of_differing_images_is_none_and_said(tmp_path):
    datalist = load_datalist(table(tmp_path / "a.csv", tiles(tmp_path, [0.25, 0.5] * 10)))
    found, (said,) = training_mpp(datalist)
    assert found is None
    assert "the pixel sizes of training images differ" in said
    assert training_mpp(datalist, 0.5) == (0.5, [])


def test_training_mpp_of_unknown_images_is_refused_by_name(tmp_path):
    datalist = load_datalist(table(tmp_path / "a.csv", tiles(tmp_path, [0.5, None, 352.8, 0.5] * 5)))
    found, said = training_mpp(datalist)
    assert found is None
    assert [one.partition(":")[0] for one in said] == [
        "pixel sizes in files are not believed",
        "the pixel sizes of training images are known of 7 of 16 only",
    ]
    with pytest.raises(DatalistError, match=r"mpp=0\.5, and 9 of 16 training images have no known pixel size.*mpp"):
        training_mpp(datalist, 0.5)


def test_table_with_impossible_mpp_is_a_fault(tmp_path):
    images = tiles(tmp_path, [None] * 20)
    path = table(tmp_path / "a.csv", images, mpp=["0.5", "72", "half", ""] * 5)
    with pytest.raises(DatalistError, match=r"line 3: mpp '72' is no number of micrometres per pixel from 0.05 to 20"):
        load_datalist(path)
    with pytest.raises(DatalistError, match=r"line 4: mpp 'half'"):
        list_images(path)


def test_list_of_images_has_the_mpp_of_its_table(tmp_path):
    images = tiles(tmp_path, [None, None])
    (tmp_path / "a.csv").write_text(f"image;um per pixel\n{images[0].name};0,25\n{images[1].name};\n")
    assert [item.get("mpp") for item in list_images(tmp_path / "a.csv")[0]] == [0.25, None]


def test_glas_itself_has_062_where_its_files_say_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("glas_wsol.data.glas._name", lambda train, root: "GlaS")
    folder = write_tissue_phantom(tmp_path / "GlaS", train=12, test=2, size=(64, 90), scale=2.0, workers=1)
    (folder / "phantom.json").unlink()
    Image.open(folder / "train_1.bmp").copy().save(folder / "train_1.bmp", dpi=(96, 96))
    datalist = load_datalist(folder, fold="stratified-0")
    items = [item for split in datalist.splits for item in datalist.select(split)]
    assert {item["name"]: item["mpp"] for item in items if "mpp" in item} == {"train_1": 0.62}
