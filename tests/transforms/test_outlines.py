# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What GeoJSON outlines is read back as it was, and what is no outline is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from PIL import Image

from glas_wsol.errors import ImageFileError
from glas_wsol.results.postprocessing import separate_objects
from glas_wsol.transforms import LoadMaskd, read_mask
from glas_wsol.transforms.reading import outlines
from glas_wsol.transforms.reading.outlines import FIRST_LABEL, read_outlines
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
    np.testing.assert_array_equal(read_outlines(tmp_path / "a.geojson", *found.mask.shape) > 0, found.mask)


def test_rows_columns_holes_overlaps_and_the_border(tmp_path):
    expected = np.zeros((7, 9), bool)
    expected[2:5, 1:4] = True
    expected[3, 2] = False
    hole = [[2, 3], [3, 3], [3, 4], [2, 4], [2, 3]]
    assert np.array_equal(read_outlines(written(tmp_path, feature(SQUARE, hole)), 7, 9) > 0, expected)
    expected[3, 2] = True
    two = {"type": "FeatureCollection", "features": [feature(SQUARE, hole), feature(SQUARE)]}
    assert np.array_equal(read_outlines(written(tmp_path, two), 7, 9) > 0, expected), "what overlaps is inside"
    beyond = [[[x * 3 - 5, y * 9 - 20] for x, y in SQUARE]]
    found = read_outlines(written(tmp_path, [feature(beyond, kind="MultiPolygon")]), 7, 9) > 0
    assert found.sum() == 7 * 7
    assert found[:, :7].all(), "columns -2 to 7, rows -2 to 25"
    assert not read_outlines(written(tmp_path, [feature(SQUARE, name="Undecidable")]), 7, 9).any()
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
        (feature(*SQUARE, kind="LineString"), "feature 1 is a LineString, which has no area"),
        (feature(1, 2, kind="Point"), "feature 1 is a Point, which has no area"),
        (feature([[1, 2], [4, 5], [4, 2], [1, 5], [1, 2]]), r"crosses itself at \(2.5, 3.5\)"),
        (feature(SQUARE, [[6, 2], [8, 2], [8, 5], [6, 2]]), "hole lies outside shell"),
        (feature([[1, 2], [4, 2], [1, 2], [1, 2]]), "without area"),
        (feature([[x + 100, y] for x, y in SQUARE]), "feature 1 lies outside the image of 9 x 7 px"),
        ([feature(SQUARE), feature(), feature(SQUARE[:2])], "feature 2 has no coord.*; feature 3 .* not closed"),
        ([feature()] * 7, "and 2 more"),
        ({"type": "Feature", "geometry": None}, "no Polygon"),
        (json.dumps(feature(SQUARE)).replace("4", "NaN"), "not finite"),
        (json.dumps(feature(SQUARE)).replace("4", "1e300"), "far away"),
    ],
)
def test_what_is_no_outline_is_refused(tmp_path, content, word):
    with pytest.raises(ImageFileError, match=word) as caught:
        read_outlines(written(tmp_path, content), 7, 9)
    assert "\n" not in str(caught.value)
    assert "a.geojson]: " in str(caught.value)
    assert "export" in caught.value.fix


def test_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(outlines, "MAX_CORNERS", 9)
    read_outlines(written(tmp_path, feature(SQUARE)), 7, 9)
    with pytest.raises(ImageFileError, match="more than 9 corners"):
        read_outlines(written(tmp_path, [feature(SQUARE)] * 2), 7, 9)
    with pytest.raises(ImageFileError, match="No such file"):
        read_outlines(tmp_path / "nowhere", 7, 9)


def shape(kind: str, coordinates: object, **more: object) -> dict:
    return {"type": kind, "coordinates": coordinates, **more}


def qupath_feature(geometry: dict, kind: str = "annotation", **properties: object) -> dict:
    identity = "00000000-0000-0000-0000-000000000001"
    return {"type": "Feature", "id": identity, "geometry": geometry, "properties": {"objectType": kind, **properties}}


def box(left: float, top: float, right: float, bottom: float) -> list:
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def around(x: float, y: float, a: float, b: float) -> list:
    angles = np.linspace(0, 2 * np.pi, 41)
    ring = np.stack([x + a * np.cos(angles), y + b * np.sin(angles)], axis=1).round(2).tolist()
    return [*ring[:-1], ring[0]]


