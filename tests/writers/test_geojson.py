# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""GeoJSON read back: the same mask, valid to independent validators, with what QuPath reads."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from scipy.ndimage import gaussian_filter

from glas_wsol.errors import OutputError
from glas_wsol.results.class_scores import ClassProbabilities, ClassScores
from glas_wsol.results.localization import Localization
from glas_wsol.results.provenance import provenance_of
from glas_wsol.transforms.reading.outlines import read_outlines
from glas_wsol.writers.geojson import CLASS_COLORS, EDITABLE, features, write_geojson
from tests.results.test_polygons import CASES, filled, random_masks

# RFC 7946, 3.1.6, 3.1.7, 3.2 and 3.3, as far as areas need it, and what QuPath 0.4 and later reads of a feature.
POSITION = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3}
POLYGON = {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 4, "items": POSITION}}
SCHEMA = {
    "type": "object",
    "required": ["type", "features"],
    "not": {"anyOf": [{"required": [key]} for key in ("coordinates", "geometry", "properties", "crs")]},
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "id", "geometry", "properties"],
                "properties": {
                    "type": {"const": "Feature"},
                    "id": {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
                    "geometry": {
                        "oneOf": [
                            {"properties": {"type": {"const": "Polygon"}, "coordinates": POLYGON}},
                            {
                                "properties": {
                                    "type": {"const": "MultiPolygon"},
                                    "coordinates": {"type": "array", "minItems": 2, "items": POLYGON},
                                }
                            },
                        ],
                    },
                    "properties": {
                        "type": "object",
                        "required": ["objectType", "classification", "measurements"],
                        "properties": {
                            "objectType": {"const": "annotation"},
                            "classification": {
                                "type": "object",
                                "required": ["name", "color"],
                                "additionalProperties": False,
                                "properties": {
                                    "name": {"type": "string", "minLength": 1},
                                    "color": {
                                        "type": "array",
                                        "minItems": 3,
                                        "maxItems": 3,
                                        "items": {"type": "integer", "minimum": 0, "maximum": 255},
                                    },
                                },
                            },
                            "measurements": {"type": "object", "additionalProperties": {"type": "number"}},
                        },
                    },
                },
            },
        },
    },
}


def result(mask: np.ndarray, **changes) -> Localization:
    decidable = np.where(mask, 0.75, 0.125).astype(np.float32)
    found = Localization("ä 1", "tiles/ä 1.bmp", ("benign", "malignant"), (0.25, 0.75), decidable, True)
    return replace(found, **changes)


def written(path, found, **more) -> dict:
    write_geojson(path, found, **more)
    collection = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator(SCHEMA).validate(collection)
    return collection


def polygons(collection) -> list:
    shapes = [feature["geometry"] for feature in collection["features"]]
    return [p for s in shapes for p in (s["coordinates"] if s["type"] == "MultiPolygon" else [s["coordinates"]])]


@pytest.mark.parametrize("mask", CASES.values(), ids=CASES.keys())
def test_the_file_filled_in_is_the_mask(tmp_path, mask):
    collection = written(tmp_path / "a.geojson", result(mask))
    np.testing.assert_array_equal(filled(polygons(collection), mask.shape), mask.astype(int))


def test_random_masks_are_valid_to_others_and_come_back(tmp_path):
    geojson, shape = pytest.importorskip("geojson"), pytest.importorskip("shapely.geometry").shape
    for mask in random_masks():
        collection = written(tmp_path / "a.geojson", result(mask))
        assert geojson.loads((tmp_path / "a.geojson").read_text(encoding="utf-8")).is_valid
        np.testing.assert_array_equal(filled(polygons(collection), mask.shape), mask.astype(int))
        shapes = [shape(feature["geometry"]) for feature in collection["features"]]
        assert all(one.is_valid for one in shapes)
        assert sum(one.area for one in shapes) == mask.sum()


def test_editable_outlines_are_valid_and_nearly_the_mask(tmp_path):
    shape = pytest.importorskip("shapely.geometry").shape
    for seed in range(4):
        noise = gaussian_filter(np.random.default_rng(seed).normal(size=(160, 240)), 10 + seed)
        mask = noise > np.quantile(noise, 0.6)
        mask[::40, ::30] ^= True  # specks and holes of one pixel stay
        write_geojson(tmp_path / "exact.geojson", result(mask))
        exact = polygons(json.loads((tmp_path / "exact.geojson").read_text(encoding="utf-8")))
        found = written(tmp_path / "a", result(mask), tolerance=EDITABLE)
        assert all(shape(one["geometry"]).is_valid for one in found["features"])
        assert list(map(len, polygons(found))) == list(map(len, exact)), "parts and holes"
        corners = [sum(len(ring) for polygon in one for ring in polygon) for one in (exact, polygons(found))]
        assert corners[1] < 0.4 * corners[0]
        filled_in = read_outlines(tmp_path / "a", *mask.shape) > 0
        assert (filled_in & mask).sum() / (filled_in | mask).sum() > 0.96


def test_every_ring_is_closed_and_turns_as_the_rfc_says(tmp_path):
    for polygon in polygons(written(tmp_path / "a.geojson", result(CASES["a part in a hole"]))):
        for index, ring in enumerate(polygon):
            assert ring[0] == ring[-1]
            x, y = np.array(ring).T
            area = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2
            assert (area > 0) == (index == 0)


