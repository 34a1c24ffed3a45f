# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The package for the BioImage Model Zoo, read by bioimageio.core, and what QuPath reads of it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import glas_wsol
from glas_wsol.bundle.export_targets import export
from glas_wsol.data.phantom.bird_drawing import SPECIES
from glas_wsol.errors import OutputError
from glas_wsol.networks import RefinedNetwork
from tests.bundle.test_export_file import narrow_trunk, write_model  # noqa: F401 - a fixture
from tests.conftest import tiny_network, tiny_trunk


@pytest.fixture(scope="module")
def tissue(tmp_path_factory) -> Path:
    network = RefinedNetwork(tiny_trunk(), 2, base=tiny_network().settings(), seed=0)
    folder = tmp_path_factory.mktemp("model")
    return write_model(folder, network, ["benign", "malignant"], scale=0.5, stain="H&E", mpp=1.24, drop_specks=250)


@pytest.fixture(scope="module")
def package(tissue) -> Path:
    return export(tissue, tissue.parent / "package", "bioimageio")


def rdf_of(package: Path) -> dict:
    return yaml.safe_load((package / "rdf.yaml").read_text(encoding="utf-8"))


def test_bioimageio_core_finds_the_package_valid_and_exact(package):
    core = pytest.importorskip("bioimageio.core")
    summary = core.test_model(package / "rdf.yaml", weight_format="torchscript", devices=["cpu"])
    assert summary.status == "passed", summary.format()


@torch.no_grad()
def test_bioimageio_core_of_another_size_equals_the_eager_model(package, tissue):
    core = pytest.importorskip("bioimageio.core")
    pixels = np.random.default_rng(1).integers(0, 255, (121, 203, 3), np.uint8)
    array = pixels.transpose(2, 0, 1)[None]
    found = core.predict(model=package / "rdf.yaml", inputs={"image": array}).members["prediction"].data
    wanted = glas_wsol.load(tissue, drop_specks=0)(pixels)
    prediction = np.asarray(found)[0]
    np.testing.assert_allclose(prediction.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(1 - prediction[0], wanted.decidable, atol=1e-3)
    mass = prediction[1:].sum(axis=(1, 2))
    np.testing.assert_allclose(mass / mass.sum(), wanted.probabilities, atol=1e-3)


def test_package_says_what_qupaths_reader_needs(package):
    said = rdf_of(package)
    assert all(
        isinstance(said[key], str) for key in ("format_version", "description", "documentation", "license", "name")
    )
    (image,), (prediction,) = said["inputs"], said["outputs"]
    assert [axis["type"] for axis in image["axes"]] == ["batch", "channel", "space", "space"]
    assert image["axes"][2] == {
        "type": "space",
        "id": "y",
        "size": {"min": 64, "step": 1},
        "unit": "micrometer",
        "scale": pytest.approx(0.62),
    }
    assert prediction["axes"][3]["size"] == {"tensor_id": "image", "axis_id": "x", "offset": 0}
    assert prediction["axes"][3]["scale"] == pytest.approx(0.62)
    assert prediction["axes"][1]["channel_names"] == ["undecidable", "benign", "malignant"]
    assert "preprocessing" not in image, "all of it is in the weights"
    assert said["weights"]["torchscript"]["source"].endswith(".pt")
    assert said["authors"] == [{"name": "the glas_wsol authors"}]
    assert "Research only" in said["config"]["glas_wsol"]["intended_use"]


def test_package_shows_synthetic_tissue_twice_as_wide_as_high(package):
    cover = Image.open(package / "cover.png")
    assert cover.width == 2 * cover.height
    assert (package / "cover.png").stat().st_size < 500_000
    left, right = np.split(np.asarray(cover), 2, axis=1)
    assert left.std() > 10
    assert (left != right).any()
    text = (package / "README.md").read_text(encoding="utf-8")
    assert "1. benign\n2. malignant" in text
    assert "0.62 micrometres per pixel" in text
    assert "specks below 1000 px" in text, "250 px of the training resolution"
    assert "GlaS" in (package / "data_license.txt").read_text()


def test_package_of_birds_has_names_that_the_format_allows(tmp_path):
    classes = list(SPECIES)
    model = write_model(tmp_path, tiny_network(num_classes=len(classes)), classes, short_side=80)
    file = export(model, tmp_path / "birds.zip", "bioimageio")
    with zipfile.ZipFile(file) as archive:
        said = yaml.safe_load(archive.read("rdf.yaml"))
        assert {"weights.pt", "test_input.npy", "test_output.npy", "cover.png", "README.md", "LICENSE"} < set(
            archive.namelist()
        )
    names = said["outputs"][0]["axes"][1]["channel_names"]
    assert names[:2] == ["undecidable", "class_019_gray_catbird"]
    assert len(set(names)) == 6
    assert "unit" not in said["inputs"][0]["axes"][2], "the model has no pixel size"
    assert json.dumps(said["config"]["glas_wsol"]["classes"]) == json.dumps(classes)
    pytest.importorskip("bioimageio.spec")
    from bioimageio.spec import load_description_and_validate_format_only

    assert load_description_and_validate_format_only(file).status != "failed"


def test_an_earlier_package_is_replaced_and_a_foreign_folder_not(tissue, tmp_path):
    target = tmp_path / "package"
    export(tissue, target, "bioimageio")
    (target / "stale.txt").write_text("")
    assert export(tissue, target, "bioimageio") == target
    assert not (target / "stale.txt").exists()
    assert [one.name for one in tmp_path.iterdir()] == ["package"]
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "text.txt").write_text("years of work")
    with pytest.raises(OutputError, match="no export of a model"):
        export(tissue, other, "bioimageio")
    assert [one.name for one in other.iterdir()] == ["text.txt"]
