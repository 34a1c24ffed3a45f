# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The model and the sample tiles that come with the tissue bundle."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import glas_wsol
from glas_wsol.__main__ import main
from glas_wsol.bundle.export import export_bundle
from glas_wsol.errors import WeightsError
from glas_wsol.loading import Localizer, ModelSource
from glas_wsol.utils.shipped_bundles import bundle_folder, sample_table

BUNDLE = bundle_folder("glas")
CARD = json.loads((BUNDLE / "models" / "model.json").read_text())


@pytest.fixture(scope="module")
def localize() -> Localizer:
    return glas_wsol.load(device="cpu")


def sample_rows() -> list[dict[str, str]]:
    with sample_table().open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def f1(found: np.ndarray, truth: np.ndarray) -> float:
    return 2 * float((found & truth).sum()) / float(found.sum() + truth.sum())


def test_three_lines_localize_a_tile_anywhere_and_say_nothing_else(tmp_path):
    lines = [
        "import glas_wsol",
        "found = glas_wsol.load()(glas_wsol.samples()[0])",
        "glas_wsol.save(found, 'MASKS', ['png', 'geojson'])",
    ]
    (tmp_path / "glas").mkdir()  # a folder of data with the bundle's name is no model
    command = [sys.executable, "-c", "\n".join(lines)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")
    mask = np.asarray(Image.open(tmp_path / "MASKS" / "masks" / "adenocarcinoma_1.png"))
    assert mask.shape == (224, 224)
    assert set(np.unique(mask)) == {0, 255}
    outlines = json.loads((tmp_path / "MASKS" / "geojson" / "adenocarcinoma_1.geojson").read_text())
    assert outlines["features"]


def test_the_samples_are_found_and_named(localize):
    found = {path.stem: localize(path) for path in glas_wsol.samples()}
    rows = {Path(row["image"]).stem: row for row in sample_rows()}
    assert found.keys() == rows.keys()
    named = {name: one.class_name for name, one in found.items()}
    assert sum(named[name] == row["label"] for name, row in rows.items()) >= 5
    scores = []
    for name, one in found.items():
        assert one.mpp == pytest.approx((1.5, 1.5), rel=1e-3), "the file says how large its pixels are"
        truth = np.asarray(Image.open(sample_table().parent / rows[name]["mask"]).convert("L")) > 0
        scores.append((f1(one.mask > 0, truth) + f1(one.mask == 0, ~truth)) / 2)
    assert np.mean(scores) > 0.7, "a mask of ones has 0.35"


def test_the_card_is_that_of_these_weights():
    digest = hashlib.sha256((BUNDLE / "models" / "model.pt").read_bytes()).hexdigest()
    assert CARD["sha256"] == digest
    assert digest in (BUNDLE / "docs" / "weights_license.txt").read_text(), "the terms say for which weights they are"
    assert CARD["local"] is True
    assert (BUNDLE / "models" / "model.pt").stat().st_size <= 14.7e6
    figures = json.loads((BUNDLE / "configs" / "metadata.json").read_text())["eval_metrics"]
    assert {name.split("_")[-3] for name in figures} == {"glas", "ebhi"}
    assert all(0 <= value <= 1 for value in figures.values())
    assert "/" not in json.dumps(CARD["training_data"]), "no path of the machine that trained it"


def test_a_bundle_is_exported_with_its_own_model_and_figures(tmp_path):
    copy = export_bundle(BUNDLE, tmp_path)
    assert (copy / "models" / "model.pt").read_bytes() == (BUNDLE / "models" / "model.pt").read_bytes()
    assert json.loads((copy / "configs" / "metadata.json").read_text())["eval_metrics"]


def test_figures_of_the_shipped_model_go_with_no_other(tmp_path):
    other = tmp_path / "model.pt"
    other.write_bytes(b"weights of another training")
    copy = export_bundle(BUNDLE, tmp_path / "dist", other)
    assert json.loads((copy / "configs" / "metadata.json").read_text())["eval_metrics"] == {}


def test_a_bundle_without_a_model_is_refused_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="no trained model"):
        ModelSource(Path("cub"))


def test_samples_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # put back what a run changes
    assert main(["predict", "samples", "--output", "MASKS", "--no-overlays"]) == 0
    assert "6 of 6 images are done" in capsys.readouterr().out
    with (tmp_path / "MASKS" / "predictions.csv").open(newline="") as file:
        assert {row["name"] for row in csv.DictReader(file)} == {path.stem for path in glas_wsol.samples()}