def test_a_feature_says_what_qupath_shows(tmp_path):
    mask = np.zeros((4, 7), bool)
    mask[1:3, 2:5] = True
    decidable = result(mask).decidable.copy()
    decidable[1, 2] = 1.0  # mean (1 + 5 * 0.75) / 6
    (feature,) = written(tmp_path / "a.geojson", result(mask, decidable=decidable, mpp=(0.5, 0.25)))["features"]
    assert feature["geometry"] == {"type": "Polygon", "coordinates": [[[2, 1], [5, 1], [5, 3], [2, 3], [2, 1]]]}
    assert feature["properties"] == {
        "objectType": "annotation",
        "name": "ä 1: decidable",
        "classification": {"name": "malignant", "color": list(CLASS_COLORS[1])},
        "isLocked": False,
        "measurements": {
            "Area px": 6,
            "Area um^2": 0.75,
            "Mean R+": 0.791667,
            "Probability: benign": 0.25,
            "Probability: malignant": 0.75,
        },
        "metadata": {"Model": "training data not recorded"},
    }


def test_without_a_pixel_size_there_is_no_area_in_micrometres(tmp_path):
    (feature,) = written(tmp_path / "a.geojson", result(CASES["hole"]))["features"]
    assert set(feature["properties"]["measurements"]) == {
        *("Area px", "Mean R+", "Probability: benign", "Probability: malignant")
    }


@pytest.mark.parametrize(
    ("changes", "name", "color"),
    [
        ({"probabilities": ()}, "Decidable", CLASS_COLORS[0]),
        ({"multi_label": True, "probabilities": (0.125, 0.25)}, "Decidable", CLASS_COLORS[0]),
        ({"multi_label": True, "probabilities": (0.5, 0.75)}, "benign;malignant", CLASS_COLORS[0]),
        ({"probabilities": (0.75, 0.25)}, "benign", CLASS_COLORS[0]),
    ],
)
def test_the_class_is_the_one_named(changes, name, color):
    (feature,) = features(result(CASES["hole"], **changes))
    assert feature["properties"]["classification"] == {"name": name, "color": list(color)}
    chances = [key for key in feature["properties"]["measurements"] if key.startswith("Probability")]
    assert len(chances) == len(changes["probabilities"])


def test_the_rest_makes_up_the_image(tmp_path):
    mask = CASES["a ring of holes around a part"]
    collection = written(tmp_path / "a.geojson", result(mask), undecidable=True)
    np.testing.assert_array_equal(filled(polygons(collection), mask.shape), np.ones(mask.shape, int))
    names = [feature["properties"]["classification"]["name"] for feature in collection["features"]]
    assert names == ["malignant", "Undecidable"]
    rest = collection["features"][1]
    assert rest["properties"]["measurements"] == {"Area px": 4, "Mean R+": 0.125}
    assert len({feature["id"] for feature in collection["features"]}) == 2


@pytest.mark.parametrize("knows_mask", [True, False])
def test_region_scores_are_written_only_where_evidence(knows_mask):
    asked = ClassScores(undecidable=ClassProbabilities((0.625, 0.375)), knows_mask=knows_mask)
    found = result(CASES["a ring of holes around a part"], class_scores=asked)
    decidable, rest = (one["properties"]["measurements"] for one in features(found, undecidable=True))
    assert [key for key in decidable if "undecidable" in key] == []
    said = {
        "Probability of the undecidable region: benign": 0.625,
        "Probability of the undecidable region: malignant": 0.375,
    }
    assert {key: value for key, value in rest.items() if "undecidable" in key} == (said if knows_mask else {})


def test_origin_is_with_the_file_and_each_outline(tmp_path):
    drawn = {"name": "phantom (synthetic tissue)", "synthetic": "tissue", "images": 24}
    made = provenance_of({"training_data": drawn, "alarm": {"score": 0.04, "verdict": "no alarm"}})
    found = result(CASES["hole"], provenance=made)
    said = {
        "Model": "trained on synthetic tissue (phantom, 24 images)",
        "Training run": "training run: no alarm (estimated failure probability 0.04); "
        "this judges the training run, not this image",
    }
    collection = written(tmp_path / "a.geojson", found)
    assert collection["metadata"] == said
    assert [one["properties"]["metadata"] for one in collection["features"]] == [said]


def test_without_evidence_there_are_no_features(tmp_path):
    found = result(CASES["hole"], evidence=False)
    collection = written(tmp_path / "a.geojson", found, undecidable=True)
    assert (collection["type"], collection["features"]) == ("FeatureCollection", [])
    assert collection["metadata"] == {"Model": "training data not recorded"}


def test_ids_are_stable_and_distinct(tmp_path):
    found = result(CASES["a chessboard"][:1])
    write_geojson(tmp_path / "a.geojson", found)
    write_geojson(tmp_path / "b.geojson", found)
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()
    ids = [feature["id"] for one in (found, replace(found, name="other")) for feature in features(one)]
    assert len(set(ids)) == len(ids) == 6
    assert all(uuid.UUID(one).version == 5 for one in ids)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="make the folder first"):
        write_geojson(tmp_path / "none" / "a.geojson", result(CASES["hole"]))
    write_geojson(tmp_path / "a.geojson", result(CASES["hole"]))
    before = (tmp_path / "a.geojson").read_bytes()
    broken = result(CASES["hole"], probabilities=(0.25, float("nan")))
    with pytest.raises(ValueError, match="JSON"):
        write_geojson(tmp_path / "a.geojson", broken)
    assert (tmp_path / "a.geojson").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.geojson"]
