# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Inference on tiles and DICOM images by the bundles, in all formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from glas_wsol.errors import ConfigError, IncompleteError
from glas_wsol.transforms import read_mask
from glas_wsol.writers.formats import FORMATS
from tests.bundles.conftest import Run, config, own_error, workflow
from tests.dicoms import dicom, save

pytestmark = pytest.mark.slow


def infer(trained: Run, folder: Path, **override) -> list[dict]:
    settings = {"bundle_root": trained.settings["bundle_root"], "checkpoint": str(trained.model), "device": "cpu"}
    files = [config(trained.bundle, "inference")]
    paths = {"dataset_dir": str(folder / "tiles"), "output_dir": str(folder / "out")}
    workflow("inference", files, **settings, **paths, **override).run()
    return json.loads((folder / "out" / "predictions.json").read_text(encoding="utf-8"))


def tiles(folder: Path) -> np.ndarray:
    """The same tissue-coloured tile as PNG and as DICOM."""
    (folder / "tiles").mkdir()
    blocks = np.random.default_rng(0).integers(0, 60, (9, 13, 1)) + np.array([150, 60, 120])
    pixels = blocks.repeat(8, 0).repeat(8, 1).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "tiles" / "a.png")
    save(folder / "tiles" / "b.dcm", dicom(pixels, PixelSpacing=[0.0031, 0.0031]))  # as the phantom has
    return pixels


def test_formats_dicom_image_and_same_tile_give_same_result(trained, tmp_path):
    pytest.importorskip("highdicom")
    tiles(tmp_path)
    first, second = infer(trained, tmp_path, formats=[*FORMATS])
    assert [first["mpp"], second["mpp"]] == [None, [3.1, 3.1]]
    assert all((tmp_path / "out" / file).is_file() for entry in (first, second) for file in entry["files"])
    own = {"path", "name", "mpp", "assumed_mpp", "pixel_size", "files", "decidable_um2", "boxes", "glands"}
    assert {k: v for k, v in first.items() if k not in own} == {k: v for k, v in second.items() if k not in own}
    assert first["decidable_um2"] is None
    assert second["decidable_um2"] == pytest.approx(second["decidable_px"] * 9.61)
    areas = [{k: v for k, v in box.items() if k != "area_um2"} for box in second["boxes"]]
    assert [{k: v for k, v in box.items() if k != "area_um2"} for box in first["boxes"]] == areas
    assert first["class_scores"]["decidable"]["probabilities"] == first["probabilities"]
    assert 0 <= first["class_scores"]["undecidable"]["normalised_entropy"] <= 1
    masks = [read_mask(tmp_path / "out" / "masks" / f"{name}.png") for name in "ab"]  # their resolutions differ
    np.testing.assert_array_equal(*masks)
    read = pydicom.dcmread(tmp_path / "out" / "dicom" / "b_seg.dcm")
    assert read.PatientID == "P-17"
    assert "dicom/a_image.dcm" in first["files"]
    assert "dicom/b_image.dcm" not in second["files"]


def test_formats_changed_reruns_images_unchanged_skips_them(trained, tmp_path):
    tiles(tmp_path)
    infer(trained, tmp_path, formats=["geojson"], overlays=False)
    written = tmp_path / "out" / "geojson" / "a.geojson"
    before = written.stat().st_mtime_ns
    infer(trained, tmp_path, formats=["geojson"], overlays=False)
    assert written.stat().st_mtime_ns == before
    entries = infer(trained, tmp_path, formats=["tiff"], mpp=3.1, overlays=False, class_scores="class")
    assert [entry["files"] for entry in entries] == [[f"masks/{n}.tif", f"maps/{n}.tif"] for n in "ab"]
    assert not written.exists()
    for entry in entries:  # C was asked for the class only: it is what C says of the decidable part
        assert entry["class_scores"]["decidable"]["probabilities"] == entry["probabilities"]
        assert entry["class_scores"]["undecidable"] is None


def test_an_image_that_no_segmentation_can_refer_to_fails_alone(trained, tmp_path):
    pytest.importorskip("highdicom")
    nameless = dicom(tiles(tmp_path))
    del nameless.StudyInstanceUID
    save(tmp_path / "tiles" / "c.dcm", nameless)
    with pytest.raises(RuntimeError) as caught:
        infer(trained, tmp_path, formats=["png", "dicom"])
    error = own_error(caught.value)
    assert isinstance(error, IncompleteError)
    assert "1 of 3 images failed" in str(error)
    with (tmp_path / "out" / "failed.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["image"].endswith("c.dcm")
    assert row["stage"] == "write"
    assert "StudyInstanceUID" in row["what"]
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [entry["name"] for entry in entries] == ["a", "b"]
    assert not list((tmp_path / "out").glob("*/c*"))


def test_formats_unknown_one_is_refused_before_writing(trained, tmp_path):
    tiles(tmp_path)
    with pytest.raises(RuntimeError) as caught:
        infer(trained, tmp_path, formats=["geojsn"])
    error = own_error(caught.value)
    assert isinstance(error, ConfigError)
    assert "there is no format 'geojsn' [formats]: did you mean 'geojson'?" in str(error)
    assert list((tmp_path / "out").rglob("*")) == []
