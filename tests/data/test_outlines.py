# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What GeoJSON outlines is read back as it was, and what is no outline is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from glas_wsol.data import outlines
from glas_wsol.data.outlines import read_outlines
from glas_wsol.errors import ImageFileError
from glas_wsol.writers.geojson import write_geojson
from tests.writers.results import asymmetric_result

SQUARE = [[1, 2], [4, 2], [4, 5], [1, 5], [1, 2]]


def written(tmp_path: Path, content: object) -> Path:
    (tmp_path / "a.geojson").write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path / "a.geojson"


def feature(*rings: object, kind: str = "Polygon", name: str = "Tumor") -> dict:
    geometry = {"type": kind, "coordinates": list(rings)}
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}


@pytest.mark.parametrize("rest", [False, True])
def test_what_was_written_is_read_back(tmp_path, rest):
    found = asymmetric_result()
    write_geojson(tmp_path / "a.geojson", found, undecidable=rest)
    assert 0 < found.mask.mean() < 1
    np.testing.assert_array_equal(read_outlines(tmp_path / "a.geojson", *found.mask.shape), found.mask)


def test_rows_columns_holes_overlaps_and_the_border(tmp_path):
    expected = np.zeros((7, 9), bool)
    expected[2:5, 1:4] = True
    expected[3, 2] = False
    hole = [[2, 3], [3, 3], [3, 4], [2, 4], [2, 3]]
    assert np.array_equal(read_outlines(written(tmp_path, feature(SQUARE, hole)), 7, 9), expected)
    expected[3, 2] = True
    two = {"type": "FeatureCollection", "features": [feature(SQUARE, hole), feature(SQUARE)]}
    assert np.array_equal(read_outlines(written(tmp_path, two), 7, 9), expected), "what overlaps is inside"
    beyond = [[[x * 3 - 5, y * 9 - 20] for x, y in SQUARE]]
    found = read_outlines(written(tmp_path, [feature(beyond, kind="MultiPolygon")]), 7, 9)
    assert found.sum() == 7 * 7
    assert found[:, :7].all(), "columns -2 to 7, rows -2 to 25"
    far = [[x + 100, y] for x, y in SQUARE]
    assert not read_outlines(written(tmp_path, [feature(far), feature(SQUARE, name="Undecidable")]), 7, 9).any()
    assert not read_outlines(written(tmp_path, {"type": "FeatureCollection", "features": []}), 7, 9).any()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("3", "no FeatureCollection"),
        ({"type": "FeatureCollection"}, "no FeatureCollection"),
        ([feature(SQUARE), 3], "entry 2 is no Feature"),
        ({"type": "Polygon", "coordinates": [SQUARE]}, "no Feature"),
        (feature(SQUARE[:-1]), "not closed"),
        (feature(SQUARE[:2]), "not closed"),
        (feature(), "no coordinates"),
        (feature([], kind="MultiPolygon"), "no coordinates"),
        (feature([[1, 2], ["a", 2], [4, 5], [1, 2]]), "no pair"),
        (feature([[1, 2], [True, 2], [4, 5], [1, 2]]), "no pair"),
        (feature([[1], [2], [3], [1]]), "no pair"),
        (feature(SQUARE, kind="LineString"), "no Polygon"),
        ({"type": "Feature", "geometry": None}, "no Polygon"),
        (json.dumps(feature(SQUARE)).replace("4", "NaN"), "not finite"),
        (json.dumps(feature(SQUARE)).replace("4", "1e300"), "far away"),
    ],
)
def test_what_is_no_outline_is_refused(tmp_path, content, word):
    with pytest.raises(ImageFileError, match=word) as caught:
        read_outlines(written(tmp_path, content), 7, 9)
    assert "\n" not in str(caught.value)
    assert "a.geojson]: export" in str(caught.value)


def test_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(outlines, "MAX_CORNERS", 9)
    read_outlines(written(tmp_path, feature(SQUARE)), 7, 9)
    with pytest.raises(ImageFileError, match="more than 9 corners"):
        read_outlines(written(tmp_path, [feature(SQUARE)] * 2), 7, 9)
    with pytest.raises(ImageFileError, match="No such file"):
        read_outlines(tmp_path / "nowhere", 7, 9)
