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

from glas_wsol.data import load_datalist, training_data
from glas_wsol.data.phantom.birds import write_bird_phantom
from glas_wsol.data.phantom.folder import phantom_kind
from glas_wsol.data.phantom.tissue import write_tissue_phantom
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
        "mpp": None,
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
        made.PixelSpacing = ["0.0005", "0.00025"]
        images.append(save(tmp_path / f"{n}.dcm", made))
    cases = [f"p{n // 4}{n % 2}" for n in range(12)]
    places = [f"Laboratory {'BA'[n // 4 % 2]}" for n in range(12)]
    path = table(tmp_path / "cases.csv", images, group=cases, source=places)
    record = training_data(load_datalist(path, fold="patient-0"))
    kept = {"name": "cases.csv", "synthetic": "", "mpp": [0.25, 0.5], "source": "Laboratory A, Laboratory B"}
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
