# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The table of glands: known shapes have their known figures."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from PIL import Image

from glas_wsol.results.localization import Localization
from glas_wsol.writers.formats import write_localization
from glas_wsol.writers.gland_table import GLAND_COLUMNS, gland_rows


def drawn(**changes) -> Localization:
    """A ring of radius 30 px around a hole of radius 10 px, pale in a quarter of the hole's surroundings; a bar."""
    y, x = np.mgrid[:120, :200]
    radius = np.hypot(y - 60, x - 70)
    decidable = np.full((120, 200), 0.125, np.float32)
    decidable[(radius <= 30) & (radius > 10)] = 0.75
    decidable[20:100, 180:] = 1
    decidable[0, 0] = 0.9  # a speck gets no box
    image = np.full((120, 200, 3), (150, 60, 150), np.uint8)
    image[(radius <= 20) & (radius > 10) & (x >= 70) & (y >= 60)] = 250
    values = {"probabilities": (0.25, 0.75), "decidable": decidable, "evidence": True, "image": image} | changes
    return Localization("t", "t.png", ("benign", "malignant"), **values)


def test_glands_of_known_shape_have_their_figures():
    ring, bar = gland_rows(drawn(mpp=(0.5, 0.5)))
    assert tuple(ring) == GLAND_COLUMNS
    assert (bar["area_px"], bar["area_um2"], bar["solidity"]) == (1600, "400", "1.000000")
    assert (bar["touches_border"], ring["touches_border"], bar["gland"], ring["gland"]) == (1, 0, 2, 1)
    assert (float(ring["x"]), float(ring["y"])) == (70, 60)
    assert ring["area_px"] == pytest.approx(math.pi * (900 - 100), rel=0.01)
    assert float(ring["perimeter_px"]) == pytest.approx(2 * math.pi * 30, rel=0.03)
    assert float(ring["perimeter_um"]) == pytest.approx(float(ring["perimeter_px"]) / 2, rel=1e-5)
    assert float(ring["circularity"]) > 0.95
    assert float(bar["circularity"]) == pytest.approx(math.pi * 1600 / 100**2, rel=0.15)
    assert float(ring["lumen_share"]) == pytest.approx((100 + 300 / 4) / 900, rel=0.05)
    assert (ring["mean_decidable"], ring["uncertainty"], bar["uncertainty"]) == ("0.750000", "0.811278", "0.000000")
    assert (ring["class"], ring["probability"], ring["name"]) == ("malignant", "0.750000", "t")


def test_glands_without_image_size_class_or_evidence_are_said():
    _, bar = gland_rows(drawn(image=None, probabilities=()))
    assert [bar[key] for key in ("lumen_share", "area_um2", "perimeter_um", "probability")] == [""] * 4
    assert gland_rows(drawn(evidence=False)) == []


def test_gland_and_uncertainty_files_are_read_back(tmp_path):
    found = drawn()
    write_localization(tmp_path, found, ["glands", "uncertainty"])
    with (tmp_path / "glands" / "t.csv").open(newline="") as file:
        assert [row["area_px"] for row in csv.DictReader(file)] == [str(row["area_px"]) for row in gland_rows(found)]
    grey = np.asarray(Image.open(tmp_path / "uncertainty" / "t.png"))
    assert grey.dtype == np.uint16
    assert grey[60, 95] == round(65535 * 0.8112781244591328)
    assert (grey[50, 190], found.uncertainty[50, 190]) == (0, 0)
    write_localization(tmp_path, drawn(evidence=False), ["glands"])
    assert (tmp_path / "glands" / "t.csv").read_text().strip() == ",".join(GLAND_COLUMNS)
