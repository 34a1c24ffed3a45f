# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""`predict` on slides beside tiles: recognised, done, said in the tables, refused in one line."""

from __future__ import annotations

import csv
import importlib.util
import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import glas_wsol
from glas_wsol.__main__ import main
from glas_wsol.errors import ConfigError, ImageFileError
from glas_wsol.handlers import write_model
from glas_wsol.networks import build_network
from glas_wsol.networks.frozen_norm import freeze, measure_statistics
from tests.slides.slide_images import tissue_image, write_slide_file

CARD = {"trunk": "efficientnet_lite0", "classes": ["benign", "malignant"], "scale": 1.0, "short_side": None}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    settings = {"class": "RefinedNetwork", "decoder_width": 8}
    network = build_network(settings, trunk=CARD["trunk"], weights="package", num_classes=2, seed=0).eval()
    freeze(network, measure_statistics(network, [torch.rand(1, 3, 64, 96)]))
    write_model(network, folder, {**CARD, "network": network.settings(), "mpp": 1.0, "stain": "H&E"})
    return folder / "model.pt"


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_slide_file(folder / "slide.svs", tissue_image(190, 260), 1.0)
    write_slide_file(folder / "glass.tif", np.full((100, 130, 3), 244, np.uint8), 1.0)
    write_slide_file(folder / "unknown.tif", tissue_image(100, 130), None)
    Image.fromarray(tissue_image(64, 96)).save(folder / "tile.png")
    return folder


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_folder_of_slides_and_tiles_is_done_and_reported(model, images, tmp_path, capsys):
    words = ["predict", str(images), "--model", str(model), "--output", str(tmp_path / "out"), "--report"]
    assert main(words) == 3
    said = capsys.readouterr()
    out = tmp_path / "out"
    assert [row["name"] for row in rows(out / "predictions.csv")] == ["tile"]
    done = rows(out / "slides.csv")
    assert [(row["name"], row["reason"], row["mpp_from"]) for row in done] == [
        ("glass", "no H&E tissue", "slide"),
        ("slide", "", "slide"),
    ]
    assert float(done[1]["tissue_mm2"]) == pytest.approx(0.0494, rel=0.05)
    (failed,) = rows(out / "failed.csv")
    assert failed["image"].endswith("unknown.tif")
    assert failed["what"] == "the slide does not say the size of its pixels"
    assert "--mpp 0.5" in failed["fix"]
    assert "2 of 3 slides are done (1 show no evidence)" in said.out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(text in page for text in ("mm2 of tissue", "no H&amp;E tissue", "unknown.tif"))
    assert page.count("data:image/jpeg") >= 3
    assert main([*words, "--mpp", "1.0"]) == 0
    assert not (out / "failed.csv").exists()
    assert {row["mpp_from"] for row in rows(out / "slides.csv")} == {"given"}
    capsys.readouterr()
    assert main([*words, "--mpp", "1.0"]) == 0
    assert "3 of 3 slides are done, 3 by an earlier run" in capsys.readouterr().out


def test_table_gives_a_slide_its_pixel_size(model, images, tmp_path):
    table = tmp_path / "cohort.csv"
    table.write_text(f"image,mpp\n{images / 'unknown.tif'},0.8\n")
    out = tmp_path / "out"
    assert main(["predict", str(table), "--model", str(model), "--output", str(out), "--formats", "csv"]) == 0
    (row,) = rows(out / "slides.csv")
    assert (row["mpp"], row["mpp_from"]) == ("0.8", "given")
    entry = json.loads((out / "slides" / "unknown" / "slide.json").read_text(encoding="utf-8"))
    assert (entry["width"], entry["height"], entry["mask_width"], entry["mask_height"]) == (130, 100, 104, 80)
    assert not (out / "slides" / "unknown" / "mask.tif").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--flips"], "--flips makes no sense on a slide"),
        (["--undecidable"], "--undecidable makes no sense on a slide"),
        (["--formats", "nifti"], "a slide is not written as 'nifti'"),
        (["--cell", "100"], "multiple of 32"),
        (["--mpp", "500"], "not a valid size of a pixel"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_makes_no_sense_on_a_slide_is_refused(model, images, tmp_path, capsys, more, said):
    words = ["predict", str(images / "slide.svs"), "--model", str(model), "--output", str(tmp_path / "out"), *more]
    assert main(words) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "slides.csv").exists()


def test_model_loaded_with_views_is_refused_for_slides(model, images):
    localize = glas_wsol.load(model, flips=True)
    with pytest.raises(ConfigError, match="makes no sense on a slide"):
        localize.for_slides()
    with pytest.raises(ImageFileError, match="this is a whole slide"):
        localize(images / "slide.svs")


def test_without_openslide_one_line_says_how_to_install_it(model, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = ["predict", str(images / "slide.svs"), "--model", str(model), "--output", str(tmp_path / "out")]
    assert main(words) == 1
    assert "pip install openslide-python openslide-bin" in capsys.readouterr().err