GLAND = {"name": "Gland", "color": [200, 0, 0]}
COUNTED = [
    qupath_feature(shape("Polygon", [box(2.25, 1.7, 13.4, 9.75), box(5, 4, 8, 7)]), classification=GLAND),
    qupath_feature(shape("MultiPolygon", [[box(20, 2, 24, 6)], [around(30, 6, 3.3, 4.1)]]), isLocked=True),
    qupath_feature(shape("Polygon", [around(12, 20, 9.2, 5.6)], isEllipse=True, plane={"c": -1, "z": 0, "t": 0})),
    qupath_feature(shape("Polygon", [[[30, 20], [41.5, 18.25], [36, 30.5], [30, 20]]]), kind="detection"),
    qupath_feature(
        {"type": "GeometryCollection", "geometries": [shape("Polygon", [box(45, 1, 58, 3)])]},
        kind="cell",
        classification={"names": ["Gland", "malignant"], "color": [1, 2, 3]},
        measurements={"Area px": 26.0},
    ),
]
PASSED_OVER = [
    qupath_feature(shape("Polygon", [box(0, 0, 58, 33)]), classification={"name": "Region*"}),
    qupath_feature(shape("LineString", [[0, 0], [5, 5]]), classification={"name": "Ignore*"}),
    qupath_feature(shape("Polygon", [box(0, 0, 58, 33)]), kind="root"),
]


def by_shapely(features: list[dict], height: int = 33, width: int = 58) -> np.ndarray:
    """Which pixels have their centres in a feature, as shapely says."""
    y, x = np.mgrid[:height, :width] + 0.5
    found = shapely.union_all([shapely.from_geojson(json.dumps(one["geometry"])) for one in features])
    return shapely.contains_xy(found, x, y)


@pytest.mark.parametrize("collection", [True, False])
def test_what_qupath_writes_is_filled_as_shapely_does(tmp_path, collection):
    features = [*COUNTED[:2], *PASSED_OVER, *COUNTED[2:]]
    content = {"type": "FeatureCollection", "features": features} if collection else features
    found = read_mask(written(tmp_path, content), size=(33, 58))
    np.testing.assert_array_equal(found > 0, by_shapely(COUNTED))
    assert np.unique(found[found > 0]).tolist() == list(range(FIRST_LABEL, FIRST_LABEL + 5))


def test_outlines_that_touch_stay_two_objects(tmp_path):
    two = [feature(SQUARE), feature([[x + 3, y] for x, y in SQUARE])]
    item = {"image": torch.zeros(3, 7, 9), "mask": str(written(tmp_path, two)), "other": 1}
    mask = LoadMaskd("mask")(item)["mask"]
    assert mask.shape == (1, 7, 9)
    assert mask.meta["filename_or_obj"].endswith("a.geojson")
    assert separate_objects(mask)[3].tolist() == [0, 1, 1, 1, 2, 2, 2, 0, 0]
    assert ((mask > 127) == (mask > 0)).all(), "foreground whatever the threshold of votes"


def test_load_mask_reads_pixels_and_may_miss_them(tmp_path):
    labels = np.arange(63, dtype=np.uint8).reshape(7, 9)
    Image.fromarray(labels).save(tmp_path / "m.png")
    item = {"image": torch.zeros(3, 7, 9), "mask": str(tmp_path / "m.png")}
    np.testing.assert_array_equal(LoadMaskd("mask")(item)["mask"][0].numpy(), labels)
    assert "mask" not in LoadMaskd("mask", allow_missing_keys=True)({"image": torch.zeros(3, 7, 9)})
    with pytest.raises(ImageFileError, match="outlines do not say the size"):
        read_mask(written(tmp_path, [feature(SQUARE)]))
    with pytest.raises(ImageFileError, match="budget"):
        read_mask(written(tmp_path, [feature(SQUARE)]), max_pixels=9, size=(7, 9))


def test_ring_that_only_rounding_let_cross_is_read(tmp_path):
    ring = [[1, 1], [6, 1], [6, 5], [3.01, 5], [3, 1], [2.99, 1.01], [3, 5], [1, 5], [1, 1]]
    assert not shapely.Polygon(ring).is_valid
    found = read_outlines(written(tmp_path, feature(ring)), 7, 9) > 0
    assert found.sum() == 20


def test_tile_of_a_slide_has_its_own_or_the_slides_positions(tmp_path):
    slides = [feature([[x + 1000, y + 500] for x, y in SQUARE]), feature([[x + 40, y] for x, y in SQUARE])]
    expected = read_outlines(written(tmp_path, feature(SQUARE)), 7, 9) > 0
    for name, content in (("a", slides), ("b", feature(SQUARE))):
        path = written(tmp_path, content).rename(tmp_path / f"{name} [x=1000,y=500,w=9,h=7].geojson")
        assert np.array_equal(read_outlines(path, 7, 9) > 0, expected)
    half = [feature([[2 * x + 1000, 2 * y + 500] for x, y in SQUARE])]
    path = written(tmp_path, half).rename(tmp_path / "c [d=2,x=1000,y=500,w=18,h=14]_mask.geojson")
    assert np.array_equal(read_outlines(path, 7, 9) > 0, expected)
    path = written(tmp_path, slides).rename(tmp_path / "d [x=2000,y=500,w=9,h=7].geojson")
    with pytest.raises(ImageFileError, match="feature 1 lies outside the tile"):
        read_outlines(path, 7, 9)
    path = written(tmp_path, feature(SQUARE)).rename(tmp_path / "e [x=2,y=2,w=9,h=7].geojson")
    with pytest.raises(ImageFileError, match=r"of the tile or of its slide.*rename"):
        read_outlines(path, 7, 9)
