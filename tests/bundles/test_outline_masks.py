# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Masks as outlines, through a table: the U-Net learns from them, and evaluation measures the same as with pixels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glas_wsol.commands import figure
from glas_wsol.doctor import check_data
from glas_wsol.results.localization import Localization
from glas_wsol.visualize.overview import draw_overview
from glas_wsol.writers.geojson import write_geojson
from tests.bundles.conftest import BUNDLES, NO_DIAGRAM, ROOT, SMALL, config, paper, workflow

KINDS = ("png", "geojson")
UNET = str(ROOT / "configs" / "methods" / "unet.json")


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, Path]:
    """The same masks as pixels and as outlines, of tiles of 70 x 90 px with two bars of one class's colour."""
    folder, random = tmp_path_factory.mktemp("outlines"), np.random.default_rng(0)
    lines: dict[str, list[str]] = {kind: ["image,label,mask,split"] for kind in KINDS}
    for n in range(10):
        tile, mask = random.integers(90, 130, (70, 90, 3)), np.zeros((70, 90), bool)
        mask[5 + n : 40 + n, 8:30], mask[20:24, 12:20], mask[50:60, 40 : 80 - n] = True, False, True
        tile[mask, n % 2] += 110
        Image.fromarray(tile.astype(np.uint8)).save(folder / f"t{n}.png")
        Image.fromarray(mask).save(folder / f"m{n}.png")
        write_geojson(folder / f"m{n}.geojson", Localization(f"t{n}", "", ("a", "b"), (1, 0), mask.astype("f4"), True))
        for kind in KINDS:
            split = "train" if n < 6 else "valid" if n < 8 else "test"
            lines[kind].append(f"t{n}.png,{'ab'[n % 2]},m{n}.{kind},{split}")
    for kind in KINDS:
        (folder / f"{kind}.csv").write_text("\n".join(lines[kind]))
    return {kind: folder / f"{kind}.csv" for kind in KINDS}


def test_outlines_are_learnt_from_and_measured_as_pixels_are(tables, tmp_path):
    settings = {**SMALL, "epochs": 1, "bundle_root": str(ROOT / "bundles" / BUNDLES[0]), "stain": None}
    del settings["passes"]
    output = {"output_dir": str(tmp_path / "run"), "ckpt_dir": str(tmp_path / "run" / "models")}
    train = workflow("train", [*paper(BUNDLES[0]), UNET], dataset_dir=str(tables["geojson"]), **output, **settings)
    train.run()
    train.finalize()
    found = {}
    for kind in KINDS:
        output["output_dir"] = str(tmp_path / kind)
        files = [*paper(BUNDLES[0]), UNET, config(BUNDLES[0], "evaluate")]
        workflow("train", files, dataset_dir=str(tables[kind]), **output, **settings, **NO_DIAGRAM).run()
        with (tmp_path / kind / "evaluation.csv").open() as file:
            found[kind] = [{k: v for k, v in row.items() if k != "mask"} for row in csv.DictReader(file)]
        report = json.loads((tmp_path / kind / "evaluation.json").read_text())
        assert report["n_with_masks"] == 2
        assert draw_overview(tmp_path / kind, report) is not None
        row = {**found[kind][0], "mask": str(tables[kind].with_name(f"m6.{kind}"))}
        run = type("Run", (), {"facts": {"mask_threshold": 0, "split": "valid"}, "folder": tmp_path / kind})
        assert figure._line(row, [run]).truth.sum() == 35 * 22 - 4 * 8 + 10 * 34
    assert found["png"] == found["geojson"]


def test_doctor_reads_outlines_and_names_the_feature(tables, tmp_path):
    (check,) = check_data(tables["geojson"])[-1:]
    assert str(check).endswith("all 10 images can be read")
    text = tables["geojson"].read_text().replace("m3.geojson", "bad.geojson")
    lines = {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}
    bad = tables["geojson"].with_name("bad.geojson")
    bad.write_text(json.dumps([{"type": "Feature", "geometry": lines}]))
    table = bad.with_suffix(".csv")
    table.write_text(text)
    (check,) = check_data(table)[-1:]
    assert f"{bad}: feature 1 is a LineString, which has no area" in str(check)
